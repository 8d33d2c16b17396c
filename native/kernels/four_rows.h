// Four rows of blocks at a time: bits of codes and bytes of scales change places within vectors, so that no
// code is taken out by itself.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/pack_rows.h"
#include "kernels/row_codes.h"

namespace edgemoe {

// A byte of each of the four rows.
using RowBytes = std::uint32_t;
inline constexpr std::uint32_t kOnes = 0x01010101;  // times a byte: that byte for every row

inline constexpr int kNumRows = static_cast<int>(kRowsTogether);

// A block of each row.
using Blocks = const std::uint8_t* [kRowsTogether];

// Bytes [offset, offset + 16) of each row, those of the four rows side by side.
[[gnu::always_inline]] inline void load_bytes(const Blocks& blocks, int offset, RowBytes (&bytes)[16]) {
    using Bytes = std::uint8_t __attribute__((vector_size(16)));
    using Pairs = std::uint16_t __attribute__((vector_size(16)));
    Bytes a, b, c, d;  // one of each row
    std::memcpy(&a, blocks[0] + offset, sizeof a);
    std::memcpy(&b, blocks[1] + offset, sizeof b);
    std::memcpy(&c, blocks[2] + offset, sizeof c);
    std::memcpy(&d, blocks[3] + offset, sizeof d);
    const auto low = [](Bytes x, Bytes y) {
        return reinterpret_cast<Pairs>(
            EDGEMOE_SHUFFLE(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    };
    const auto high = [](Bytes x, Bytes y) {
        return reinterpret_cast<Pairs>(
            EDGEMOE_SHUFFLE(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
    };
    const Pairs ab[2] = {low(a, b), high(a, b)}, cd[2] = {low(c, d), high(c, d)};
    const Pairs all[4] = {EDGEMOE_SHUFFLE(ab[0], cd[0], 0, 8, 1, 9, 2, 10, 3, 11),
                          EDGEMOE_SHUFFLE(ab[0], cd[0], 4, 12, 5, 13, 6, 14, 7, 15),
                          EDGEMOE_SHUFFLE(ab[1], cd[1], 0, 8, 1, 9, 2, 10, 3, 11),
                          EDGEMOE_SHUFFLE(ab[1], cd[1], 4, 12, 5, 13, 6, 14, 7, 15)};
    static_assert(sizeof all == sizeof bytes);
    std::memcpy(bytes, all, sizeof all);
}

// Where four rows' scales go: of the blocks from `first_block` on, 256 columns at most.
class FourScales {
  public:
    [[gnu::always_inline]] FourScales(Format f, std::uint8_t* group, std::int64_t first_block,
                                      std::int64_t row)
        : block_bytes_(block_scale_bytes(f)),
          shared_(shared_scale_bytes(f) == 0 ? nullptr : group + shared_scale_offset(f, first_block)),
          first_(group + block_scale_offset(f, first_block)),
          row_(row) {}

    // Number i of those of one f16 a row, at `offset` of each block; notes rows whose number is not finite.
    [[gnu::always_inline]] void put_shared(int i, const Blocks& blocks, int offset, bool* is_finite) const {
        put_halves(shared_ + 2 * kRowGroup * i, blocks, offset, is_finite);
    }
    [[gnu::always_inline]] void put_block_halves(int i, const Blocks& blocks, int offset,
                                                 bool* is_finite) const {
        put_halves(first_ + 2 * kRowGroup * i, blocks, offset, is_finite);
    }
    [[gnu::always_inline]] void put_bytes(int block, int i, RowBytes bytes) const {
        std::memcpy(first_ + block * block_bytes_ + kRowGroup * i + row_, &bytes, sizeof bytes);
    }
    // Two numbers of six bits.
    [[gnu::always_inline]] void put_six_bits(int block, RowBytes first, RowBytes second) const {
        put_bytes(block, 0, first | (second >> 4 & 3 * kOnes) << 6);
        std::uint8_t* const nibbles = first_ + block * block_bytes_ + kRowGroup + row_ % 8;
        RowBytes both;
        std::memcpy(&both, nibbles, sizeof both);
        both |= (second & 15 * kOnes) << (row_ < 8 ? 0 : 4);
        std::memcpy(nibbles, &both, sizeof both);
    }

  private:
    [[gnu::always_inline]] void put_halves(std::uint8_t* to, const Blocks& blocks, int offset,
                                           bool* is_finite) const {
        for (int r = 0; r < kNumRows; ++r) {
            const std::uint16_t half = u16_at(blocks[r] + offset);
            std::memcpy(to + 2 * (row_ + r), &half, sizeof half);
            is_finite[r] &= (half & 0x7c00) != 0x7c00;
        }
    }

    std::int64_t block_bytes_;
    std::uint8_t *shared_, *first_;
    std::int64_t row_;
};

// Where the codes of four rows go, block after block.
template <Format f>
struct FourCodes {
    std::uint8_t* to;

    [[gnu::always_inline]] void put(int block, int chunk, QuadOfRows quads) const {
        std::memcpy(to + block * block_code_bytes(f) + chunk * kChunk, &quads, sizeof quads);
    }
};

// The 16 or 32 bytes of each row from `offset` on, as quads.
template <int count>
[[gnu::always_inline]] inline void load_block_quads(const Blocks& blocks, int offset, QuadOfRows* quads) {
    for (int i = 0; i < count; i += 16) load_quads(blocks, offset + i, quads + i / kQuad);
}

// 16 bytes with the codes of columns 0-15 in their low and of columns 16-31 in their high nibbles: as packed.
template <Format f>
[[gnu::always_inline]] inline void place_halves(const Blocks& blocks, int offset, int block,
                                                FourCodes<f> codes) {
    QuadOfRows quads[4];
    load_block_quads<16>(blocks, offset, quads);
    for (int c = 0; c < 4; ++c) codes.put(block, c, quads[c]);
}

// 32 bytes with the codes of block `low` in their low and of block `high` in their high nibbles.
template <Format f>
[[gnu::always_inline]] inline void place_nibbles(const Blocks& blocks, int offset, int low, int high,
                                                 FourCodes<f> codes) {
    QuadOfRows quads[kQuads];
    load_block_quads<32>(blocks, offset, quads);
    for (int c = 0; c < 4; ++c) {
        codes.put(low, c, (quads[c] & 15 * kOnes) | (quads[c + 4] & 15 * kOnes) << 4);
        codes.put(high, c, (quads[c] >> 4 & 15 * kOnes) | (quads[c + 4] & 240 * kOnes));
    }
}

// Of the bytes of n vectors, each n numbers of 8 / n bits: number i of vector j and number j of vector i
// change places.
template <int n>
[[gnu::always_inline]] inline void transpose_bits(QuadOfRows* v) {
    constexpr int kWidth = 8 / n;
    for (int apart = n / 2; apart > 0; apart /= 2) {
        const int shift = apart * kWidth;
        std::uint32_t mask = 0;
        for (int i = 0; i < n; ++i) {
            if ((i & apart) == 0) mask |= ((1u << kWidth) - 1) << i * kWidth;
        }
        for (int i = 0; i < n; ++i) {
            if ((i & apart) != 0) continue;
            const QuadOfRows differ = (v[i] >> shift ^ v[i + apart]) & mask * kOnes;
            v[i + apart] ^= differ;
            v[i] ^= differ << shift;
        }
    }
}

// 32 bytes with two bits of a column of four blocks from `first` on each; they go to chunks `chunk` and the
// next one.
template <Format f>
[[gnu::always_inline]] inline void place_pairs(const Blocks& blocks, int offset, int first, int chunk,
                                               FourCodes<f> codes) {
    QuadOfRows quads[kQuads];
    load_block_quads<32>(blocks, offset, quads);
    for (int c = 0; c < 2; ++c) {
        transpose_bits<4>(quads + 4 * c);
        for (int i = 0; i < 4; ++i) codes.put(first + i, chunk + c, quads[4 * c + i]);
    }
}

// 32 bytes with one bit of a column of each of eight blocks.
template <Format f>
[[gnu::always_inline]] inline void place_bits(const Blocks& blocks, int offset, int chunk,
                                              FourCodes<f> codes) {
    QuadOfRows quads[kQuads];
    load_block_quads<32>(blocks, offset, quads);
    transpose_bits<8>(quads);
    for (int i = 0; i < 8; ++i) codes.put(i, chunk, quads[i]);
}

}  // namespace edgemoe
