// AMX: integer products of 16 tokens and 16 rows in one instruction. Fewer tokens and matrices of floats go
// the way of AVX-512 with VBMI, which every processor with AMX has. EDGEMOE_AMX_BY_AVX512 does what tiles do
// by plain code, so that these kernels can be tested on processors that have only that.
#include <immintrin.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/avx512.h"
#include "kernels/vbmi.h"

// In this order: each builds on those before.
#include "kernels/token_blocks.h"
#include "kernels/block_scales.h"
#include "kernels/trellis_quads.h"
#include "kernels/grid_shuffles.h"
#include "kernels/block_values.h"
#include "kernels/trellis_shuffles.h"

constexpr int kTileTokens = 16;
// An unfilled tile takes as long as a full one; fewer tokens are quicker without.
constexpr std::int64_t kUnfilledFrom = 11;
constexpr int kTokensTogether = 1;

const Kernels* rest_kernels() { return avx512vbmi_kernels(); }

using TileSums = std::int32_t[kTileTokens][kRowGroup];

// What palette 1 has.
constexpr int kNumTiles = 8, kMostTileRows = 16, kMostTileBytes = 64;

// Tiles 0 and 1 hold sums [token][row], 2 codes of tokens [token][column], 3 values [quad][row][column % 4].
struct alignas(kAlignment) TileShapes {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {4 * kRowGroup, 4 * kRowGroup, kBlock, kChunk};
    std::uint8_t rows[16] = {kTileTokens, kTileTokens, kTileTokens, kQuads};
};
constexpr TileShapes kTileShapes;

// Whether tiles may be multiplied: else the instruction is refused.
constexpr bool fit(int sums, int codes, int values) {
    const TileShapes& by = kTileShapes;
    return by.rows[sums] == by.rows[codes] && by.row_bytes[sums] == by.row_bytes[values] &&
           by.row_bytes[codes] == kQuad * by.rows[values];
}
static_assert(fit(0, 2, 3) && fit(1, 2, 3));

#ifdef EDGEMOE_AMX_BY_AVX512
#include "kernels/plain_tiles.h"
#else
#include "kernels/tile_instructions.h"
#endif

// Tiles take signed bytes: values are less their zero, except where halves have scales.
template <Format f>
inline void store_quads(I first, I second, std::uint8_t (&values)[kQuads][kChunk], int g, std::int64_t) {
    const I zero = _mm512_set1_epi8(static_cast<char>(has_half_scales(f) ? 0 : traits(f).zero));
    _mm512_store_si512(values[g], _mm512_sub_epi8(first, zero));
    _mm512_store_si512(values[g + 1], _mm512_sub_epi8(second, zero));
}

#include "kernels/unpacked_rows.h"

// ---- Blocks with one scale, by tiles.

// Begins the sums of a block. Two may be under way, in slots 0 and 1.
template <int slot, Format f>
inline void start_sums(const UnpackedBlock<f>& w, const TileBlock& x) {
    load_tile<2>(x.codes, kBlock);
    load_tile<3>(w.values, kChunk);
    multiply_tiles<slot, 2, 3>();
}

// Adds sums that are in memory.
template <Format f>
inline void add_sums(const UnpackedBlock<f>& w, const TileBlock& x, const TileSums& sums,
                     F (&acc)[kTileTokens]) {
    const WholeScale by = w.scales[0];
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) {
        acc[t] = add_whole<f>(to_float(_mm512_load_si512(sums[t])), by, x, t, acc[t]);
    }
}

// Sums take long to come out of a tile, and what is read waits until it has left the store buffer. So while
// those of block i are stored, block i + 1 is being multiplied, and those of block i - 1 are added.
template <int slot, Format f>
inline void pass_block(const UnpackedBlock<f>* w, const TileBlock* x, std::int64_t i, std::int64_t count,
                       TileSums (&sums)[2], F (&acc)[kTileTokens]) {
    if (i + 1 < count) start_sums<1 - slot>(w[i + 1], x[i + 1]);
    store_tile<slot>(sums[slot]);
    if (i > 0) add_sums(w[i - 1], x[i - 1], sums[1 - slot], acc);
}

template <Format f>
inline void add_blocks(const UnpackedBlock<f>* w, const TileBlock* x, std::int64_t count,
                       F (&acc)[kTileTokens]) {
    alignas(kAlignment) TileSums sums[2];
    start_sums<0>(w[0], x[0]);
    for (std::int64_t i = 0; i < count; i += 2) {
        pass_block<0>(w, x, i, count, sums, acc);
        if (i + 1 < count) pass_block<1>(w, x, i + 1, count, sums, acc);
    }
    add_sums(w[count - 1], x[count - 1], sums[(count - 1) % 2], acc);
}

// ---- Blocks with a scale for each half, by AVX-512's dot products: storing two tiles of sums takes longer
// than tiles save. These blocks gain from being unpacked once.

template <Format f, int half>
inline void dot_half(const UnpackedBlock<f>& w, const TileBlock& x, std::int64_t first,
                     I (&sums)[kMaxTokens]) {
#pragma GCC unroll 8
    for (int t = 0; t < kMaxTokens; ++t) sums[t] = set1_i(start_of_half<f>(x, half, first + t));
#pragma GCC unroll 4
    for (int g = half * kQuads / 2; g < (half + 1) * kQuads / 2; ++g) {
        const I values = load_codes(w.values[g]);
#pragma GCC unroll 8
        for (int t = 0; t < kMaxTokens; ++t) {
            std::int32_t quad;
            __builtin_memcpy(&quad, x.codes[first + t] + g * kQuad, sizeof quad);
            sums[t] = _mm512_dpbusd_epi32(sums[t], values, set1_i(quad));
        }
    }
}

// For tokens [first, first + kMaxTokens) of the tile.
template <Format f>
inline void add_halved_blocks(const UnpackedBlock<f>* w, const TileBlock* x, std::int64_t count,
                              std::int64_t first, F* acc_of_tile) {
    F acc[kMaxTokens];
    for (int t = 0; t < kMaxTokens; ++t) acc[t] = acc_of_tile[first + t];
    for (std::int64_t i = 0; i < count; ++i) {
        const HalfScales& by = w[i].scales[0];
        I sums[kMaxTokens];
        F product[kMaxTokens];
        dot_half<f, 0>(w[i], x[i], first, sums);
#pragma GCC unroll 8
        for (int t = 0; t < kMaxTokens; ++t) product[t] = mul(by.scale[0], to_float(sums[t]));
        dot_half<f, 1>(w[i], x[i], first, sums);
#pragma GCC unroll 8
        for (int t = 0; t < kMaxTokens; ++t) {
            const F dots = fma(by.scale[1], to_float(sums[t]), product[t]);
            acc[t] = add_halves<f>(dots, by, x[i], first + t, acc[t]);
        }
    }
    for (int t = 0; t < kMaxTokens; ++t) acc_of_tile[first + t] = acc[t];
}

template <Format f>
void multiply_tile(const UnpackedGroups<f>& groups, const TileBlock* x, const BlockRange& range,
                   const SumPlace& place) {
    const UnpackedBlock<f>* const w = groups[0];
    const auto rows = static_cast<__mmask16>((1 << place.num_rows) - 1);
    F acc[kTileTokens];
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) {
        const bool has_earlier = range.begin > 0 && t < place.num_tokens;
        acc[t] = _mm512_maskz_loadu_ps(has_earlier ? rows : 0, place.out + t * place.stride);
    }
    if constexpr (has_half_scales(f)) {
        for (std::int64_t first = 0; first < place.num_tokens; first += kMaxTokens) {
            add_halved_blocks<f>(w, x, range.count, first, acc);
        }
    } else {
        add_blocks<f>(w, x, range.count, acc);
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) {
        if (t >= place.num_tokens) break;
        if (range.base != nullptr) acc[t] = mul(acc[t], *range.base);
        _mm512_mask_storeu_ps(place.out + t * place.stride, rows, acc[t]);
    }
}

}  // namespace

const Kernels* amx_kernels() {
    static const Kernels kernels = with_tiles("amx");
    return &kernels;
}

}  // namespace edgemoe
