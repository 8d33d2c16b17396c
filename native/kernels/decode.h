// What one stored weight means, straight from the definitions in layout.h. Slow and readable: the scalar
// kernels, dequantisation and the tests rest on it.
#pragma once

#include "kernels/half.h"
#include "kernels/layout.h"

namespace edgemoe {

struct ScaleAndZero {
    float scale;  // relative to the row's base
    float zero;
};

[[gnu::always_inline]] inline std::uint16_t load_u16(const std::uint8_t* p) {
    std::uint16_t value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

// Scale and zero of columns [16 half, 16 half + 16) of one block; `scales` are the block's scale bytes.
inline ScaleAndZero decode_scale(Format f, const std::uint8_t* scales, std::int64_t row, std::int64_t half) {
    const std::uint8_t code = scales[half * kRowGroup + row];
    switch (f) {
        case Format::kQ4:
            return {decode_e4m4(scales[row]), kZeroStepQ4 * static_cast<float>(scales[kRowGroup + row])};
        case Format::kQ6:
            return {decode_e4m4(code), kZeroQ6};
        case Format::kQ8:
            return {float_of_f16(load_u16(scales + 2 * row)), kZeroQ8};
        default:
            return {decode_e3m2(code >> 3), first_zero(f) + kZeroStepQ23 * static_cast<float>(code & 7)};
    }
}

inline const std::uint8_t* block_scales(Format f, const std::uint8_t* group, std::int64_t block) {
    return group + (has_base(f) ? 2 * kRowGroup : 0) + block * kScaleBytes;
}

[[gnu::always_inline]] inline float decode_base(Format f, const std::uint8_t* group, std::int64_t row) {
    return has_base(f) ? float_of_bf16(load_u16(group + 2 * row)) : 1.0f;
}

[[gnu::always_inline]] inline float decode_weight(Format f, const std::uint8_t* group, std::int64_t cols,
                                                  std::int64_t row, std::int64_t col) {
    const std::int64_t block = col / kBlock;
    const std::uint8_t* codes = group + group_header_bytes(f, cols) + block * block_code_bytes(f);
    const ScaleAndZero s = decode_scale(f, block_scales(f, group, block), row, col % kBlock / 16);
    const float code = get_code(f, codes, row, col % kBlock);
    return decode_base(f, group, row) * s.scale * (code - s.zero);
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
