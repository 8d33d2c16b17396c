// How a matrix of N rows and M columns lies in memory in each format.
//
// Goals: lanes are rows (16 rows are interleaved, so no kernel ever sums across a vector), codes are
// 64-byte aligned, any M that is a multiple of 32 works, rows can be converted in chunks, and unpacking
// costs a few shifts. Non-goals: a layout shared with other engines, random access to one weight.
//
// A matrix is a sequence of row groups of 16 rows; a short last group is padded with zero rows.
// Low-bit group:  base   bf16[16]                one scale per row, the largest of the row
//                 scales u8[M/32][32]            per block of 32 columns, see below; padded to 64 bytes
//                 codes  per block of 32 columns, 16 rows x 32 codes
// q8 group:       scales f16[M/32][16], padded to 64 bytes, then codes (no base).
// f32, f16, bf16: values[M][16], that is the transposed group.
//
// A weight is  scale * (code - zero). Block scales are 8-bit (q4, q6) or 5-bit (q2, q3) floats without
// sign, relative to the row's base. Per block of 32 columns the 32 scale bytes hold
//   q4      scale E4M4 [16 rows], zero in 1/16 steps [16 rows]
//   q6      scale E4M4 of columns 0-15 [16 rows], of columns 16-31 [16 rows]; zero = 32
//   q2, q3  (scale E3M2) << 3 | (zero - first zero) / 0.25, columns 0-15 [16 rows], 16-31 [16 rows]
//
// Codes of a block: columns form 8 quads g = 0..7 of 4 columns; a quad of 16 rows is 64 codes in the
// order [row][column % 4], the operand of one 512-bit dot-product instruction. With chunk = 64 bytes:
//   q8  chunk g holds quad g (code = weight + 128)
//   q4  chunk c (0..3): low nibble quad c, high nibble quad c + 4
//   q2  chunk c (0..1): bits 2j, 2j+1 hold quad 4c + j
//   q3  as q2, then one chunk whose bit g is bit 2 of quad g
//   q6  as q4 for the low four bits, then as q2 for the high two
#pragma once

#include <cstdint>
#include <cstring>

namespace edgemoe {

enum class Format : int { kQ2, kQ3, kQ4, kQ6, kQ8, kBf16, kF16, kF32 };
inline constexpr int kNumFormats = 8;
inline constexpr const char* kFormatNames[kNumFormats] = {"q2", "q3", "q4", "q6", "q8", "bf16", "f16", "f32"};

// Stores carry this number: a change of anything above raises it.
inline constexpr int kLayoutVersion = 1;

inline constexpr std::int64_t kRowGroup = 16;  // rows interleaved: int32 lanes of 512 bits
inline constexpr std::int64_t kBlock = 32;     // columns that share an activation scale
inline constexpr std::int64_t kQuad = 4;       // columns in one dot-product lane
inline constexpr std::int64_t kQuads = kBlock / kQuad;
inline constexpr std::int64_t kChunk = kRowGroup * kQuad;
inline constexpr std::int64_t kAlignment = 64;
inline constexpr std::int64_t kScaleBytes = 32;  // per block and group, every low-bit format
static_assert(kChunk == kAlignment, "codes stay aligned chunk by chunk");

constexpr bool is_low_bit(Format f) { return f <= Format::kQ8; }
constexpr bool has_base(Format f) { return f < Format::kQ8; }

// Bits of a code, or of a value where weights are stored as they are.
constexpr int code_bits(Format f) {
    constexpr int bits[kNumFormats] = {2, 3, 4, 6, 8, 16, 16, 32};
    return bits[static_cast<int>(f)];
}

constexpr std::int64_t align_up(std::int64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

constexpr std::int64_t block_code_bytes(Format f) { return kRowGroup * kBlock * code_bits(f) / 8; }
static_assert(block_code_bytes(Format::kQ3) == 3 * kChunk);
static_assert(block_code_bytes(Format::kQ6) == 6 * kChunk);

// Bytes before the codes of a row group.
constexpr std::int64_t group_header_bytes(Format f, std::int64_t cols) {
    if (!is_low_bit(f)) return 0;
    return align_up((has_base(f) ? kRowGroup * 2 : 0) + cols / kBlock * kScaleBytes);
}

constexpr std::int64_t group_bytes(Format f, std::int64_t cols) {
    return group_header_bytes(f, cols) + cols / kBlock * block_code_bytes(f);
}

constexpr std::int64_t num_groups(std::int64_t rows) { return (rows + kRowGroup - 1) / kRowGroup; }

constexpr std::int64_t packed_bytes(Format f, std::int64_t rows, std::int64_t cols) {
    return num_groups(rows) * group_bytes(f, cols);
}
// The limits of the design: 2.7, 3.5, 4.6, 6.6, 8.6 bits per weight for a row of 2048.
static_assert(packed_bytes(Format::kQ2, 16, 2048) * 8 <= 2.7 * 16 * 2048);
static_assert(packed_bytes(Format::kQ3, 16, 2048) * 8 <= 3.52 * 16 * 2048);
static_assert(packed_bytes(Format::kQ4, 16, 2048) * 8 <= 4.6 * 16 * 2048);
static_assert(packed_bytes(Format::kQ6, 16, 2048) * 8 <= 6.6 * 16 * 2048);
static_assert(packed_bytes(Format::kQ8, 16, 2048) * 8 <= 8.6 * 16 * 2048);

inline constexpr float kLargestE4M4 = 1.9375f;
inline constexpr float kLargestE3M2 = 1.75f;
inline constexpr int kBiasE4M4 = 15;  // exponent of code 0 is -15, of the last binade 0
inline constexpr int kBiasE3M2 = 7;
inline constexpr float kZeroStepQ4 = 1.0f / 16;
inline constexpr float kZeroStepQ23 = 0.25f;
inline constexpr float kZeroQ6 = 32;
inline constexpr float kZeroQ8 = 128;
// Smallest zero of q2 and q3; the centre of the code range is step 4.
constexpr float first_zero(Format f) { return f == Format::kQ2 ? 0.5f : 2.5f; }

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
