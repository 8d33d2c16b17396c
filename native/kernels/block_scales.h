// Scales of one block as vectors of rows, by the definitions in layout.h. Included textually by every vector
// instruction set after its primitives, which loops.h lists, and before loops.h.

inline F scale_e4m4(I code) { return as_float(add32(shift32<19>(code), (127 - kBiasE4M4) << 23)); }
// E3M2 in units of 2^-9: whole numbers below 1024, by which integers can be multiplied. load_base() has the
// unit.
constexpr int kE3M2UnitBits = 9;
inline F scale_e3m2(I code) {
    return as_float(add32(shift32<18>(code), (127 + kE3M2UnitBits - kBiasE3M2) << 23));
}
// Half of the power of two that an exponent stands for; max32 makes the smallest one, a subnormal.
inline F half_e8m0(I exponent) { return mul(as_float(max32(shift32<23>(exponent), 0x00400000)), set1(0.5f)); }
inline F load_half_of_row(const std::uint8_t* halves, std::int64_t lane) {
    return load_f16(reinterpret_cast<const std::uint16_t*>(halves) + lane);
}
inline F of_signed(I code, int zero) { return to_float(add32(code, -zero)); }

inline F half_ue4m3(I code) { return mul(as_float(shift32<20>(code)), set1(kHalfUe4M3Unit)); }
// Odd multiples of the unit of a grid's scales; no product of these or with f16 is rounded.
template <Format f>
inline F odd_multiple(I number) {
    constexpr float kUnit = grid_traits(f).unit;
    return fma(to_float(number), set1(2 * kUnit), set1(kUnit));
}

// Scale bytes of one block: what it shares with others of its 256 columns, its own, and the first of L rows.
struct ScalePlace {
    const std::uint8_t* shared;
    const std::uint8_t* block;
    std::int64_t lane;
};

// Two 6-bit numbers of each row.
struct SixBits {
    I first, second;
};
inline SixBits load_six_bits(const ScalePlace& place) {
    const I bytes = load_bytes(place.block + place.lane);
    const I high = shift32<-2>(and32(bytes, 0xc0));
    return {and32(bytes, 63), or8(high, load_nibbles(place.block + kRowGroup, place.lane))};
}

// Scale of all columns of a block, and what is taken off every weight, where there is such; in q4 off every
// value.
struct WholeScale {
    F scale, minimum;
};
template <Format f>
inline WholeScale whole_scale(const ScalePlace& at) {
    constexpr Scales kScales = traits(f).scales;
    const F none = set1(0.0f);
    if constexpr (kScales == Scales::kF16) {
        return {load_half_of_row(at.block, at.lane), none};
    } else if constexpr (kScales == Scales::kE4M4Zeros) {
        const F steps = to_float(load_bytes(at.block + kRowGroup + at.lane));
        return {scale_e4m4(load_bytes(at.block + at.lane)), mul(steps, set1(kZeroStepQ4))};
    } else if constexpr (kScales == Scales::kNibbles) {
        return {to_float(look_up(kNibbleScales, load_nibbles(at.block, at.lane))), none};
    } else if constexpr (kScales == Scales::kShared) {
        return {load_half_of_row(at.shared, at.lane), none};
    } else if constexpr (kScales == Scales::kOdd) {
        const F multiple = odd_multiple<f>(load_nibbles(at.block, at.lane));
        return {mul(load_half_of_row(at.shared, at.lane), multiple), none};
    } else if constexpr (kScales == Scales::kE8M0) {
        return {half_e8m0(load_bytes(at.block + at.lane)), none};
    } else if constexpr (kScales == Scales::kBytes) {
        const F code = of_signed(load_bytes(at.block + at.lane), kByteScaleZero);
        return {mul(load_half_of_row(at.shared, at.lane), code), none};
    } else if constexpr (kScales == Scales::kF16Mins) {
        return {load_half_of_row(at.block, at.lane), load_half_of_row(at.block + 2 * kRowGroup, at.lane)};
    } else {
        static_assert(kScales == Scales::kSixBitMins);
        const auto [scale, minimum] = load_six_bits(at);
        return {mul(load_half_of_row(at.shared, at.lane), to_float(scale)),
                mul(load_half_of_row(at.shared + 2 * kRowGroup, at.lane), to_float(minimum))};
    }
}

// The same of columns 0-15 and 16-31.
struct HalfScales {
    F scale[2], minimum[2];
};
template <Format f>
inline HalfScales half_scales(const ScalePlace& at) {
    constexpr Scales kScales = traits(f).scales;
    HalfScales found;
    if constexpr (kScales == Scales::kSixBitHalves) {
        const F shared = load_half_of_row(at.shared, at.lane);
        const auto [first, second] = load_six_bits(at);
        found.scale[0] = mul(shared, of_signed(first, kSixBitScaleZero));
        found.scale[1] = mul(shared, of_signed(second, kSixBitScaleZero));
    } else if constexpr (kScales == Scales::kOddHalves) {
        const F shared = load_half_of_row(at.shared, at.lane);
        const I byte = load_bytes(at.block + at.lane);
        found.scale[0] = mul(shared, odd_multiple<f>(and32(byte, 15)));
        found.scale[1] = mul(shared, odd_multiple<f>(shift32<-4>(byte)));
    } else {
        const I bytes[2] = {load_bytes(at.block + at.lane), load_bytes(at.block + kRowGroup + at.lane)};
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            F& scale = found.scale[half];
            if constexpr (kScales == Scales::kE4M4) {
                scale = scale_e4m4(bytes[half]);
            } else if constexpr (kScales == Scales::kUe4M3) {
                scale = half_ue4m3(bytes[half]);
            } else if constexpr (kScales == Scales::kE3M2Zeros) {
                scale = scale_e3m2(and32(bytes[half], 0xf8));
                const F zero = fma(to_float(and32(bytes[half], 7)), set1(kZeroStepQ23), set1(first_zero(f)));
                found.minimum[half] = mul(scale, zero);
            } else if constexpr (kScales == Scales::kByteHalves) {
                scale = mul(load_half_of_row(at.shared, at.lane), of_signed(bytes[half], kByteScaleZero));
            } else {
                static_assert(kScales == Scales::kNibbleHalves);
                const F minimum = to_float(shift32<-4>(bytes[half]));
                scale = mul(load_half_of_row(at.shared, at.lane), to_float(and32(bytes[half], 15)));
                found.minimum[half] = mul(load_half_of_row(at.shared + 2 * kRowGroup, at.lane), minimum);
            }
        }
    }
    return found;
}
