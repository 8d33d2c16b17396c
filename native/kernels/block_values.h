// The values of one block in any format, and how sums of their products are scaled and added up. Included
// textually, as loops.h is, before it; the primitives are listed there.

// Formats with a scale for every 16 columns.
constexpr bool has_half_scales(Format f) {
    const Scales s = traits(f).scales;
    return s == Scales::kE3M2Zeros || s == Scales::kE4M4 || s == Scales::kByteHalves ||
           s == Scales::kNibbleHalves || s == Scales::kSixBitHalves || s == Scales::kUe4M3 ||
           s == Scales::kOddHalves;
}
// Formats whose scales come with something to take off.
constexpr bool has_minimum(Format f) {
    const Scales s = traits(f).scales;
    return s == Scales::kE3M2Zeros || s == Scales::kNibbleHalves || s == Scales::kF16Mins ||
           s == Scales::kSixBitMins;
}

template <Format f>
using ScalesOf = std::conditional_t<has_half_scales(f), HalfScales, WholeScale>;
template <Format f>
inline ScalesOf<f> scales_at(const ScalePlace& place) {
    if constexpr (has_half_scales(f))
        return half_scales<f>(place);
    else
        return whole_scale<f>(place);
}

// What the integer sum of a block, or of one half, begins at.
template <Format f, int T>
inline std::int32_t start_of_block(const TokenBlock<T>& x, int t) {
    constexpr int kZero = traits(f).zero;
    if constexpr (kZero == 0) return 0;
    if constexpr (kZero == 128) return x.starts_128[t];
    return x.starts_16[t] * kZero / 16;
}
template <Format f, int T>
inline std::int32_t start_of_half(const TokenBlock<T>& x, int half, int t) {
    return x.half_starts_32[half][t] * traits(f).zero / 32;
}

// Codes of quad g.
template <int bits, int g>
inline I unpack_quad(const std::uint8_t* codes) {
    if constexpr (bits == 8) {
        return load_codes(codes + g * kChunk);
    } else if constexpr (bits == 2) {
        return and8(shift<-2 * (g % 4)>(load_codes(codes + g / 4 * kChunk)), 3);
    } else if constexpr (bits == 4) {
        return and8(shift<(g < 4 ? 0 : -4)>(load_codes(codes + g % 4 * kChunk)), 15);
    } else if constexpr (bits == 3) {
        const I high = and8(shift<2 - g>(load_codes(codes + 2 * kChunk)), 4);
        return or8(unpack_quad<2, g>(codes), high);
    } else if constexpr (bits == 5) {
        const I high = and8(shift<4 - g>(load_codes(codes + 4 * kChunk)), 16);
        return or8(unpack_quad<4, g>(codes), high);
    } else {
        static_assert(bits == 6);
        const I high = and8(shift<4 - 2 * (g % 4)>(load_codes(codes + (4 + g / 4) * kChunk)), 48);
        return or8(unpack_quad<4, g>(codes), high);
    }
}

// Values of the quads of one block and L rows, whose codes begin at `codes`.
template <Format f, bool = is_trellis(f)>
struct BlockValues {
    BlockValues(const std::uint8_t* first, const ScalePlace&) : codes(first) {}

    template <int g>
    I quad() const {
        const I found = unpack_quad<code_bits(f), g>(codes);
        if constexpr (traits(f).values == Values::kCodes) return found;
        return look_up(value_table(f), found);
    }

    const std::uint8_t* codes;
};
template <Format f>
struct BlockValues<f, true> {
    BlockValues(const std::uint8_t* first, const ScalePlace& at) : numbers(first, at.lane) {}

    template <int g>
    I quad() const {
        return look_up(value_table(f), numbers.template quad<g>());
    }

    TrellisNumbers<f> numbers;
};
template <Format f>
using Block = std::conditional_t<has_grid(f), GridBlock<f>, BlockValues<f>>;

// Adds the product of one block and token t: scale * scale of x * sum(value x) - minimum * sum(x), for `dots`
// = sum(value x). What q4 takes off is scaled together with its products.
template <Format f, int T>
inline F add_whole(F dots, const WholeScale& by, const TokenBlock<T>& x, int t, F acc) {
    const F product = mul(dots, set1(x.scales[t]));
    if constexpr (f == Format::kQ4) {
        return fma(by.scale, fnma(by.minimum, set1(x.sums[t]), product), acc);
    } else {
        if constexpr (has_minimum(f)) acc = fnma(by.minimum, set1(x.sums[t]), acc);
        return fma(by.scale, product, acc);
    }
}

// The same where halves have scales of their own; `dots` is the sum of scale * sum(value x) of both.
template <Format f, typename ScalesOfHalves, int T>
inline F add_halves(F dots, const ScalesOfHalves& by, const TokenBlock<T>& x, int t, F acc) {
    if constexpr (has_minimum(f)) {
        const F product = mul(dots, set1(x.scales[t]));
        const F part = fnma(by.minimum[0], set1(x.half_sums[0][t]), product);
        return add(acc, fnma(by.minimum[1], set1(x.half_sums[1][t]), part));
    } else {
        return fma(dots, set1(x.scales[t]), acc);
    }
}

// What is common to all weights of L rows.
template <Format f>
inline F load_base(const std::uint8_t* group, std::int64_t lane) {
    if constexpr (base_bytes(f) == 4 * kRowGroup)
        return load_f32(reinterpret_cast<const float*>(group) + lane);
    if constexpr (!has_base(f)) return set1(1.0f);
    const F base = load_bf16(reinterpret_cast<const std::uint16_t*>(group) + lane);
    if constexpr (traits(f).scales == Scales::kE3M2Zeros) return mul(base, set1(1.0f / (1 << kE3M2UnitBits)));
    return base;
}

// Results of L rows. Those beyond the matrix in the last group are computed and dropped.
inline F load_rows(const float* out, std::int64_t num_rows) {
    if (num_rows >= kLanes) return load_f32(out);
    float lanes[kLanes] = {};
    for (std::int64_t i = 0; i < num_rows; ++i) lanes[i] = out[i];
    return load_f32(lanes);
}
inline void store_rows(float* out, F value, std::int64_t num_rows) {
    if (num_rows >= kLanes) {
        store(out, value);
        return;
    }
    float lanes[kLanes];
    store(lanes, value);
    for (std::int64_t i = 0; i < num_rows; ++i) out[i] = lanes[i];
}
