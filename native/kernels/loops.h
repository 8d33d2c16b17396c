// The loop nests shared by all vector instruction sets. Included textually by avx2.cpp, avx512.cpp and
// neon.cpp, inside their anonymous namespace and after their primitives; so nothing here has external
// linkage and no wide instruction can leak into another object.
//
// Primitives expected (L = kLanes rows at a time, kLanes divides 16):
// clang-format off
//   F, I                        vectors of L floats, of L int32 or 4 L bytes
//   load_codes(p)               4 L bytes
//   and8(v, mask), or8(a, b)    byte-wise
//   shift<n>(v)                 16-bit lanes left by n, or right by -n; what crosses bytes is masked after
//   Sums<f>{sum}                running dot products of codes of f, from sum [L] on; add<g>(w, x) adds
//                               sum_j w[4 l + j] * x[j], quad g after g - 1, at most 8 quads; total() is int32 [L]
//   kDot8Zero                   zero of 8-bit codes as these take them: 128, or 0 where they make them signed
//   load_bytes(p)               L bytes, zero-extended to int32
//   set1_i(c), to_float(v), as_float(v), shift32<n>(v), add32(v, c), and32(v, c)
//   load_f32(p), load_f16(p), load_bf16(p), set1(c), mul(a, b), add(a, b), store(p, v)
//   fma(a, b, c), fnma(a, b, c) a b + c, c - a b
//   kMaxTokens                  tokens that share one unpacking (4 or 8), by the number of registers
// clang-format on

inline F scale_e4m4(I code) { return as_float(add32(shift32<19>(code), (127 - kBiasE4M4) << 23)); }

// Scale of 16 columns: of q2 and q3 it is in the upper five bits, the zero in the lower three.
template <Format f>
inline F half_scale(I packed) {
    if constexpr (f == Format::kQ6) return scale_e4m4(packed);
    return as_float(add32(shift32<18>(and32(packed, 0xf8)), (127 - kBiasE3M2) << 23));
}

// How far single-token products read ahead of themselves: the hardware's own prefetch stops at every page
// of 4 KiB, which is a few blocks away. 2 to 10 KiB do equally well; without it 2 to 6 bits run at half the
// speed.
constexpr std::int64_t kPrefetchBytes = 3072;

template <Format f, int g>
inline I unpack_quad(const std::uint8_t* codes) {
    if constexpr (f == Format::kQ8) {
        return load_codes(codes + g * kChunk);
    } else if constexpr (f == Format::kQ2) {
        return and8(shift<-2 * (g % 4)>(load_codes(codes + g / 4 * kChunk)), 3);
    } else if constexpr (f == Format::kQ4) {
        return and8(shift<(g < 4 ? 0 : -4)>(load_codes(codes + g % 4 * kChunk)), 15);
    } else if constexpr (f == Format::kQ3) {
        const I high = and8(shift<2 - g>(load_codes(codes + 2 * kChunk)), 4);
        return or8(unpack_quad<Format::kQ2, g>(codes), high);
    } else {
        const I high = and8(shift<4 - 2 * (g % 4)>(load_codes(codes + (4 + g / 4) * kChunk)), 48);
        return or8(unpack_quad<Format::kQ4, g>(codes), high);
    }
}

template <Format f, int T, int g_begin, int g_end>
inline void add_quads(const std::uint8_t* codes, const TokenBlock<T>& x, Sums<f> (&sums)[T]) {
    if constexpr (g_begin < g_end) {
        const I w = unpack_quad<f, g_begin>(codes);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sums[t].template add<g_begin>(w, x.codes[t] + g_begin * kQuad);
        add_quads<f, T, g_begin + 1, g_end>(codes, x, sums);
    }
}

// Adds the products of quads [g_begin, g_end).
template <Format f, int T, int g_begin, int g_end>
inline void dot_quads(const std::uint8_t* codes, const TokenBlock<T>& x, I (&sum)[T]) {
    Sums<f> sums[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sums[t] = {sum[t]};
    add_quads<f, T, g_begin, g_end>(codes, x, sums);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sum[t] = sums[t].total();
}

// The formats with a scale for every 16 columns.
template <Format f, int T>
inline void accumulate_halves(const std::uint8_t* codes, const std::uint8_t* scales, const TokenBlock<T>& x,
                              F (&acc)[T]) {
    constexpr bool kHasZeros = f != Format::kQ6;
    const I bytes[2] = {load_bytes(scales), load_bytes(scales + kRowGroup)};
    I sum[T];
    F product[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sum[t] = set1_i(kHasZeros ? 0 : x.starts_q6[0][t]);
    dot_quads<f, T, 0, 4>(codes, x, sum);
    const F first = half_scale<f>(bytes[0]), second = half_scale<f>(bytes[1]);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        product[t] = mul(first, to_float(sum[t]));
        sum[t] = set1_i(kHasZeros ? 0 : x.starts_q6[1][t]);
    }
    dot_quads<f, T, 4, 8>(codes, x, sum);
    if constexpr (kHasZeros) {
        const F step = set1(kZeroStepQ23), offset = set1(first_zero(f));
        const F zeros[2] = {mul(first, fma(to_float(and32(bytes[0], 7)), step, offset)),
                            mul(second, fma(to_float(and32(bytes[1], 7)), step, offset))};
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const F dots = mul(fma(second, to_float(sum[t]), product[t]), set1(x.scales[t]));
            const F part = fnma(zeros[0], set1(x.half_sums[0][t]), dots);
            acc[t] = add(acc[t], fnma(zeros[1], set1(x.half_sums[1][t]), part));
        }
    } else {
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            acc[t] = fma(fma(second, to_float(sum[t]), product[t]), set1(x.scales[t]), acc[t]);
        }
    }
}

// Adds the product of one block: scale * (scale of x * sum(code x) - zero * sum(x)). Zeros that are the same
// everywhere (q6, q8) are in what the integer sums begin at.
template <Format f, int T>
inline void accumulate_block(const std::uint8_t* codes, const std::uint8_t* scales, const TokenBlock<T>& x,
                             F (&acc)[T]) {
    I sum[T];
    if constexpr (f == Format::kQ8) {
        const F scale = load_f16(reinterpret_cast<const std::uint16_t*>(scales));
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sum[t] = set1_i(x.starts_q8[t]);
        dot_quads<f, T, 0, 8>(codes, x, sum);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            acc[t] = fma(scale, mul(to_float(sum[t]), set1(x.scales[t])), acc[t]);
        }
    } else if constexpr (f == Format::kQ4) {
        const F scale = scale_e4m4(load_bytes(scales));
        const F zero = mul(to_float(load_bytes(scales + kRowGroup)), set1(kZeroStepQ4));
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) sum[t] = set1_i(0);
        dot_quads<f, T, 0, 8>(codes, x, sum);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const F dots = mul(to_float(sum[t]), set1(x.scales[t]));
            acc[t] = fma(scale, fnma(zero, set1(x.sums[t]), dots), acc[t]);
        }
    } else {
        accumulate_halves<f, T>(codes, scales, x, acc);
    }
}

// Tokens [first, first + count) of the activations, and where their results go.
struct TokenRange {
    std::int64_t first, count;
    float* out;
    std::int64_t stride;
};

// Rows beyond the matrix in the last group are computed and dropped.
inline void store_rows(float* out, F value, std::int64_t num_rows) {
    if (num_rows >= kLanes) {
        store(out, value);
        return;
    }
    float lanes[kLanes];
    store(lanes, value);
    for (std::int64_t i = 0; i < num_rows; ++i) out[i] = lanes[i];
}

// Asks for as many bytes as one block takes, scales included, so that the requests run through a matrix
// without gaps; beyond its end they are harmless.
template <Format f>
inline void prefetch_ahead(const std::uint8_t* codes, std::int64_t block) {
    constexpr std::int64_t kBytes = block_code_bytes(f) + kScaleBytes;
    const std::uint8_t* next = codes + block * kBytes + kPrefetchBytes;
    for (std::int64_t i = 0; i < kBytes; i += kAlignment) __builtin_prefetch(next + i);
}

// V vectors of rows from `lane` on: their part of a block is read at once.
template <Format f, int T, int V>
void low_bit_rows(const std::uint8_t* group, std::int64_t lane, const Activations& x, const TokenRange& range,
                  std::int64_t num_rows) {
    const std::int64_t cols = x.cols;
    const auto* tokens =
        reinterpret_cast<const TokenBlock<T>*>(x.blocks + range.first * (cols / kBlock) * kTokenBlockBytes);
    const std::uint8_t* scales = group + (has_base(f) ? 2 * kRowGroup : 0);
    // f16 scales of q8 take two bytes a row, the others one.
    constexpr int kRowScaleBytes = f == Format::kQ8 ? 2 : 1;
    scales += lane * kRowScaleBytes;
    const std::uint8_t* codes = group + group_header_bytes(f, cols) + lane * kQuad;
    F acc[V][T];
    for (auto& vector : acc) {
        for (F& sum : vector) sum = set1(0.0f);
    }
    for (std::int64_t block = 0; block < cols / kBlock; ++block) {
        if (T == 1) prefetch_ahead<f>(codes, block);
        const std::uint8_t* block_codes = codes + block * block_code_bytes(f);
        const std::uint8_t* block_scales = scales + block * kScaleBytes;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            accumulate_block<f, T>(block_codes + v * kLanes * kQuad,
                                   block_scales + v * kLanes * kRowScaleBytes, tokens[block], acc[v]);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
        const std::int64_t row = v * kLanes;
        if (num_rows <= row) break;
        const auto* bases = reinterpret_cast<const std::uint16_t*>(group) + lane + row;
        const F base = has_base(f) ? load_bf16(bases) : set1(1.0f);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            // The tokens that an unfilled tile lacks are computed and dropped.
            float* const out = range.out + t * range.stride + row;
            if (t < range.count) store_rows(out, mul(acc[v][t], base), num_rows - row);
        }
    }
}

template <Format f>
inline F load_values(const std::uint8_t* p) {
    if constexpr (f == Format::kF32) return load_f32(reinterpret_cast<const float*>(p));
    if constexpr (f == Format::kF16) return load_f16(reinterpret_cast<const std::uint16_t*>(p));
    return load_bf16(reinterpret_cast<const std::uint16_t*>(p));
}

template <Format f, int T>
void float_rows(const std::uint8_t* group, std::int64_t lane, const Activations& x, const TokenRange& range,
                std::int64_t num_rows) {
    constexpr std::int64_t kBytes = code_bits(f) / 8;
    constexpr int kChains = 4;  // hides the latency of fused multiply-add for a single token
    const float* values = x.values + range.first * x.cols;
    group += lane * kBytes;
    F acc[T][kChains];
    for (auto& chains : acc) {
        for (F& chain : chains) chain = set1(0.0f);
    }
    for (std::int64_t m = 0; m < x.cols; m += kChains) {
#pragma GCC unroll 4
        for (int c = 0; c < kChains; ++c) {
            const F w = load_values<f>(group + (m + c) * kRowGroup * kBytes);
#pragma GCC unroll 4
            for (int t = 0; t < T; ++t) acc[t][c] = fma(w, set1(values[t * x.cols + m + c]), acc[t][c]);
        }
    }
    for (int t = 0; t < T; ++t) {
        const F sum = add(add(acc[t][0], acc[t][1]), add(acc[t][2], acc[t][3]));
        store_rows(range.out + t * range.stride, sum, num_rows);
    }
}

// Rows of a group that are computed together: all of them for a single token, which reads the weights from
// memory, else as many as leave registers for the tokens.
template <Format f, int T>
constexpr std::int64_t kRowsAtOnce = is_low_bit(f) && T == 1 ? kRowGroup : kLanes;

template <Format f, int T>
inline void multiply_rows(const std::uint8_t* group, std::int64_t lane, const Activations& x,
                          const TokenRange& range, std::int64_t num_rows) {
    if constexpr (is_low_bit(f)) {
        low_bit_rows<f, T, kRowsAtOnce<f, T> / kLanes>(group, lane, x, range, num_rows);
    } else {
        float_rows<f, T>(group, lane, x, range, num_rows);
    }
}

// Tokens [begin, end), T at a time, by the rows of group g.
template <Format f, int T>
void multiply_group(const Matrix& w, std::int64_t g, const Activations& x, std::int64_t begin,
                    std::int64_t end, float* out, std::int64_t stride) {
    const std::uint8_t* group = w.packed + g * group_bytes(f, w.cols);
    for (std::int64_t lane = 0; lane < kRowGroup; lane += kRowsAtOnce<f, T>) {
        const std::int64_t row = g * kRowGroup + lane, num_rows = w.rows - row;
        if (num_rows <= 0) break;
        for (std::int64_t t = begin; t < end; t += T) {
            const std::int64_t left = end - t, count = left < T ? left : T;
            multiply_rows<f, T>(group, lane, x, {t, count, out + t * stride + row, stride}, num_rows);
        }
    }
}

template <Format f>
void matmul_of(const Matrix& w, const Activations& x, std::int64_t group_begin, std::int64_t group_end,
               float* out, std::int64_t stride) {
    constexpr int kTokens = is_low_bit(f) ? kMaxTokens : 4;
    const std::int64_t num_tiled = is_low_bit(f) ? num_tiled_tokens(x) : x.num_tokens / kTokens * kTokens;
    for (std::int64_t g = group_begin; g < group_end; ++g) {
        multiply_group<f, kTokens>(w, g, x, 0, num_tiled, out, stride);
        multiply_group<f, 1>(w, g, x, num_tiled, x.num_tokens, out, stride);
    }
}

void matmul(const Matrix& w, const Activations& x, std::int64_t begin, std::int64_t end, float* out,
            std::int64_t stride) {
    switch (w.format) {
        case Format::kQ2:
            return matmul_of<Format::kQ2>(w, x, begin, end, out, stride);
        case Format::kQ3:
            return matmul_of<Format::kQ3>(w, x, begin, end, out, stride);
        case Format::kQ4:
            return matmul_of<Format::kQ4>(w, x, begin, end, out, stride);
        case Format::kQ6:
            return matmul_of<Format::kQ6>(w, x, begin, end, out, stride);
        case Format::kQ8:
            return matmul_of<Format::kQ8>(w, x, begin, end, out, stride);
        case Format::kBf16:
            return matmul_of<Format::kBf16>(w, x, begin, end, out, stride);
        case Format::kF16:
            return matmul_of<Format::kF16>(w, x, begin, end, out, stride);
        case Format::kF32:
            return matmul_of<Format::kF32>(w, x, begin, end, out, stride);
    }
}
