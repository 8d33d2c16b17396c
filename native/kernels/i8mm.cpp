// NEON with i8mm: integer products of 2 rows and 2 tokens over 8 columns in one instruction, for many tokens.
// Few tokens and matrices of floats go the way of NEON with the dot product, which every processor with i8mm
// has.
#include <arm_neon.h>

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/kernels.h"

namespace edgemoe {
namespace {

#include "kernels/neon.h"

// In this order: each builds on those before.
#include "kernels/token_blocks.h"
#include "kernels/block_scales.h"
#include "kernels/trellis_quads.h"
#include "kernels/grid_quads.h"
#include "kernels/block_values.h"

constexpr int kTileTokens = 8;
// An unfilled tile takes as long as a full one.
constexpr std::int64_t kUnfilledFrom = kTileTokens / 2 + 1;
constexpr int kTokensTogether = 2;

const Kernels* rest_kernels() { return neon_kernels(); }

struct Tiles {};

// Values less their zero, eight columns a row: rows lane and lane + 1, then lane + 2 and lane + 3 where quad
// g + 1 would be.
template <Format f>
inline void store_quads(I first, I second, std::uint8_t (&values)[kQuads][kChunk], int g, std::int64_t lane) {
    const uint8x16_t zero = vdupq_n_u8(traits(f).zero);
    const I a = of_bytes(vsubq_u8(bytes_of(first), zero)), b = of_bytes(vsubq_u8(bytes_of(second), zero));
    vst1q_u8(values[g] + lane * kQuad, bytes_of(vzip1q_s32(a, b)));
    vst1q_u8(values[g + 1] + lane * kQuad, bytes_of(vzip2q_s32(a, b)));
}

#include "kernels/unpacked_rows.h"

inline int8x16_t load_signed(const void* p) { return vld1q_s8(static_cast<const std::int8_t*>(p)); }

// Sums of the products of quads [begin, end), for rows [lane, lane + L).
template <int begin, int end>
inline void dot_quads(const QuadsOfRows& values, std::int64_t lane, const TileBlock& x,
                      I (&sums)[kTileTokens]) {
    I first_rows[kTileTokens / 2], last_rows[kTileTokens / 2];  // [row][token] of two and two
#pragma GCC unroll 4
    for (int t = 0; t < kTileTokens / 2; ++t) first_rows[t] = last_rows[t] = set1_i(0);
#pragma GCC unroll 4
    for (int g = begin; g < end; g += 2) {
        const int8x16_t first = load_signed(values[g] + lane * kQuad);
        const int8x16_t last = load_signed(values[g + 1] + lane * kQuad);
#pragma GCC unroll 4
        for (int t = 0; t < kTileTokens / 2; ++t) {
            const int8x16_t codes = load_signed(&x.codes[0][0] + 2 * (t * kBlock + g * kQuad));
            first_rows[t] = vmmlaq_s32(first_rows[t], first, codes);
            last_rows[t] = vmmlaq_s32(last_rows[t], last, codes);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTileTokens / 2; ++t) {
        sums[2 * t] = vuzp1q_s32(first_rows[t], last_rows[t]);
        sums[2 * t + 1] = vuzp2q_s32(first_rows[t], last_rows[t]);
    }
}

template <Format f>
inline void add_block(const UnpackedGroups<f>& groups, std::int64_t block, int vector, const TileBlock& x,
                      F (&sums_of_rows)[1][kTileTokens]) {
    const UnpackedBlock<f>& w = groups[0][block];
    auto& acc = sums_of_rows[0];
    const auto& by = w.scales[vector];
    const std::int64_t lane = vector * kLanes;
    I sums[kTileTokens];
    if constexpr (has_half_scales(f)) {
        F product[kTileTokens];
        dot_quads<0, kQuads / 2>(w.values, lane, x, sums);
#pragma GCC unroll 8
        for (int t = 0; t < kTileTokens; ++t) product[t] = mul(by.scale[0], to_float(sums[t]));
        dot_quads<kQuads / 2, kQuads>(w.values, lane, x, sums);
#pragma GCC unroll 8
        for (int t = 0; t < kTileTokens; ++t) {
            acc[t] = add_halves<f>(fma(by.scale[1], to_float(sums[t]), product[t]), by, x, t, acc[t]);
        }
    } else {
        dot_quads<0, kQuads>(w.values, lane, x, sums);
#pragma GCC unroll 8
        for (int t = 0; t < kTileTokens; ++t) acc[t] = add_whole<f>(to_float(sums[t]), by, x, t, acc[t]);
    }
}

#include "kernels/unpacked_tile.h"

}  // namespace

const Kernels* i8mm_kernels() {
    static const Kernels kernels = with_tiles("i8mm");
    return &kernels;
}

}  // namespace edgemoe
