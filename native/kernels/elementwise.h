// Quantising activations and applying activation functions: plain loops that the compiler vectorises for
// the instruction set of the file that includes them textually, inside its anonymous namespace.

// Adding and subtracting it rounds a float of magnitude below 2^22 to the nearest integer.
constexpr float kRoundingMagic = 12582912.0f;

void quantize_rows(const float* x, std::int64_t cols, std::int64_t begin, std::int64_t end,
                   std::int8_t* codes, float* scales, float* sums) {
    for (std::int64_t block = begin * cols / kBlock; block < end * cols / kBlock; ++block) {
        const float* values = x + block * kBlock;
        // Magnitudes compare like their bits, and an integer maximum vectorises without fast-math.
        std::int32_t largest_bits = 0;
        for (std::int64_t i = 0; i < kBlock; ++i) {
            std::int32_t bits;
            __builtin_memcpy(&bits, values + i, sizeof bits);
            bits &= 0x7fffffff;
            largest_bits = bits > largest_bits ? bits : largest_bits;
        }
        const float largest = float_of_bits(static_cast<std::uint32_t>(largest_bits));
        const float scale = largest / 127.0f;
        // A block of subnormals counts as zero: its inverse would be infinite.
        const float inverse = largest > 1e-35f ? 127.0f / largest : 0.0f;
        for (std::int64_t half = 0; half < 2; ++half) {
            std::int32_t sum = 0;
            for (std::int64_t i = half * 16; i < half * 16 + 16; ++i) {
                const float shifted = values[i] * inverse + kRoundingMagic;
                std::int32_t code;
                __builtin_memcpy(&code, &shifted, sizeof code);
                code -= 0x4b400000;  // the bits of kRoundingMagic
                codes[block * kBlock + i] = static_cast<std::int8_t>(code);
                sum += code;
            }
            sums[2 * block + half] = scale * static_cast<float>(sum);
        }
        scales[block] = scale;
    }
}

// Relative error below 2e-7 on [-87, 88], clamped outside.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float n = x * 1.44269504f + kRoundingMagic - kRoundingMagic;
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts, n * first is exact
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const std::int32_t bits = (static_cast<std::int32_t>(n) + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, sizeof power);
    return p * power;
}

void activate(Activation activation, float* gate, const float* up, std::int64_t n) {
    switch (activation) {
        case Activation::kSilu:
            for (std::int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + exponential(-gate[i]));
            break;
        case Activation::kGelu:
            for (std::int64_t i = 0; i < n; ++i) {
                gate[i] = 0.5f * gate[i] * (1.0f + __builtin_erff(gate[i] * 0.70710678f));
            }
            break;
        case Activation::kRelu:
            for (std::int64_t i = 0; i < n; ++i) gate[i] = gate[i] > 0.0f ? gate[i] : 0.0f;
            break;
    }
    if (up == nullptr) return;
    for (std::int64_t i = 0; i < n; ++i) gate[i] *= up[i];
}
