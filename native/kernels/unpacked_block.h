// Rows that are unpacked once for many tokens. Included textually, as loops.h is, after block_values.h and
// clang-format off
//   kTileTokens, TileBlock      tokens in a tile, and a block of them
//   kVectorsTogether              vectors of rows that a tile is multiplied with at a time
//   Tiles                       while one exists, this thread may multiply tiles
//   store_quads<f>(first, second, values, g, lane)   puts quads g and g + 1 of rows [lane, lane + L) into values,
//                               as multiply_tile() wants them
// clang-format on

#include "kernels/whole_halves.h"

constexpr int kVectors = kRowGroup / kLanes;  // of the rows of a group

using QuadsOfRows = std::uint8_t[kQuads][kChunk];

// A block of 16 rows.
template <Format f>
struct UnpackedBlock {
    alignas(kAlignment) QuadsOfRows values;
    TileScales<f> scales[kVectors];
};

template <Format f, int g = 0>
inline void unpack_values(const Block<f>& block, std::int64_t lane, QuadsOfRows& values) {
    if constexpr (g < kQuads) {
        QuadPair pair;
        if constexpr (has_grid(f)) {
            pair = block.template quads<g>();
        } else {
            pair = {block.template quad<g>(), block.template quad<g + 1>()};
        }
        store_quads<f>(pair.first, pair.second, values, g, lane);
        unpack_values<f, g + 2>(block, lane, values);
    }
}

// Blocks [begin, end) of a row group.
template <Format f>
void unpack(const std::uint8_t* group, std::int64_t cols, std::int64_t begin, std::int64_t end,
            UnpackedBlock<f>* to) {
    const std::uint8_t* codes = group + group_header_bytes(f, cols);
    for (std::int64_t block = begin; block < end; ++block, ++to) {
        const std::uint8_t* shared = group + shared_scale_offset(f, block);
        const std::uint8_t* scales = group + block_scale_offset(f, block);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
            const ScalePlace place = {shared, scales, v * kLanes};
            const std::uint8_t* part = codes + block * block_code_bytes(f) + v * kLanes * kQuad;
            unpack_values<f>({part, place}, place.lane, to->values);
            to->scales[v] = tile_scales<f>(place);
        }
    }
}

// Row groups that are unpacked at a time, and blocks of their columns: those stay in the first cache while
// all tokens pass.
constexpr std::int64_t kGroupsAtOnce = kVectorsTogether > kVectors ? kVectorsTogether / kVectors : 1;
constexpr std::int64_t kBlocksAtOnce = 16;
template <Format f>
using UnpackedGroups = UnpackedBlock<f>[kGroupsAtOnce][kBlocksAtOnce];

// Blocks [begin, begin + count) of the columns, and what their sums are multiplied with after the last ones.
struct BlockRange {
    std::int64_t begin, count;
    const F* base;  // of all vectors, or nullptr before the last
};

// Where the sums of a tile of tokens and some row groups stand; those of earlier columns are there already.
struct SumPlace {
    float* out;
    std::int64_t stride, num_tokens, num_rows;
};

// Adds the products of a tile and unpacked blocks to the sums.
template <Format f>
void multiply_tile(const UnpackedGroups<f>& w, const TileBlock* x, const BlockRange& range,
                   const SumPlace& place);

// The first num_tiled tokens by row groups [begin, end).
template <Format f>
void multiply_unpacked(const Matrix& w, const Activations& x, std::int64_t num_tiled, std::int64_t begin,
                       std::int64_t end, float* out, std::int64_t stride) {
    [[maybe_unused]] const Tiles tiles;
    const std::int64_t num_blocks = w.cols / kBlock, bytes = group_bytes(f, w.cols);
    UnpackedGroups<f> unpacked;
    for (std::int64_t first = begin; first < end; first += kGroupsAtOnce) {
        const std::int64_t num_groups = smaller(kGroupsAtOnce, end - first), row = first * kRowGroup;
        const std::int64_t num_rows = smaller(num_groups * kRowGroup, w.rows - row);
        F base[kGroupsAtOnce * kVectors];
        for (std::int64_t i = 0; i < num_groups * kVectors; ++i) {
            base[i] = load_base<f>(w.packed + (first + i / kVectors) * bytes, i % kVectors * kLanes);
        }
        for (std::int64_t block = 0; block < num_blocks; block += kBlocksAtOnce) {
            const std::int64_t count = smaller(kBlocksAtOnce, num_blocks - block);
            const BlockRange range = {block, count, block + count == num_blocks ? base : nullptr};
            for (std::int64_t i = 0; i < num_groups; ++i) {
                unpack<f>(w.packed + (first + i) * bytes, w.cols, block, block + count, unpacked[i]);
            }
            for (std::int64_t t = 0; t < num_tiled; t += kTileTokens) {
                const auto* tile =
                    reinterpret_cast<const TileBlock*>(x.blocks + t * num_blocks * kTokenBlockBytes);
                multiply_tile<f>(
                    unpacked, tile + block, range,
                    {out + t * stride + row, stride, smaller(kTileTokens, num_tiled - t), num_rows});
            }
        }
    }
}
