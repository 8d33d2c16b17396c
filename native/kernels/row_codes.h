// Where the codes of four rows go: quads of all of them lie side by side, 16 bytes of a chunk, so that each
// is written at once.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/pack_rows.h"
#include "kernels/shuffle.h"

namespace edgemoe {

// Codes of rows that are packed together, a byte each, of blocks of 256 columns at most.
using RowCodes = std::uint8_t[kRowsTogether][kSuperBlocks * kBlock];

// Of each row its quad.
using QuadOfRows = std::uint32_t __attribute__((vector_size(kRowsTogether * kQuad)));

// The four quads that bytes [offset, offset + 16) of each row are, of all rows.
[[gnu::always_inline]] inline void load_quads(const std::uint8_t* const (&rows)[kRowsTogether], int offset,
                                              QuadOfRows* quads) {
    QuadOfRows a, b, c, d;  // one of each row
    std::memcpy(&a, rows[0] + offset, sizeof a);
    std::memcpy(&b, rows[1] + offset, sizeof b);
    std::memcpy(&c, rows[2] + offset, sizeof c);
    std::memcpy(&d, rows[3] + offset, sizeof d);
    const QuadOfRows low_ab = EDGEMOE_SHUFFLE(a, b, 0, 4, 1, 5), low_cd = EDGEMOE_SHUFFLE(c, d, 0, 4, 1, 5);
    const QuadOfRows high_ab = EDGEMOE_SHUFFLE(a, b, 2, 6, 3, 7), high_cd = EDGEMOE_SHUFFLE(c, d, 2, 6, 3, 7);
    quads[0] = EDGEMOE_SHUFFLE(low_ab, low_cd, 0, 1, 4, 5);
    quads[1] = EDGEMOE_SHUFFLE(low_ab, low_cd, 2, 3, 6, 7);
    quads[2] = EDGEMOE_SHUFFLE(high_ab, high_cd, 0, 1, 4, 5);
    quads[3] = EDGEMOE_SHUFFLE(high_ab, high_cd, 2, 3, 6, 7);
}

// Writes the codes of a block of 32 columns, given as quads of rows that lie side by side.
template <int bits, typename QuadOf>
[[gnu::always_inline]] inline void place_quads(const QuadOf (&quads)[kQuads], std::uint8_t* to) {
    constexpr std::uint32_t kOnes = 0x01010101;
    const auto put = [=](int chunk, const QuadOf& bytes) {
        std::memcpy(to + chunk * kChunk, &bytes, sizeof bytes);
    };
    if constexpr (bits == 8) {
        for (int g = 0; g < kQuads; ++g) put(g, quads[g]);
    } else if constexpr (bits >= 4) {
        for (int c = 0; c < 4; ++c) put(c, (quads[c] & 15 * kOnes) | (quads[c + 4] & 15 * kOnes) << 4);
    }
    if constexpr (bits < 4 || bits == 6) {
        constexpr int kFirst = bits == 6 ? 4 : 0;  // both the first chunk and the first bit of a code
        for (int c = 0; c < 2; ++c) {
            QuadOf all = {};
            for (int j = 0; j < 4; ++j) all |= (quads[4 * c + j] >> kFirst & 3 * kOnes) << 2 * j;
            put(kFirst + c, all);
        }
    }
    if constexpr (bits == 3 || bits == 5) {
        QuadOf all = {};
        for (int g = 0; g < kQuads; ++g) all |= (quads[g] >> (bits - 1) & kOnes) << g;
        put(bits - 1, all);
    }
}

// Writes the codes of the block of 32 columns from `col` on; `to` is where those of the first row go.
template <int bits>
[[gnu::always_inline]] inline void place_codes(const RowCodes& codes, int col, std::uint8_t* to) {
    QuadOfRows quads[kQuads];
    const std::uint8_t* const rows[kRowsTogether] = {codes[0], codes[1], codes[2], codes[3]};
    for (int g = 0; g < kQuads; g += 4) load_quads(rows, col + g * static_cast<int>(kQuad), quads + g);
    place_quads<bits>(quads, to);
}

}  // namespace edgemoe
