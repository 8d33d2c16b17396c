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
[[gnu::always_inline]] inline bool read_block<Format::kMxfp4>(const std::uint8_t* block,
                                                              const ScaleRow& scales, std::uint8_t* codes) {
    split_nibbles(block + 1, 16, codes);
    scales.put_byte(0, 0, block[0]);
    return is_finite_mxfp4(block[0], codes);
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ8>(const std::uint8_t* block, const ScaleRow& scales,
                                                           std::uint8_t* codes) {
    for (int i = 0; i < kBlock; ++i) codes[i] = block[2 + i] ^ 128;
    return scales.put_block_half(0, 0, u16_at(block));
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ4_0>(const std::uint8_t* block,
                                                             const ScaleRow& scales, std::uint8_t* codes) {
    split_nibbles(block + 2, 16, codes);
    return scales.put_block_half(0, 0, u16_at(block));
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kIq4Nl>(const std::uint8_t* block,
                                                              const ScaleRow& scales, std::uint8_t* codes) {
    return read_block<Format::kQ4_0>(block, scales, codes);
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

// Two bits a code: byte i of 32 holds codes i, 32 + i, 64 + i, 96 + i.
void split_pairs(const std::uint8_t* bytes, std::uint8_t* codes) {
    for (int j = 0; j < 4; ++j) {
        for (int i = 0; i < 32; ++i) codes[32 * j + i] = bytes[i] >> 2 * j & 3;
    }
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ2K>(const std::uint8_t* block, const ScaleRow& scales,
                                                            std::uint8_t* codes) {
    for (int i = 0; i < 2; ++i) split_pairs(block + 16 + 32 * i, codes + 128 * i);
    for (int i = 0; i < 16; ++i) scales.put_byte(i / 2, i % 2, block[i]);
    const bool is_finite = scales.put_shared(0, u16_at(block + 80));
    return scales.put_shared(1, u16_at(block + 82)) && is_finite;
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ3K>(const std::uint8_t* block, const ScaleRow& scales,
                                                            std::uint8_t* codes) {
    for (int i = 0; i < 2; ++i) split_pairs(block + 32 + 32 * i, codes + 128 * i);
    for (int i = 0; i < 8; ++i) {
        for (int j = 0; j < 32; ++j) codes[32 * i + j] |= static_cast<std::uint8_t>((block[j] >> i & 1) << 2);
    }
    const std::uint8_t *low = block + 96, *high = block + 104;
    const auto scale = [=](int i) {
        return (low[i % 8] >> i / 8 * 4 & 15) | (high[i % 4] >> i / 4 * 2 & 3) << 4;
    };
    for (int i = 0; i < 8; ++i) scales.put_six_bits(i, scale(2 * i), scale(2 * i + 1));
    return scales.put_shared(0, u16_at(block + 108));
}

// Scales and minimums of Q4_K and Q5_K: bytes 0-3 and 4-7 hold the first four with two bits of the last four
// above them, whose other four bits are in bytes 8-11.
[[gnu::always_inline]] inline bool read_six_bit_minimums(const std::uint8_t* block, const ScaleRow& scales) {
    const std::uint8_t *d = block + 4, *m = block + 8, *low = block + 12;
    for (int i = 0; i < 4; ++i) {
        scales.put_six_bits(i, d[i] & 63, m[i] & 63);
        scales.put_six_bits(4 + i, (low[i] & 15) | d[i] >> 6 << 4, low[i] >> 4 | m[i] >> 6 << 4);
    }
    const bool is_finite = scales.put_shared(0, u16_at(block));
    return scales.put_shared(1, u16_at(block + 2)) && is_finite;
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ4K>(const std::uint8_t* block, const ScaleRow& scales,
                                                            std::uint8_t* codes) {
    for (int i = 0; i < 4; ++i) split_nibbles(block + 16 + 32 * i, 32, codes + 64 * i);
    return read_six_bit_minimums(block, scales);
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ5K>(const std::uint8_t* block, const ScaleRow& scales,
                                                            std::uint8_t* codes) {
    for (int i = 0; i < 4; ++i) split_nibbles(block + 48 + 32 * i, 32, codes + 64 * i);
    for (int i = 0; i < 8; ++i) {
        for (int j = 0; j < 32; ++j)
            codes[32 * i + j] |= static_cast<std::uint8_t>((block[16 + j] >> i & 1) << 4);
    }
    return read_six_bit_minimums(block, scales);
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kQ6K>(const std::uint8_t* block, const ScaleRow& scales,
                                                            std::uint8_t* codes) {
    for (int i = 0; i < 2; ++i) {
        split_nibbles(block + 64 * i, 64, codes + 128 * i);
        std::uint8_t high[128];
        split_pairs(block + 128 + 32 * i, high);
        for (int j = 0; j < 128; ++j) codes[128 * i + j] |= static_cast<std::uint8_t>(high[j] << 4);
    }
    for (int i = 0; i < 16; ++i) scales.put_byte(i / 2, i % 2, block[192 + i] ^ 128);
    return scales.put_shared(0, u16_at(block + 208));
}

template <>
[[gnu::always_inline]] inline bool read_block<Format::kIq4Xs>(const std::uint8_t* block,
                                                              const ScaleRow& scales, std::uint8_t* codes) {
    const std::uint16_t high = u16_at(block + 2);
    for (int i = 0; i < 8; ++i) {
        split_nibbles(block + 8 + 16 * i, 16, codes + 32 * i);
        const int scale = (block[4 + i / 2] >> i % 2 * 4 & 15) | (high >> 2 * i & 3) << 4;
        scales.put_byte(i, 0, static_cast<std::uint8_t>(scale - 32 + kByteScaleZero));
    }
    return scales.put_shared(0, u16_at(block));
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

template <>
[[gnu::always_inline]] inline bool read_block<Format::kTq2_0>(const std::uint8_t* block,
                                                              const ScaleRow& scales, std::uint8_t* codes) {
    for (int i = 0; i < 2; ++i) split_pairs(block + 32 * i, codes + 128 * i);
    return scales.put_shared(0, u16_at(block + 64));
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
        case Format::kMxfp4:
            return pack_rows_of<Format::kMxfp4>;
        case Format::kQ4_0:
            return pack_rows_of<Format::kQ4_0>;
        case Format::kQ4_1:
            return pack_rows_of<Format::kQ4_1>;
        case Format::kQ5_0:
            return pack_rows_of<Format::kQ5_0>;
        case Format::kQ5_1:
            return pack_rows_of<Format::kQ5_1>;
        case Format::kQ2K:
            return pack_rows_of<Format::kQ2K>;
        case Format::kQ3K:
            return pack_rows_of<Format::kQ3K>;
        case Format::kQ4K:
            return pack_rows_of<Format::kQ4K>;
        case Format::kQ5K:
            return pack_rows_of<Format::kQ5K>;
        case Format::kQ6K:
            return pack_rows_of<Format::kQ6K>;
        case Format::kIq4Nl:
            return pack_rows_of<Format::kIq4Nl>;
        case Format::kIq4Xs:
            return pack_rows_of<Format::kIq4Xs>;
        case Format::kNvfp4:
            return pack_rows_of<Format::kNvfp4>;
        case Format::kTq1_0:
            return pack_rows_of<Format::kTq1_0>;
        case Format::kTq2_0:
            return pack_rows_of<Format::kTq2_0>;
        default:
            return has_grid(f) ? grid_row_packer(f) : nullptr;
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
