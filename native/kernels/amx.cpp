// AMX: integer products of 16 tokens and 16 rows in one instruction. Rows are unpacked once for all tokens of
// a call. Fewer tokens, those that are left over, and matrices of floats go the way of AVX-512 with VBMI,
// which every processor with AMX has.
//
// Integers sum a block exactly in any order; from there on every token has the float operations of loops.h in
// their order (block_values.h). So it has the same bits in a tile, left over, and alone.
#include <immintrin.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/avx512.h"

// In this order: each builds on those before.
#include "kernels/token_blocks.h"
#include "kernels/block_scales.h"
#include "kernels/trellis_quads.h"
#include "kernels/grid_shuffles.h"
#include "kernels/block_values.h"

constexpr int kTileTokens = 16;
using TileBlock = TokenBlock<kTileTokens>;

// An unfilled tile takes as long as a full one; fewer tokens are quicker without.
constexpr std::int64_t kUnfilledFrom = 11;

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// Tokens that are in tiles.
std::int64_t num_in_tiles(const Activations& x) {
    if (x.are_apart) return 0;
    const std::int64_t left = x.num_tokens % kTileTokens;
    return left >= kUnfilledFrom ? x.num_tokens : x.num_tokens - left;
}

// Those that are not.
Activations rest_of(const Activations& x, std::int64_t num_tiled) {
    const std::uint8_t* blocks = x.blocks;
    if (blocks != nullptr) blocks += num_tiled * (x.cols / kBlock) * kTokenBlockBytes;
    return {x.values + num_tiled * x.cols, blocks, x.num_tokens - num_tiled, x.cols, x.are_apart};
}

void quantize_rows(const Activations& x, std::int64_t begin, std::int64_t end, std::uint8_t* blocks) {
    const std::int64_t num_tiled = num_in_tiles(x), token_bytes = x.cols / kBlock * kTokenBlockBytes;
    for (std::int64_t t = begin; t < smaller(end, num_tiled); ++t) {
        const std::int64_t slot = t % kTileTokens;
        std::uint8_t* tile = blocks + (t - slot) * token_bytes;
        quantize_token(x.values + t * x.cols, x.cols, slot, reinterpret_cast<TileBlock*>(tile));
    }
    if (end <= num_tiled) return;
    const std::int64_t first = begin < num_tiled ? 0 : begin - num_tiled;
    avx512_kernels()->quantize_rows(rest_of(x, num_tiled), first, end - num_tiled,
                                    blocks + num_tiled * token_bytes);
}

// ---- Unpacked rows.

// A block of 16 rows. Tiles take signed bytes: values are less their zero, except where halves have scales.
template <Format f>
struct UnpackedBlock {
    alignas(kAlignment) std::uint8_t values[kQuads][kChunk];
    std::conditional_t<has_half_scales(f), HalfScales, WholeScale> scales;
};

template <Format f, int g = 0>
inline void unpack_values(const Block<f>& block, std::uint8_t (&values)[kQuads][kChunk]) {
    if constexpr (g < kQuads) {
        QuadPair pair;
        if constexpr (has_grid(f)) {
            pair = block.template quads<g>();
        } else {
            pair = {block.template quad<g>(), block.template quad<g + 1>()};
        }
        const I zero = _mm512_set1_epi8(static_cast<char>(has_half_scales(f) ? 0 : traits(f).zero));
        _mm512_store_si512(values[g], _mm512_sub_epi8(pair.first, zero));
        _mm512_store_si512(values[g + 1], _mm512_sub_epi8(pair.second, zero));
        unpack_values<f, g + 2>(block, values);
    }
}

// Blocks [begin, end) of a row group.
template <Format f>
void unpack(const std::uint8_t* group, std::int64_t cols, std::int64_t begin, std::int64_t end,
            UnpackedBlock<f>* to) {
    const std::uint8_t* codes = group + group_header_bytes(f, cols);
    for (std::int64_t block = begin; block < end; ++block, ++to) {
        const ScalePlace place = {group + shared_scale_offset(f, block), group + block_scale_offset(f, block),
                                  0};
        unpack_values<f>({codes + block * block_code_bytes(f), place}, to->values);
        if constexpr (has_half_scales(f)) {
            to->scales = half_scales<f>(place);
        } else {
            to->scales = whole_scale<f>(place);
        }
    }
}

// ---- Blocks with one scale, by tiles: 0 and 1 hold sums [token][row], 2 codes of tokens [token][column], 3
// values [quad][row][column % 4].

using TileSums = std::int32_t[kTileTokens][kRowGroup];

struct alignas(kAlignment) TileShapes {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {4 * kRowGroup, 4 * kRowGroup, kBlock, kChunk};
    std::uint8_t rows[16] = {kTileTokens, kTileTokens, kTileTokens, kQuads};
};
constexpr TileShapes kTileShapes;

// While one exists, this thread has tiles.
class Tiles {
  public:
    Tiles() { asm volatile("ldtilecfg %0" ::"m"(kTileShapes)); }
    ~Tiles() { asm volatile("tilerelease"); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

// Not the compiler's own functions: these take no numbers from templates, and GCC's do not tell it that a
// tile is loaded from memory.
template <int tile>
inline void load_tile(const void* from, std::int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(tile), "r"(from), "r"(stride) : "memory");
}
template <int tile>
inline void store_tile(TileSums& to) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(tile), "r"(to), "r"(sizeof to[0]) : "memory");
}
// Tile `sums` becomes the products of two tiles of signed bytes.
template <int sums, int codes, int values>
inline void multiply_tiles() {
    asm volatile("tilezero %%tmm%c0\n\ttdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(sums), "i"(codes),
                 "i"(values));
}

// Begins the sums of a block. Two may be under way, in slots 0 and 1.
template <int slot, Format f>
inline void start_sums(const UnpackedBlock<f>& w, const TileBlock& x) {
    load_tile<2>(x.codes, kBlock);
    load_tile<3>(w.values, kChunk);
    multiply_tiles<slot, 2, 3>();
}

template <int slot, Format f>
inline void finish_sums(const UnpackedBlock<f>& w, const TileBlock& x, TileSums& sums,
                        F (&acc)[kTileTokens]) {
    store_tile<slot>(sums);
    const WholeScale by = w.scales;
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) {
        acc[t] = add_whole<f>(to_float(_mm512_load_si512(sums[t])), by, x, t, acc[t]);
    }
}

// Sums take long: those of the next block are begun before those of one are waited for.
template <Format f>
inline void add_blocks(const UnpackedBlock<f>* w, const TileBlock* x, std::int64_t count,
                       F (&acc)[kTileTokens]) {
    alignas(kAlignment) TileSums sums;
    start_sums<0>(w[0], x[0]);
    for (std::int64_t i = 0; i < count; i += 2) {
        if (i + 1 < count) start_sums<1>(w[i + 1], x[i + 1]);
        finish_sums<0>(w[i], x[i], sums, acc);
        if (i + 1 == count) break;
        if (i + 2 < count) start_sums<0>(w[i + 2], x[i + 2]);
        finish_sums<1>(w[i + 1], x[i + 1], sums, acc);
    }
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
        const HalfScales& by = w[i].scales;
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

// ---- Loops.

// Blocks that are unpacked at a time: they stay in the first cache while all tokens pass.
constexpr std::int64_t kBlocksAtOnce = 16;

// Blocks [begin, begin + count) of the columns, and what their sums are multiplied with after the last ones.
struct BlockRange {
    std::int64_t begin, count;
    const F* base;  // or nullptr before the last
};

// Where the sums of a tile of tokens and a row group stand; those of earlier columns are there already.
struct SumPlace {
    float* out;
    std::int64_t stride, num_tokens;
    __mmask16 rows;
};

template <Format f>
void multiply_tile(const UnpackedBlock<f>* w, const TileBlock* x, const BlockRange& range,
                   const SumPlace& place) {
    F acc[kTileTokens];
#pragma GCC unroll 16
    for (int t = 0; t < kTileTokens; ++t) {
        const bool has_earlier = range.begin > 0 && t < place.num_tokens;
        acc[t] = _mm512_maskz_loadu_ps(has_earlier ? place.rows : 0, place.out + t * place.stride);
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
        _mm512_mask_storeu_ps(place.out + t * place.stride, place.rows, acc[t]);
    }
}

// The first num_tiled tokens by row groups [begin, end).
template <Format f>
void matmul_of(const Matrix& w, const Activations& x, std::int64_t num_tiled, std::int64_t begin,
               std::int64_t end, float* out, std::int64_t stride) {
    const Tiles tiles;
    const std::int64_t num_blocks = w.cols / kBlock;
    UnpackedBlock<f> unpacked[kBlocksAtOnce];
    for (std::int64_t g = begin; g < end; ++g) {
        const std::uint8_t* group = w.packed + g * group_bytes(f, w.cols);
        const std::int64_t row = g * kRowGroup, num_rows = smaller(kRowGroup, w.rows - row);
        const auto rows = static_cast<__mmask16>((1 << num_rows) - 1);
        const F base = load_base<f>(group, 0);
        for (std::int64_t block = 0; block < num_blocks; block += kBlocksAtOnce) {
            const std::int64_t count = smaller(kBlocksAtOnce, num_blocks - block);
            const BlockRange range = {block, count, block + count == num_blocks ? &base : nullptr};
            unpack<f>(group, w.cols, block, block + count, unpacked);
            for (std::int64_t t = 0; t < num_tiled; t += kTileTokens) {
                const auto* tile =
                    reinterpret_cast<const TileBlock*>(x.blocks + t * num_blocks * kTokenBlockBytes);
                multiply_tile<f>(unpacked, tile + block, range,
                                 {out + t * stride + row, stride, smaller(kTileTokens, num_tiled - t), rows});
            }
        }
    }
}

using MatmulOfFormat = void(const Matrix&, const Activations&, std::int64_t, std::int64_t, std::int64_t,
                            float*, std::int64_t);
template <Format f>
constexpr MatmulOfFormat* kernel_of() {
    if constexpr (is_low_bit(f)) return matmul_of<f>;
    return nullptr;
}
template <typename Numbers>
struct MatmulTable;
template <int... f>
struct MatmulTable<std::integer_sequence<int, f...>> {
    static constexpr MatmulOfFormat* kEntries[] = {kernel_of<static_cast<Format>(f)>()...};
};

void matmul(const Matrix& w, const Activations& x, std::int64_t begin, std::int64_t end, float* out,
            std::int64_t stride) {
    using Table = MatmulTable<std::make_integer_sequence<int, kNumFormats>>;
    const std::int64_t num_tiled = is_low_bit(w.format) ? num_in_tiles(x) : 0;
    if (num_tiled > 0) {
        Table::kEntries[static_cast<int>(w.format)](w, x, num_tiled, begin, end, out, stride);
    }
    if (num_tiled < x.num_tokens) {
        avx512vbmi_kernels()->matmul(w, rest_of(x, num_tiled), begin, end, out + num_tiled * stride, stride);
    }
}

}  // namespace

const Kernels* amx_kernels() {
    static const Kernels kernels = [] {
        Kernels all = *avx512vbmi_kernels();
        all.name = "amx";
        all.quantize_rows = quantize_rows;
        all.matmul = matmul;
        return all;
    }();
    return &kernels;
}

}  // namespace edgemoe
