// One reader per block type takes a block apart into plain codes of a row; placing them is the same for all.
// The block types are those of ggml (quants of llama.cpp), by the definitions of the gguf library.
#include "kernels/exact_blocks.h"

#include <algorithm>
#include <cstring>

#include "kernels/pack_rows.h"
#include "kernels/row_codes.h"

namespace edgemoe {
namespace {

std::uint16_t negated(std::uint16_t half) { return half ^ 0x8000; }

// codes[i] = the low nibble of byte i, codes[n + i] = the high one.
void split_nibbles(const std::uint8_t* bytes, int n, std::uint8_t* codes) {
    for (int i = 0; i < n; ++i) codes[i] = bytes[i] & 15;
    for (int i = 0; i < n; ++i) codes[n + i] = bytes[i] >> 4;
}

// Adds bit i of 32 to code i.
void add_bits(const std::uint8_t* bytes, int place, std::uint8_t* codes) {
    std::uint32_t bits;
    std::memcpy(&bits, bytes, sizeof bits);
    for (int i = 0; i < 32; ++i) codes[i] |= static_cast<std::uint8_t>((bits >> i & 1) << place);
}

// Each reads one block and returns whether its weights are finite. All are inlined: so the format that the
// scales are of is known.
template <Format f>
[[gnu::always_inline]] inline bool read_block(const std::uint8_t* block, const ScaleRow& scales,
                                              std::uint8_t* codes);

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ8>(const std::uint8_t* block, const ScaleRow& scales,
                                                           std::uint8_t* codes) {
    for (int i = 0; i < kBlock; ++i) codes[i] = block[2 + i] ^ 128;
    return scales.put_block_half(0, 0, u16_at(block));
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ4_1>(const std::uint8_t* block,
                                                             const ScaleRow& scales, std::uint8_t* codes) {
    split_nibbles(block + 4, 16, codes);
    const bool is_finite = scales.put_block_half(0, 0, u16_at(block));
    return scales.put_block_half(0, 1, negated(u16_at(block + 2))) && is_finite;
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ5_0>(const std::uint8_t* block,
                                                             const ScaleRow& scales, std::uint8_t* codes) {
    split_nibbles(block + 6, 16, codes);
    add_bits(block + 2, 4, codes);
    return scales.put_block_half(0, 0, u16_at(block));
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ5_1>(const std::uint8_t* block,
                                                             const ScaleRow& scales, std::uint8_t* codes) {
    split_nibbles(block + 8, 16, codes);
    add_bits(block + 4, 4, codes);
    const bool is_finite = scales.put_block_half(0, 0, u16_at(block));
    return scales.put_block_half(0, 1, negated(u16_at(block + 2))) && is_finite;
}

// A float without sign of 4 bits of exponent and 3 of mantissa for 16 columns each; where all are set, no
// number.
template <>
[[gnu::always_inline]] inline bool read_block<Format::kNvfp4>(const std::uint8_t* block,
                                                              const ScaleRow& scales, std::uint8_t* codes) {
    bool is_finite = true;
    for (int i = 0; i < 4; ++i) {
        split_nibbles(block + 4 + 8 * i, 8, codes + 16 * i);
        const std::uint8_t scale = block[i] & 127;
        scales.put_byte(i / 2, i % 2, scale);
        is_finite &= scale != 127;
    }
    scales.put_row_factor(1.0f);
    return is_finite;
}

// Five digits to the base of 3 in a byte, as a fraction of 256: three times as much has the first above 8
// bits.
void split_digits(const std::uint8_t* bytes, int n, int num_digits, std::uint8_t* codes) {
    for (int i = 0; i < n; ++i) {
        int fraction = bytes[i];
        for (int j = 0; j < num_digits; ++j) {
            codes[j * n + i] = static_cast<std::uint8_t>(fraction * 3 >> 8);
            fraction = fraction * 3 & 255;
        }
    }
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kTq1_0>(const std::uint8_t* block,
                                                              const ScaleRow& scales, std::uint8_t* codes) {
    split_digits(block, 32, 5, codes);
    split_digits(block + 32, 16, 5, codes + 160);
    split_digits(block + 48, 4, 4, codes + 240);
    return scales.put_shared(0, u16_at(block + 52));
}

template <Format f>
std::int64_t pack_rows_of(const std::uint8_t* blocks, std::int64_t row_bytes, std::int64_t count,
                          std::int64_t cols, std::uint8_t* group, std::int64_t row) {
    constexpr int kCols = traits(f).block_cols;
    RowCodes codes = {};  // rows that a group lacks have zeros
    std::uint8_t* place = group + group_header_bytes(f, cols) + row * kQuad;
    bool is_finite[kRowsTogether] = {true, true, true, true};
    for (std::int64_t first = 0; first < cols / kBlock; first += kCols / kBlock) {
        for (std::int64_t r = 0; r < count; ++r) {
            const ScaleRow scales(f, group, first, row + r);
            is_finite[r] &= read_block<f>(blocks + r * row_bytes, scales, codes[r]);
        }
        for (int i = 0; i < kCols / kBlock; ++i, place += block_code_bytes(f)) {
            place_codes<code_bits(f)>(codes, i * kBlock, place);
        }
        blocks += traits(f).block_bytes;
    }
    return std::find(is_finite, is_finite + count, false) - is_finite;
}

// A float of a format, as an unsigned number of its size, and the bits that are all set where it is none.
template <Format f>
struct FloatBits {
    using Type = std::uint16_t;
    static constexpr Type kExponent = f == Format::kF16 ? 0x7c00 : 0x7f80;
};
template <>
struct FloatBits<Format::kF32> {
    using Type = std::uint32_t;
    static constexpr Type kExponent = 0x7f800000;
};

// Floats have no blocks: a column of 16 rows lies side by side.
template <Format f>
std::int64_t pack_float_rows(const std::uint8_t* floats, std::int64_t row_bytes, std::int64_t count,
                             std::int64_t cols, std::uint8_t* group, std::int64_t row) {
    using Bits = typename FloatBits<f>::Type;
    constexpr Bits kExponent = FloatBits<f>::kExponent;
    bool is_finite[kRowsTogether] = {true, true, true, true};
    for (std::int64_t col = 0; col < cols; ++col) {
        for (std::int64_t r = 0; r < count; ++r) {
            Bits value;
            std::memcpy(&value, floats + r * row_bytes + col * sizeof value, sizeof value);
            is_finite[r] &= (value & kExponent) != kExponent;
            std::memcpy(group + (col * kRowGroup + row + r) * sizeof value, &value, sizeof value);
        }
    }
    return std::find(is_finite, is_finite + count, false) - is_finite;
}

// nullptr where rows of a format are not packed.
PackRows* row_packer(Format f) {
    switch (f) {
        case Format::kBf16:
            return pack_float_rows<Format::kBf16>;
        case Format::kF16:
            return pack_float_rows<Format::kF16>;
        case Format::kF32:
            return pack_float_rows<Format::kF32>;
        case Format::kQ8:
            return pack_rows_of<Format::kQ8>;
        case Format::kQ4_1:
            return pack_rows_of<Format::kQ4_1>;
        case Format::kQ5_0:
            return pack_rows_of<Format::kQ5_0>;
        case Format::kQ5_1:
            return pack_rows_of<Format::kQ5_1>;
        case Format::kNvfp4:
            return pack_rows_of<Format::kNvfp4>;
        case Format::kTq1_0:
            return pack_rows_of<Format::kTq1_0>;
        default:
            return has_grid(f) ? grid_row_packer(f) : four_row_packer(f);
    }
}

}  // namespace

bool packs_rows(Format format) { return row_packer(format) != nullptr; }

bool packs_blocks(Format format) { return packs_rows(format) && traits(format).scales != Scales::kNone; }

std::int64_t pack_blocks(const std::uint8_t* blocks, std::int64_t rows, std::int64_t cols, Format format,
                         std::uint8_t* packed) {
    PackRows* const pack_rows = row_packer(format);
    const std::int64_t row_bytes = block_row_bytes(format, cols);
    return pack_all(rows, cols, format, packed,
                    [=](std::int64_t first, std::int64_t count, std::uint8_t* group, std::int64_t row) {
                        return pack_rows(blocks + first * row_bytes, row_bytes, count, cols, group, row);
                    });
}

}  // namespace edgemoe
