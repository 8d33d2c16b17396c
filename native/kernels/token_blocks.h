// Rounds one token to 8 bits for a tile of T, in loops that the compiler vectorises for the instruction set
// of the file that includes them textually, inside its anonymous namespace.

// Adding and subtracting it rounds a float of magnitude below 2^22 to the nearest integer.
constexpr float kRoundingMagic = 12582912.0f;

// The largest magnitude of a block. Magnitudes compare like their bits, and an integer maximum vectorises
// without fast-math.
inline float largest_magnitude(const float* values) {
    std::int32_t largest = 0;
    for (std::int64_t i = 0; i < kBlock; ++i) {
        std::int32_t bits;
        __builtin_memcpy(&bits, values + i, sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return float_of_bits(static_cast<std::uint32_t>(largest));
}

// Token `slot` of a tile of T. Tokens that stand together, so many, have their codes by turns, those of eight
// columns at a time.
template <int T, int together = 1>
void quantize_token(const float* x, std::int64_t cols, std::int64_t slot, TokenBlock<T>* blocks) {
    for (std::int64_t i = 0; i < cols / kBlock; ++i) {
        const float* values = x + i * kBlock;
        TokenBlock<T>& block = blocks[i];
        const float largest = largest_magnitude(values);
        const float scale = largest / 127.0f;
        // A block of subnormals counts as zero: its inverse would be infinite.
        const float inverse = largest > 1e-35f ? 127.0f / largest : 0.0f;
        // In an array of its own: stores of bytes could change anything, which would end vector code.
        std::int32_t codes[kBlock];
        for (std::int64_t j = 0; j < kBlock; ++j) {
            const float shifted = values[j] * inverse + kRoundingMagic;
            __builtin_memcpy(codes + j, &shifted, sizeof shifted);
            codes[j] -= 0x4b400000;  // the bits of kRoundingMagic
        }
        std::int32_t half_sums[2] = {0, 0};
        for (int half : {0, 1}) {
// Left as a loop it becomes vector code.
#pragma GCC unroll 1
            for (std::int64_t j = 0; j < 16; ++j) half_sums[half] += codes[half * 16 + j];
        }
        std::int8_t* const first = block.codes[slot - slot % together] + slot % together * 8;
        for (std::int64_t j = 0; j < kBlock; ++j) {
            first[j / 8 * 8 * together + j % 8] = static_cast<std::int8_t>(codes[j]);
        }
        for (int half : {0, 1}) {
            block.half_sums[half][slot] = scale * static_cast<float>(half_sums[half]);
            block.half_starts_32[half][slot] = -32 * half_sums[half];
        }
        const std::int32_t sum = half_sums[0] + half_sums[1];
        block.scales[slot] = scale;
        block.sums[slot] = scale * static_cast<float>(sum);
        block.starts_128[slot] = -kDot8Zero * sum;
        block.starts_16[slot] = -16 * sum;
    }
}
