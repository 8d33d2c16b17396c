// One writer for each format: it puts codes and scales where ggml's blocks have them. Exact formats become
// the blocks that they came from, our rounded ones those that have a place for their codes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/half.h"
#include "kernels/unpack_row.h"

namespace edgemoe {

inline constexpr int kLargestBlock = 256;
inline constexpr int kHalves = kLargestBlock / 16;

// Byte i = codes[i] in its low nibble, codes[n + i] in the high one.
inline void join_nibbles(const std::uint8_t* codes, int n, std::uint8_t* bytes) {
    for (int i = 0; i < n; ++i) bytes[i] = static_cast<std::uint8_t>((codes[i] & 15) | codes[n + i] << 4);
}

// Bit i of 32 = bit `place` of code i.
inline void join_bits(const std::uint8_t* codes, int place, std::uint8_t* bytes) {
    std::uint32_t bits = 0;
    for (int i = 0; i < 32; ++i) bits |= static_cast<std::uint32_t>(codes[i] >> place & 1) << i;
    std::memcpy(bytes, &bits, sizeof bits);
}

// Byte i of 32 = two bits, from `place` on, of codes i, 32 + i, 64 + i, 96 + i.
inline void join_pairs(const std::uint8_t* codes, int place, std::uint8_t* bytes) {
    for (int i = 0; i < 32; ++i) {
        int all = 0;
        for (int j = 0; j < 4; ++j) all |= (codes[32 * j + i] >> place & 3) << 2 * j;
        bytes[i] = static_cast<std::uint8_t>(all);
    }
}

template <Format f>
void write_block(const RowScales& scales, const std::uint8_t* codes, std::uint8_t* block);

template <>
inline void write_block<Format::kMxfp4>(const RowScales& scales, const std::uint8_t* codes,
                                        std::uint8_t* block) {
    block[0] = scales.byte(0, 0);
    join_nibbles(codes, 16, block + 1);
}

template <>
inline void write_block<Format::kQ8>(const RowScales& scales, const std::uint8_t* codes,
                                     std::uint8_t* block) {
    put_u16(block, scales.block_half(0));
    for (int i = 0; i < kBlock; ++i) block[2 + i] = codes[i] ^ 128;
}

template <>
inline void write_block<Format::kQ4_0>(const RowScales& scales, const std::uint8_t* codes,
                                       std::uint8_t* block) {
    put_u16(block, scales.block_half(0));
    join_nibbles(codes, 16, block + 2);
}

template <>
inline void write_block<Format::kIq4Nl>(const RowScales& scales, const std::uint8_t* codes,
                                        std::uint8_t* block) {
    write_block<Format::kQ4_0>(scales, codes, block);
}

// Minimums are taken off here and added there.
inline void write_scale_and_minimum(const RowScales& scales, std::uint8_t* block) {
    put_u16(block, scales.block_half(0));
    put_u16(block + 2, scales.block_half(1) ^ 0x8000);
}

template <>
inline void write_block<Format::kQ4_1>(const RowScales& scales, const std::uint8_t* codes,
                                       std::uint8_t* block) {
    write_scale_and_minimum(scales, block);
    join_nibbles(codes, 16, block + 4);
}

template <>
inline void write_block<Format::kQ5_0>(const RowScales& scales, const std::uint8_t* codes,
                                       std::uint8_t* block) {
    put_u16(block, scales.block_half(0));
    join_bits(codes, 4, block + 2);
    join_nibbles(codes, 16, block + 6);
}

template <>
inline void write_block<Format::kQ5_1>(const RowScales& scales, const std::uint8_t* codes,
                                       std::uint8_t* block) {
    write_scale_and_minimum(scales, block);
    join_bits(codes, 4, block + 4);
    join_nibbles(codes, 16, block + 8);
}

template <>
inline void write_block<Format::kQ2K>(const RowScales& scales, const std::uint8_t* codes,
                                      std::uint8_t* block) {
    for (int i = 0; i < 16; ++i) block[i] = scales.byte(i / 2, i % 2);
    for (int i = 0; i < 2; ++i) join_pairs(codes + 128 * i, 0, block + 16 + 32 * i);
    put_u16(block + 80, scales.shared(0));
    put_u16(block + 82, scales.shared(1));
}

template <>
inline void write_block<Format::kQ3K>(const RowScales& scales, const std::uint8_t* codes,
                                      std::uint8_t* block) {
    std::memset(block, 0, 32);
    for (int i = 0; i < 256; ++i) block[i % 32] |= static_cast<std::uint8_t>((codes[i] >> 2 & 1) << i / 32);
    for (int i = 0; i < 2; ++i) join_pairs(codes + 128 * i, 0, block + 32 + 32 * i);
    std::uint8_t *low = block + 96, *high = block + 104;
    std::memset(low, 0, 12);
    for (int i = 0; i < kHalves; ++i) {
        const auto [first, second] = scales.six_bits(i / 2);
        const int scale = i % 2 == 0 ? first : second;
        low[i % 8] |= static_cast<std::uint8_t>((scale & 15) << i / 8 * 4);
        high[i % 4] |= static_cast<std::uint8_t>(scale >> 4 << i / 4 * 2);
    }
    put_u16(block + 108, scales.shared(0));
}

inline void write_six_bit_minimums(const RowScales& scales, std::uint8_t* block) {
    put_u16(block, scales.shared(0));
    put_u16(block + 2, scales.shared(1));
    std::uint8_t *d = block + 4, *m = block + 8, *low = block + 12;
    for (int i = 0; i < 4; ++i) {
        const SixBitPair near = scales.six_bits(i), far = scales.six_bits(4 + i);
        d[i] = static_cast<std::uint8_t>(near.first | far.first >> 4 << 6);
        m[i] = static_cast<std::uint8_t>(near.second | far.second >> 4 << 6);
        low[i] = static_cast<std::uint8_t>((far.first & 15) | (far.second & 15) << 4);
    }
}

template <>
inline void write_block<Format::kQ4K>(const RowScales& scales, const std::uint8_t* codes,
                                      std::uint8_t* block) {
    write_six_bit_minimums(scales, block);
    for (int i = 0; i < 4; ++i) join_nibbles(codes + 64 * i, 32, block + 16 + 32 * i);
}

template <>
inline void write_block<Format::kQ5K>(const RowScales& scales, const std::uint8_t* codes,
                                      std::uint8_t* block) {
    write_six_bit_minimums(scales, block);
    std::memset(block + 16, 0, 32);
    for (int i = 0; i < 256; ++i) {
        block[16 + i % 32] |= static_cast<std::uint8_t>((codes[i] >> 4 & 1) << i / 32);
    }
    for (int i = 0; i < 4; ++i) join_nibbles(codes + 64 * i, 32, block + 48 + 32 * i);
}

// Codes of six bits as Q6_K has them.
inline void write_q6_k_codes(const std::uint8_t* codes, std::uint8_t* block) {
    for (int i = 0; i < 2; ++i) {
        join_nibbles(codes + 128 * i, 64, block + 64 * i);
        join_pairs(codes + 128 * i, 4, block + 128 + 32 * i);
    }
}

template <>
inline void write_block<Format::kQ6K>(const RowScales& scales, const std::uint8_t* codes,
                                      std::uint8_t* block) {
    write_q6_k_codes(codes, block);
    for (int i = 0; i < kHalves; ++i) block[192 + i] = scales.byte(i / 2, i % 2) ^ 128;
    put_u16(block + 208, scales.shared(0));
}

template <>
inline void write_block<Format::kIq4Xs>(const RowScales& scales, const std::uint8_t* codes,
                                        std::uint8_t* block) {
    put_u16(block, scales.shared(0));
    std::memset(block + 2, 0, 6);
    int high = 0;
    for (int i = 0; i < 8; ++i) {
        join_nibbles(codes + 32 * i, 16, block + 8 + 16 * i);
        const int scale = scales.byte(i, 0) - kByteScaleZero + 32;
        block[4 + i / 2] |= static_cast<std::uint8_t>((scale & 15) << i % 2 * 4);
        high |= scale >> 4 << 2 * i;
    }
    put_u16(block + 2, static_cast<std::uint16_t>(high));
}

// The factor of the row has no place in these blocks: whoever writes them writes it elsewhere.
template <>
inline void write_block<Format::kNvfp4>(const RowScales& scales, const std::uint8_t* codes,
                                        std::uint8_t* block) {
    for (int i = 0; i < 4; ++i) {
        block[i] = scales.byte(i / 2, i % 2);
        join_nibbles(codes + 16 * i, 8, block + 4 + 8 * i);
    }
}

// A byte for `num_digits` digits to the base of 3, codes[i], codes[n + i] and so on: as a fraction of 256,
// rounded up so that multiplying it by 3 gives one digit after the other. Digits beyond are zeros.
inline void join_digits(const std::uint8_t* codes, int n, int num_digits, std::uint8_t* bytes) {
    for (int i = 0; i < n; ++i) {
        int number = 0;
        for (int j = 0; j < 5; ++j) number = 3 * number + (j < num_digits ? codes[j * n + i] : 0);
        bytes[i] = static_cast<std::uint8_t>((256 * number + 242) / 243);
    }
}

template <>
inline void write_block<Format::kTq1_0>(const RowScales& scales, const std::uint8_t* codes,
                                        std::uint8_t* block) {
    join_digits(codes, 32, 5, block);
    join_digits(codes + 160, 16, 5, block + 32);
    join_digits(codes + 240, 4, 4, block + 48);
    put_u16(block + 52, scales.shared(0));
}

template <>
inline void write_block<Format::kTq2_0>(const RowScales& scales, const std::uint8_t* codes,
                                        std::uint8_t* block) {
    for (int i = 0; i < 2; ++i) join_pairs(codes + 128 * i, 0, block + 32 * i);
    put_u16(block + 64, scales.shared(0));
}

// Q4_1: the scale and minus scale times zero, each rounded to f16.
template <>
inline void write_block<Format::kQ4>(const RowScales& scales, const std::uint8_t* codes,
                                     std::uint8_t* block) {
    const BlockScale s = scales.of_half(0);
    const float scale = scales.base() * s.scale;
    put_u16(block, f16_of_float(scale));
    put_u16(block + 2, f16_of_float(-scale * s.zero));
    join_nibbles(codes, 16, block + 4);
}

// Q6_K: `steps` of a code make one of its own; the largest scale becomes an integer of 64 to 127 without
// rounding, and so do all that are not much smaller, as ours have few bits.
inline void carry_in_q6_k(const RowScales& scales, const std::uint8_t* codes, float steps,
                          std::uint8_t* block) {
    BlockScale all[kHalves];
    float largest = 0;
    for (int i = 0; i < kHalves; ++i) {
        all[i] = scales.of_half(i);
        largest = std::max(largest, all[i].scale);
    }
    const float unit = std::ldexp(1.0f, std::ilogb(largest) - 6);
    std::uint8_t own[kLargestBlock];
    for (int i = 0; i < kLargestBlock; ++i) {
        own[i] = static_cast<std::uint8_t>(
            32 + std::lround(steps * (static_cast<float>(codes[i]) - all[i / 16].zero)));
    }
    write_q6_k_codes(own, block);
    for (int i = 0; i < kHalves; ++i) {
        block[192 + i] = static_cast<std::uint8_t>(std::lround(all[i].scale / unit));
    }
    put_u16(block + 208, f16_of_float(scales.base() * unit / steps));
}

template <>
inline void write_block<Format::kQ6>(const RowScales& scales, const std::uint8_t* codes,
                                     std::uint8_t* block) {
    carry_in_q6_k(scales, codes, 1, block);
}
template <>
inline void write_block<Format::kQ3>(const RowScales& scales, const std::uint8_t* codes,
                                     std::uint8_t* block) {
    carry_in_q6_k(scales, codes, 1 / kZeroStepQ23, block);
}
template <>
inline void write_block<Format::kQ2>(const RowScales& scales, const std::uint8_t* codes,
                                     std::uint8_t* block) {
    carry_in_q6_k(scales, codes, 1 / kZeroStepQ23, block);
}

}  // namespace edgemoe
