// The loop nests shared by all vector instruction sets. Included textually by avx2.cpp, avx512.cpp and
// neon.cpp, inside their anonymous namespace and after their primitives; so nothing here has external
// linkage and no wide instruction can leak into another object.
//
// Primitives expected (L = kLanes rows at a time, kLanes divides 16):
// clang-format off
//   F, I                        vectors of L floats, of L int32 or 4 L bytes
//   load_codes(p), store_codes(p, v)   4 L bytes
//   and8(v, mask), or8(a, b)    byte-wise
//   shift<n>(v)                 16-bit lanes left by n, or right by -n; what crosses bytes is masked after
//   look_up(table, v)           table[byte % 16], byte-wise
//   Sums<bits, is_one>{sum}     running dot products of values of so many bits, from sum [L] on, of one token or
//                               several; add<g>(w, x) adds sum_j w[4 l + j] * x[j], quad g after g - 1, 4 or 8 quads;
//                               total() is int32 [L]
//   kDot8Zero                   zero of 8-bit values as these take them: 128, or 0 where they make them signed
//   xor8(a, b)                  byte-wise
//   select8(a, b, mask)         the bits of b where the mask of each byte has ones, else those of a
//   PathRows(chunk, lane)       4 L bytes of rows [lane, lane + L) of a chunk; after<k>() is what cycles of quads
//                               (trellis.h) have k places further, for k of 0, 1, 2, 4 and 6
//   load_bytes(p)               L bytes, zero-extended to int32
//   load_nibbles(p, lane)       nibbles of rows [lane, lane + L) of 8 bytes, row r low and r + 8 high
//   set1_i(c), to_float(v), as_float(v), shift32<n>(v), add32(v, c), and32(v, c), max32(v, c)
//   load_f32(p), load_f16(p), load_bf16(p), set1(c), mul(a, b), add(a, b), store(p, v)
//   fma(a, b, c), fnma(a, b, c) a b + c, c - a b
//   HalvedSums                  see whole_halves.h
//   has_kernels_of(f)           whether it has its own for a format; else matmul() is not called for it
//   kMaxTokens                  tokens that share one unpacking (4 or 8), by the number of registers
//   kVectorsTogether            see unpacked_block.h
// clang-format on

// How far products of few tokens read ahead of themselves: the hardware's own prefetch stops at every page
// of 4 KiB, which is a few blocks away. 2 to 10 KiB do equally well; without it 2 to 6 bits run at half the
// speed.
constexpr std::int64_t kPrefetchBytes = 3072;

#include "kernels/block_sums.h"

// Tokens [first, first + count) of the activations, and where their results go.
struct TokenRange {
    std::int64_t first, count;
    float* out;
    std::int64_t stride;
};

// Asks for as many bytes as one block takes, scales included, so that the requests run through a matrix
// without gaps; beyond its end they are harmless.
template <Format f>
inline void prefetch_ahead(const std::uint8_t* codes, std::int64_t block) {
    constexpr std::int64_t kBytes =
        block_code_bytes(f) + block_scale_bytes(f) + shared_scale_bytes(f) / kSuperBlocks;
    const std::uint8_t* next = codes + block * kBytes + kPrefetchBytes;
    for (std::int64_t i = 0; i < kBytes; i += kAlignment) __builtin_prefetch(next + i);
}

// V vectors of rows from `lane` on: their part of a block is read at once.
template <Format f, int T, int V>
void low_bit_rows(const std::uint8_t* group, std::int64_t lane, const Activations& x, const TokenRange& range,
                  std::int64_t num_rows) {
    const std::int64_t cols = x.cols;
    const auto* tokens =
        reinterpret_cast<const TokenBlock<T>*>(x.blocks + range.first * (cols / kBlock) * kTokenBlockBytes);
    const std::uint8_t* codes = group + group_header_bytes(f, cols) + lane * kQuad;
    const bool reads_ahead = range.first == 0 && lane == 0;  // what follows finds the group in a cache
    F acc[V][1][T];
    for (auto& vector : acc) {
        for (F& sum : vector[0]) sum = set1(0.0f);
    }
    for (std::int64_t block = 0; block < cols / kBlock; ++block) {
        if (reads_ahead) prefetch_ahead<f>(codes, block);
        const std::uint8_t* block_codes = codes + block * block_code_bytes(f);
        const std::uint8_t* shared = group + shared_scale_offset(f, block);
        const std::uint8_t* scales = group + block_scale_offset(f, block);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const ScalePlace place = {shared, scales,
                                      V * kLanes == kRowGroup ? v * kLanes : lane + v * kLanes};
            const std::uint8_t* part = block_codes + v * kLanes * kQuad;
            const Block<f> quads[1] = {{part, place}};
            const ScalesOf<f> by[1] = {scales_at<f>(place)};
            accumulate<f>(quads, by, tokens[block], acc[v]);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
        const std::int64_t row = v * kLanes;
        if (num_rows <= row) break;
        const F base = load_base<f>(group, lane + row);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            // The tokens that an unfilled tile lacks are computed and dropped.
            float* const out = range.out + t * range.stride + row;
            if (t < range.count) store_rows(out, mul(acc[v][0][t], base), num_rows - row);
        }
    }
}

template <Format f>
inline F load_values(const std::uint8_t* p) {
    if constexpr (f == Format::kF32) return load_f32(reinterpret_cast<const float*>(p));
    if constexpr (f == Format::kF16) return load_f16(reinterpret_cast<const std::uint16_t*>(p));
    return load_bf16(reinterpret_cast<const std::uint16_t*>(p));
}

template <Format f, int T>
void float_rows(const std::uint8_t* group, std::int64_t lane, const Activations& x, const TokenRange& range,
                std::int64_t num_rows) {
    constexpr std::int64_t kBytes = code_bits(f) / 8;
    constexpr int kChains = 4;  // hides the latency of fused multiply-add for a single token
    const float* values = x.values + range.first * x.cols;
    group += lane * kBytes;
    F acc[T][kChains];
    for (auto& chains : acc) {
        for (F& chain : chains) chain = set1(0.0f);
    }
    for (std::int64_t m = 0; m < x.cols; m += kChains) {
#pragma GCC unroll 4
        for (int c = 0; c < kChains; ++c) {
            const F w = load_values<f>(group + (m + c) * kRowGroup * kBytes);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) acc[t][c] = fma(w, set1(values[t * x.cols + m + c]), acc[t][c]);
        }
    }
    for (int t = 0; t < T; ++t) {
        const F sum = add(add(acc[t][0], acc[t][1]), add(acc[t][2], acc[t][3]));
        store_rows(range.out + t * range.stride, sum, num_rows);
    }
}

// Rows of a group that are computed together: all of them for one or two tokens, which read the weights from
// memory, else as many as leave registers for the tokens.
template <Format f, int T>
constexpr std::int64_t kRowsAtOnce = is_low_bit(f) && T <= 2 ? kRowGroup : kLanes;

template <Format f, int T>
inline void multiply_rows(const std::uint8_t* group, std::int64_t lane, const Activations& x,
                          const TokenRange& range, std::int64_t num_rows) {
    if constexpr (is_low_bit(f)) {
        low_bit_rows<f, T, kRowsAtOnce<f, T> / kLanes>(group, lane, x, range, num_rows);
    } else {
        float_rows<f, T>(group, lane, x, range, num_rows);
    }
}

// Tokens [begin, end), T at a time, by the rows of group g.
template <Format f, int T>
void multiply_group(const Matrix& w, std::int64_t g, const Activations& x, std::int64_t begin,
                    std::int64_t end, float* out, std::int64_t stride) {
    const std::uint8_t* group = w.packed + g * group_bytes(f, w.cols);
    for (std::int64_t lane = 0; lane < kRowGroup; lane += kRowsAtOnce<f, T>) {
        const std::int64_t row = g * kRowGroup + lane, num_rows = w.rows - row;
        if (num_rows <= 0) break;
        for (std::int64_t t = begin; t < end; t += T) {
            const std::int64_t left = end - t, count = left < T ? left : T;
            multiply_rows<f, T>(group, lane, x, {t, count, out + t * stride + row, stride}, num_rows);
        }
    }
}

// ---- Many tokens.

constexpr int kTileTokens = kMaxTokens;
using TileBlock = TokenBlock<kTileTokens>;
struct Tiles {};

template <Format f>
inline void store_quads(I first, I second, std::uint8_t (&values)[kQuads][kChunk], int g, std::int64_t lane) {
    store_codes(values[g] + lane * kQuad, first);
    store_codes(values[g + 1] + lane * kQuad, second);
}

#include "kernels/unpacked_block.h"

// The quads of a vector of rows of an unpacked block.
struct UnpackedQuads {
    const std::uint8_t* values;

    template <int g>
    I quad() const {
        return load_codes(values + g * kChunk);
    }
    template <int g>
    QuadPair quads() const {
        return {quad<g>(), quad<g + 1>()};
    }
};

// Adds the products of a block whose halves have whole numbers as scales.
template <Format f, int V, typename SumsOfHalves>
inline void accumulate(const UnpackedQuads (&blocks)[V], const WholeHalves<SumsOfHalves> (&by)[V],
                       const TileBlock& x, F (&acc)[V][kTileTokens]) {
    SumsOfHalves sums[V][kTileTokens];
    add_quads<f, 0, kQuads>(blocks, x, sums);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 8
        for (int t = 0; t < kTileTokens; ++t) {
            acc[v][t] = add_halves<f>(to_float(sums[v][t].total(by[v].scales)), by[v], x, t, acc[v][t]);
        }
    }
}

template <Format f, int V>
inline void add_block(const UnpackedGroups<f>& w, std::int64_t block, int vector, const TileBlock& x,
                      F (&acc)[V][kTileTokens]) {
    UnpackedQuads quads[V];
    TileScales<f> by[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
        const UnpackedBlock<f>& unpacked = w[(vector + v) / kVectors][block];
        const int place = (vector + v) % kVectors;
        quads[v] = {unpacked.values[0] + place * kLanes * kQuad};
        by[v] = unpacked.scales[place];
    }
    accumulate<f>(quads, by, x, acc);
}

#include "kernels/unpacked_tile.h"

// Tokens from which unpacking rows into memory pays.
constexpr std::int64_t kUnpackedFrom = 3 * kTileTokens;

// ---- All tokens.

// For the tokens that are left over when tiles of kMaxTokens are full.
template <Format f>
auto rest_of_format(int width) {
    if constexpr (is_low_bit(f)) {
        if (width == 2) return multiply_group<f, 2>;
        if (width == 4) return multiply_group<f, 4>;
    }
    return multiply_group<f, 1>;
}

template <Format f>
void matmul_of(const Matrix& w, const Activations& x, std::int64_t group_begin, std::int64_t group_end,
               float* out, std::int64_t stride) {
    constexpr int kTokens = is_low_bit(f) ? kMaxTokens : 4;
    const std::int64_t num_tiled = is_low_bit(f) ? num_tiled_tokens(x) : x.num_tokens / kTokens * kTokens;
    const auto multiply_rest = rest_of_format<f>(is_low_bit(f) ? width_of_rest(x) : 1);
    bool has_tiles = num_tiled > 0;
    if constexpr (is_low_bit(f)) {
        if (num_tiled >= kUnpackedFrom) {
            multiply_unpacked<f>(w, x, num_tiled, group_begin, group_end, out, stride);
            has_tiles = false;
        }
    }
    for (std::int64_t g = group_begin; g < group_end; ++g) {
        if (has_tiles) multiply_group<f, kTokens>(w, g, x, 0, num_tiled, out, stride);
        multiply_rest(w, g, x, num_tiled, x.num_tokens, out, stride);
    }
}

using MatmulOfFormat = void(const Matrix&, const Activations&, std::int64_t, std::int64_t, float*,
                            std::int64_t);
template <Format f>
constexpr MatmulOfFormat* kernel_of() {
    if constexpr (has_kernels_of(f)) return matmul_of<f>;
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
    Table::kEntries[static_cast<int>(w.format)](w, x, begin, end, out, stride);
}
