// How a matrix of N rows and M columns lies in memory in each format.
//
// Goals: lanes are rows (16 rows are interleaved, so no kernel ever sums across a vector), codes are
// 64-byte aligned, any M that is a multiple of 32 works, rows can be converted in chunks, and unpacking
// costs a few shifts. Non-goals: a layout shared with other engines, random access to one weight.
//
// A matrix is a sequence of row groups of 16 rows; a short last group is padded with zero rows.
// Low-bit group:  base    bf16[16], where scales are relative to one scale per row, the largest of the row;
//                         f32[16] in nvfp4, a factor of the row
//                 scales  per 256 columns what those share, then each of their blocks of 32; padded to 64
//                 bytes codes   per block of 32 columns, 16 rows x 32 codes
// f32, f16, bf16: values[M][16], that is the transposed group.
//
// A weight is  base * scale * (value - zero) - minimum,  where the value is the code or what a table has for
// it, and zero, scale and minimum are as follows. [16] is one number a row; "halves" are columns 0-15 of a
// block and then columns 16-31, each [16]. What 256 columns share comes first, then bytes of each block.
//   q4              scale E4M4 [16], zero in 1/16 steps u8 [16]
//   q6              scale E4M4 halves; zero 32
//   q2, q3          (scale E3M2) << 3 | (zero - first zero) / 0.25, halves
//   q8, q4_0, q5_0, iq4_nl   scale f16 [16]; zero 128, 8, 16, none
//   q4_1, q5_1      scale f16 [16], minimum f16 [16]
//   mxfp4           scale 2^(e - 127) as e u8 [16]
//   iq4_xs          f16 [16] shared; scale that times (u8 [16] - 128)
//   q6_k            f16 [16] shared; scale that times (u8 halves - 128); zero 32
//   q3_k            f16 [16] shared; scale that times (6 bits, halves, - 32); zero 4
//   q2_k            two f16 [16] shared; scale the first times the low nibble, minimum the second times the
//                   high nibble of u8 halves
//   q4_k, q5_k      two f16 [16] shared; scale the first times 6 bits, minimum the second times 6 bits
//   t2, t3          scale number n of kNibbleScales, n of 4 bits a row; zero 16 and 32
//   tq1_0, tq2_0    f16 [16] shared; zero 1
//   nvfp4           scale UE4M3 halves, which has subnormals as IEEE's floats do
//   iq1_s, iq2_xxs, iq3_xxs, iq3_s   f16 [16] shared; scale that times (2 n + 1) unit, n of 4 bits a row
//   iq1_m, iq2_xs, iq2_s             the same with n of the first 16 columns in the low nibble of a byte a
//   row
// Nibbles of 16 rows take 8 bytes: row r in the low and r + 8 in the high nibble. The iq formats then have
// what the numbers of a block's points have beyond 8 bits, h bits each: together 4 bits a row are nibbles, 8
// bits a byte a row, 16 bits two [16] of bytes. The last bit of iq1 raises the point (grids.h). E4M4 and E3M2
// are floats without sign. Two numbers a and b of 6 bits of each row take 24 bytes: a | b >> 4 << 6 [16],
// then 8 bytes with the low four bits of b, row r in the low and r + 8 in the high nibble.
//
// Codes of a block: columns form 8 quads g = 0..7 of 4 columns; a quad of 16 rows is 64 codes in the
// order [row][column % 4], the operand of one 512-bit dot-product instruction. With chunk = 64 bytes:
//   8 bits  chunk g holds quad g (code = weight + 128)
//   4 bits  chunk c (0..3): low nibble quad c, high nibble quad c + 4
//   2 bits  chunk c (0..1): bits 2j, 2j+1 hold quad 4c + j
//   3 bits  as 2, then one chunk whose bit g is bit 2 of quad g
//   5 bits  as 4, then one chunk whose bit g is bit 4 of quad g
//   6 bits  as 4 for the low four bits, then as 2 for the high two
// Trellis codes (t2, t3) number the 64 weights of a quad by 16 * (column % 4) + row, and go round: after 63
// comes 0. Each has a path bit p[0], p[k] is that of the weight k numbers further, and one or two own bits.
// Its value is number 4 * own + 2 * (p[0] ^ p[1] ^ p[6]) + (p[2] ^ p[4]) of a table. A byte [row][column
// % 4] of chunk 0 has the path bits of quads 0..7 in bits 0 4 2 6 1 5 3 7; of t2's chunk 1 the own bits in
// bits 2 6 1 5 3 7 0 4; of t3's chunks 1 and 2 the own bits of quads 0..3 and 4..7, from bits 0 4 2 6 on.
// Codes of grids: chunks with the low 8 bits of the numbers of points, [row][point % 4]: one with points of 8
// columns, two with points of 4; then, where values have signs, a chunk whose bit g is set for what is
// negative in quad g.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/formats.h"

namespace edgemoe {

// Stores carry this number: a change of what a format above means raises it, a new format does not.
inline constexpr int kLayoutVersion = 1;

inline constexpr std::int64_t kRowGroup = 16;  // rows interleaved: int32 lanes of 512 bits
inline constexpr std::int64_t kBlock = 32;     // columns that share an activation scale
inline constexpr std::int64_t kQuad = 4;       // columns in one dot-product lane
inline constexpr std::int64_t kQuads = kBlock / kQuad;
inline constexpr std::int64_t kChunk = kRowGroup * kQuad;
inline constexpr std::int64_t kAlignment = 64;
inline constexpr std::int64_t kSuperBlocks = 8;  // blocks that may share a number: 256 columns
static_assert(kChunk == kAlignment, "codes stay aligned chunk by chunk");

static constexpr std::int64_t align_up(std::int64_t n) {
    return (n + kAlignment - 1) / kAlignment * kAlignment;
}

static constexpr std::int64_t block_code_bytes(Format f) { return kRowGroup * kBlock * code_bits(f) / 8; }
static_assert(block_code_bytes(Format::kQ3) == 3 * kChunk);
static_assert(block_code_bytes(Format::kQ6) == 6 * kChunk);

// From here to group_bytes() all is inlined where a compiler would not do so by itself, as in objects as
// large as the kernels': these know the format and ask for every block, and what is left then is a sum.

// Points of a block, and bytes of their high bits in a row group.
static constexpr std::int64_t block_points(Format f) { return kBlock / grid_traits(f).cols; }
[[gnu::always_inline]] static constexpr std::int64_t high_bits_of_row(Format f) {
    return has_grid(f) ? block_points(f) * grid_traits(f).high_bits : 0;
}
[[gnu::always_inline]] static constexpr std::int64_t high_bit_bytes(Format f) {
    return kRowGroup * high_bits_of_row(f) / 8;
}

// Bytes in which a block has its own scales in a row group.
[[gnu::always_inline]] static constexpr std::int64_t own_scale_bytes(Format f) {
    switch (traits(f).scales) {
        case Scales::kNone:
        case Scales::kShared:
            return 0;
        case Scales::kNibbles:
        case Scales::kOdd:
            return kRowGroup / 2;
        case Scales::kE8M0:
        case Scales::kOddHalves:
        case Scales::kBytes:
            return kRowGroup;
        case Scales::kSixBitHalves:
        case Scales::kSixBitMins:
            return kRowGroup + kRowGroup / 2;
        case Scales::kF16Mins:
            return 4 * kRowGroup;
        default:
            return 2 * kRowGroup;
    }
}

// The same with the high bits, which follow them.
[[gnu::always_inline]] static constexpr std::int64_t block_scale_bytes(Format f) {
    return own_scale_bytes(f) + high_bit_bytes(f);
}

// Bytes of what the blocks of 256 columns share in a row group.
[[gnu::always_inline]] static constexpr std::int64_t shared_scale_bytes(Format f) {
    switch (traits(f).scales) {
        case Scales::kBytes:
        case Scales::kByteHalves:
        case Scales::kSixBitHalves:
        case Scales::kShared:
        case Scales::kOdd:
        case Scales::kOddHalves:
            return 2 * kRowGroup;
        case Scales::kNibbleHalves:
        case Scales::kSixBitMins:
            return 4 * kRowGroup;
        default:
            return 0;
    }
}

[[gnu::always_inline]] static constexpr std::int64_t base_bytes(Format f) {
    return traits(f).scales == Scales::kUe4M3 ? 4 * kRowGroup : has_base(f) ? 2 * kRowGroup : 0;
}

// Where the numbers that 256 columns share begin, from the beginning of the group; those of its first block
// follow them.
[[gnu::always_inline]] static constexpr std::int64_t shared_scale_offset(Format f, std::int64_t block) {
    return base_bytes(f) +
           block / kSuperBlocks * (shared_scale_bytes(f) + kSuperBlocks * block_scale_bytes(f));
}
[[gnu::always_inline]] static constexpr std::int64_t block_scale_offset(Format f, std::int64_t block) {
    if (shared_scale_bytes(f) == 0) return base_bytes(f) + block * block_scale_bytes(f);
    return shared_scale_offset(f, block) + shared_scale_bytes(f) +
           block % kSuperBlocks * block_scale_bytes(f);
}

// Bytes before the codes of a row group.
[[gnu::always_inline]] static constexpr std::int64_t group_header_bytes(Format f, std::int64_t cols) {
    const std::int64_t blocks = cols / kBlock;
    return align_up(base_bytes(f) + blocks * block_scale_bytes(f) +
                    blocks / kSuperBlocks * shared_scale_bytes(f));
}

[[gnu::always_inline]] static constexpr std::int64_t group_bytes(Format f, std::int64_t cols) {
    return group_header_bytes(f, cols) + cols / kBlock * block_code_bytes(f);
}

// Bytes of a row in the blocks that an exact format holds.
static constexpr std::int64_t block_row_bytes(Format f, std::int64_t cols) {
    return cols / traits(f).block_cols * traits(f).block_bytes;
}

static constexpr std::int64_t num_groups(std::int64_t rows) { return (rows + kRowGroup - 1) / kRowGroup; }

static constexpr std::int64_t packed_bytes(Format f, std::int64_t rows, std::int64_t cols) {
    return num_groups(rows) * group_bytes(f, cols);
}
// Few exact formats take more than their blocks elsewhere: iq4_xs, whose scales take 8 bits for 6; tq1_0,
// whose digits are not packed by five; and those with 8 signs for 7 (the last follows from the others) or a
// bit for every point of iq1.
static_assert(packed_bytes(Format::kQ4K, 16, 2048) == 16 * 8 * traits(Format::kQ4K).block_bytes);
static_assert(packed_bytes(Format::kQ3K, 16, 2048) == 16 * 8 * traits(Format::kQ3K).block_bytes);
static_assert(packed_bytes(Format::kIq2S, 16, 2048) == 16 * 8 * traits(Format::kIq2S).block_bytes);
static_assert(packed_bytes(Format::kIq3S, 16, 2048) == 16 * 8 * traits(Format::kIq3S).block_bytes);
static_assert(packed_bytes(Format::kMxfp4, 16, 2048) == 16 * 64 * traits(Format::kMxfp4).block_bytes);
// The limits of the design: 2.7, 3.5, 4.6, 6.6, 8.6 bits per weight for a row of 2048.
static_assert(packed_bytes(Format::kQ2, 16, 2048) * 8 <= 2.7 * 16 * 2048);
static_assert(packed_bytes(Format::kQ3, 16, 2048) * 8 <= 3.52 * 16 * 2048);
static_assert(packed_bytes(Format::kQ4, 16, 2048) * 8 <= 4.6 * 16 * 2048);
static_assert(packed_bytes(Format::kQ6, 16, 2048) * 8 <= 6.6 * 16 * 2048);
static_assert(packed_bytes(Format::kQ8, 16, 2048) * 8 <= 8.6 * 16 * 2048);
static_assert(packed_bytes(Format::kT2, 16, 2048) * 8 <= 2.15 * 16 * 2048);
static_assert(packed_bytes(Format::kT3, 16, 2048) * 8 <= 3.15 * 16 * 2048);

inline constexpr float kLargestE4M4 = 1.9375f;
inline constexpr float kLargestE3M2 = 1.75f;
inline constexpr int kBiasE4M4 = 15;  // exponent of code 0 is -15, of the last binade 0
inline constexpr int kBiasE3M2 = 7;
inline constexpr float kZeroStepQ4 = 1.0f / 16;
inline constexpr float kZeroStepQ23 = 0.25f;
// Tables of values plus the format's zero, so that all are positive; `value - zero` is the number meant.
alignas(16) inline constexpr std::uint8_t kE2M1Table[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                                            16, 15, 14, 13, 12, 10, 8,  4};
alignas(16) inline constexpr std::uint8_t kIq4Table[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                           129, 141, 153, 166, 181, 197, 217, 241};
// Close to the best 8 and 16 values of a Gaussian that is coded so and whose blocks have these scales.
alignas(16) inline constexpr std::uint8_t kTrellis8Table[16] = {1, 8, 12, 15, 17, 20, 24, 31,
                                                                1, 8, 12, 15, 17, 20, 24, 31};
alignas(16) inline constexpr std::uint8_t kTrellis16Table[16] = {10, 14, 19, 22, 25, 27, 29, 31,
                                                                 33, 35, 37, 39, 42, 45, 50, 54};
static constexpr const std::uint8_t* value_table(Format f) {
    switch (traits(f).values) {
        case Values::kE2M1:
            return kE2M1Table;
        case Values::kIq4:
            return kIq4Table;
        case Values::kTrellis8:
            return kTrellis8Table;
        case Values::kTrellis16:
            return kTrellis16Table;
        default:
            return nullptr;
    }
}
// Scales of 4 bits relative to the row's: nothing, then steps of a factor of 1.22.
alignas(16) inline constexpr std::uint8_t kNibbleScales[16] = {0,  16, 19, 23,  28,  35,  42,  52,
                                                               63, 77, 94, 115, 140, 171, 209, 255};
// Byte scales and 6-bit halves are signed by taking these off.
inline constexpr int kByteScaleZero = 128;
inline constexpr int kSixBitScaleZero = 32;
// Bits of a UE4M3 above the mantissa of a float32 stand for that much less, halved.
inline constexpr float kHalfUe4M3Unit = 0x1p119f;
// Smallest zero of q2 and q3; the centre of the code range is step 4.
static constexpr float first_zero(Format f) { return f == Format::kQ2 ? 0.5f : 2.5f; }

[[gnu::always_inline]] inline float float_of_bits(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
[[gnu::always_inline]] inline std::uint32_t bits_of_float(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
[[gnu::always_inline]] inline float decode_e4m4(std::uint8_t code) {
    return float_of_bits((std::uint32_t{code} << 19) + ((127u - kBiasE4M4) << 23));
}
[[gnu::always_inline]] inline float decode_e3m2(std::uint8_t code) {
    return float_of_bits((std::uint32_t{code} << 21) + ((127u - kBiasE3M2) << 23));
}
[[gnu::always_inline]] inline float float_of_bf16(std::uint16_t half) {
    return float_of_bits(std::uint32_t{half} << 16);
}

// Code of the weight at (row, column) of one block, row and column counted within the block.
std::uint8_t get_code(Format f, const std::uint8_t* block_codes, std::int64_t row, std::int64_t col);
void set_code(Format f, std::uint8_t* block_codes, std::int64_t row, std::int64_t col, std::uint8_t code);

}  // namespace edgemoe
