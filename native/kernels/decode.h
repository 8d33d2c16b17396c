// What one stored weight means, straight from the definitions in layout.h. Slow and readable: the scalar
// kernels, dequantisation and the tests rest on it.
#pragma once

#include "kernels/grids.h"
#include "kernels/half.h"
#include "kernels/layout.h"
#include "kernels/trellis.h"

namespace edgemoe {

// A weight is scale * (value - zero) - minimum, all but the zero relative to the row's base.
struct BlockScale {
    float scale;
    float zero;
    float minimum;
};

[[gnu::always_inline]] inline std::uint16_t load_u16(const std::uint8_t* p) {
    std::uint16_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

inline float load_f16_of_row(const std::uint8_t* halves, std::int64_t row) {
    return float_of_f16(load_u16(halves + 2 * row));
}

// The 4-bit number of a row, of the 8 bytes of 16 rows.
inline int decode_nibble(const std::uint8_t* nibbles, std::int64_t row) {
    return nibbles[row % 8] >> (row < 8 ? 0 : 4) & 15;
}

// The two 6-bit numbers of a row, of the 24 bytes of a block.
struct SixBitPair {
    int first, second;
};
inline SixBitPair decode_six_bits(const std::uint8_t* block, std::int64_t row) {
    return {block[row] & 63, block[row] >> 6 << 4 | decode_nibble(block + kRowGroup, row)};
}

// 2^(code - 128): half of what the code stands for, as the table has doubled values.
inline float decode_half_e8m0(std::uint8_t code) {
    return float_of_bits(code < 2 ? std::uint32_t{0x00200000} << code : std::uint32_t{code - 1u} << 23);
}

// A float of 4 bits of exponent and 3 of mantissa without a sign, halved: the table has doubled values.
inline float decode_half_ue4m3(std::uint8_t code) {
    return float_of_bits(std::uint32_t{code} << 20) * kHalfUe4M3Unit;
}

inline float odd_scale(Format f, int number) {
    return static_cast<float>(2 * number + 1) * grid_traits(f).unit;
}

// Scale of columns [16 half, 16 half + 16) of one block, whose own scale bytes are `block` and those that it
// shares with others `shared`.
inline BlockScale decode_scale(Format f, const std::uint8_t* shared, const std::uint8_t* block,
                               std::int64_t row, std::int64_t half) {
    const auto zero = static_cast<float>(traits(f).zero);
    const auto of_half = [&] { return block[half * kRowGroup + row]; };
    switch (traits(f).scales) {
        case Scales::kNone:
            break;
        case Scales::kE3M2Zeros:
            return {decode_e3m2(of_half() >> 3),
                    first_zero(f) + kZeroStepQ23 * static_cast<float>(of_half() & 7), 0};
        case Scales::kE4M4Zeros:
            return {decode_e4m4(block[row]), kZeroStepQ4 * static_cast<float>(block[kRowGroup + row]), 0};
        case Scales::kE4M4:
            return {decode_e4m4(of_half()), zero, 0};
        case Scales::kF16:
            return {load_f16_of_row(block, row), zero, 0};
        case Scales::kF16Mins:
            return {load_f16_of_row(block, row), zero, load_f16_of_row(block + 2 * kRowGroup, row)};
        case Scales::kE8M0:
            return {decode_half_e8m0(block[row]), zero, 0};
        case Scales::kBytes:
            return {load_f16_of_row(shared, row) * static_cast<float>(block[row] - kByteScaleZero), zero, 0};
        case Scales::kByteHalves:
            return {load_f16_of_row(shared, row) * static_cast<float>(of_half() - kByteScaleZero), zero, 0};
        case Scales::kNibbleHalves:
            return {load_f16_of_row(shared, row) * static_cast<float>(of_half() & 15), zero,
                    load_f16_of_row(shared + 2 * kRowGroup, row) * static_cast<float>(of_half() >> 4)};
        case Scales::kSixBitHalves: {
            const auto [first, second] = decode_six_bits(block, row);
            const int code = (half == 0 ? first : second) - kSixBitScaleZero;
            return {load_f16_of_row(shared, row) * static_cast<float>(code), zero, 0};
        }
        case Scales::kSixBitMins: {
            const auto [scale, minimum] = decode_six_bits(block, row);
            return {load_f16_of_row(shared, row) * static_cast<float>(scale), zero,
                    load_f16_of_row(shared + 2 * kRowGroup, row) * static_cast<float>(minimum)};
        }
        case Scales::kNibbles:
            return {static_cast<float>(kNibbleScales[decode_nibble(block, row)]), zero, 0};
        case Scales::kShared:
            return {load_f16_of_row(shared, row), zero, 0};
        case Scales::kUe4M3:
            return {decode_half_ue4m3(of_half()), zero, 0};
        case Scales::kOdd:
            return {load_f16_of_row(shared, row) * odd_scale(f, decode_nibble(block, row)), zero, 0};
        case Scales::kOddHalves:
            return {load_f16_of_row(shared, row) * odd_scale(f, block[row] >> 4 * half & 15), zero, 0};
    }
    return {};
}

// The same for a block of a row group.
inline BlockScale scale_in_group(Format f, const std::uint8_t* group, std::int64_t block, std::int64_t row,
                                 std::int64_t half) {
    return decode_scale(f, group + shared_scale_offset(f, block), group + block_scale_offset(f, block), row,
                        half);
}

// The number of a point of a block, whose codes and own scale bytes these are.
inline int point_number(Format f, const std::uint8_t* codes, const std::uint8_t* block, std::int64_t row,
                        std::int64_t point) {
    const int low = codes[point / 4 * kChunk + row * kQuad + point % 4];
    const std::uint8_t* high = block + own_scale_bytes(f);
    const int bits = grid_traits(f).high_bits, mask = (1 << bits) - 1;
    switch (high_bits_of_row(f)) {
        case 0:
            return low;
        case 4:
            return low | (decode_nibble(high, row) >> bits * point & mask) << 8;
        case 8:
            return low | (high[row] >> bits * point & mask) << 8;
        default:
            return low | (high[point / 2 * kRowGroup + row] >> bits * (point % 2) & mask) << 8;
    }
}

// What the grid has for a column of a block, before the zero is taken off.
inline int value_in_grid(Format f, const std::uint8_t* codes, const std::uint8_t* block, std::int64_t row,
                         std::int64_t col) {
    const GridTraits grid = grid_traits(f);
    const int number = point_number(f, codes, block, row, col / grid.cols);
    if (!grid.has_signs) {
        return byte_of_point(f, number % kPoints1, col % grid.cols) | number / kPoints1 * kRaise1;
    }
    const int value = byte_of_point(f, number, col % grid.cols);
    const std::uint8_t signs = codes[block_points(f) / 4 * kChunk + row * kQuad + col % kQuad];
    return (signs >> col / kQuad & 1) != 0 ? 2 * traits(f).zero - value : value;
}

// What a block holds for a column, before the zero is taken off.
inline int value_in_block(Format f, const std::uint8_t* codes, const std::uint8_t* block, std::int64_t row,
                          std::int64_t col) {
    if (has_grid(f)) return value_in_grid(f, codes, block, row, col);
    const std::uint8_t* table = value_table(f);
    if (is_trellis(f)) return table[trellis_number(f, codes, row, col)];
    const std::uint8_t code = get_code(f, codes, row, col);
    return table == nullptr ? code : table[code];
}

[[gnu::always_inline]] inline float decode_base(Format f, const std::uint8_t* group, std::int64_t row) {
    if (base_bytes(f) == 4 * kRowGroup) {
        float base;
        std::memcpy(&base, group + 4 * row, sizeof base);
        return base;
    }
    return has_base(f) ? float_of_bf16(load_u16(group + 2 * row)) : 1.0f;
}

[[gnu::always_inline]] inline float decode_weight(Format f, const std::uint8_t* group, std::int64_t cols,
                                                  std::int64_t row, std::int64_t col) {
    const std::int64_t block = col / kBlock;
    const std::uint8_t* codes = group + group_header_bytes(f, cols) + block * block_code_bytes(f);
    const BlockScale s = scale_in_group(f, group, block, row, col % kBlock / 16);
    const std::uint8_t* own = group + block_scale_offset(f, block);
    const auto value = static_cast<float>(value_in_block(f, codes, own, row, col % kBlock));
    const float product = decode_base(f, group, row) * s.scale * (value - s.zero);
    return s.minimum != 0 ? product - s.minimum : product;
}

[[gnu::always_inline]] inline float decode_value(Format f, const std::uint8_t* group, std::int64_t row,
                                                 std::int64_t col) {
    const std::int64_t index = col * kRowGroup + row;
    if (f == Format::kF32) {
        float value;
        std::memcpy(&value, group + 4 * index, sizeof value);
        return value;
    }
    const std::uint16_t half = load_u16(group + 2 * index);
    return f == Format::kF16 ? float_of_f16(half) : float_of_bf16(half);
}

}  // namespace edgemoe
