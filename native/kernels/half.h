// Conversions between float32 and the two 16-bit formats, round to nearest even.
#pragma once

#include <cstdint>

#include "kernels/layout.h"

namespace edgemoe {

[[gnu::always_inline]] inline std::uint16_t bf16_of_float(float value) {
    const std::uint32_t bits = bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

[[gnu::always_inline]] inline float float_of_f16(std::uint16_t half) {
    const std::uint32_t sign = std::uint32_t{half & 0x8000u} << 16;
    const std::uint32_t magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    // Scaling by 2^112 moves the exponent and makes subnormals normal.
    const float scaled = float_of_bits(magnitude << 13) * float_of_bits((127u + 112u) << 23);
    return float_of_bits(bits_of_float(scaled) | sign);
}

[[gnu::always_inline]] inline std::uint16_t f16_of_float(float value) {
    const std::uint32_t bits = bits_of_float(value);
    const std::uint16_t sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        // Adding 0.5 aligns the subnormal's bits at the end of the mantissa and rounds them.
        const float aligned = float_of_bits(magnitude) + 0.5f;
        return static_cast<std::uint16_t>(sign | (bits_of_float(aligned) - 0x3f000000u));
    }
    const std::uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
    return static_cast<std::uint16_t>(sign | (rounded - 0x38000000u) >> 13);
}

}  // namespace edgemoe
