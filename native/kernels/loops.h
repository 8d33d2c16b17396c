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
//   look_up(table, v)           table[byte] of 16 bytes, byte-wise
//   Sums<bits>{sum}             running dot products of values of so many bits, from sum [L] on; add<g>(w, x) adds
//                               sum_j w[4 l + j] * x[j], quad g after g - 1, 4 or 8 quads; total() is int32 [L]
//   kDot8Zero                   zero of 8-bit values as these take them: 128, or 0 where they make them signed
//   xor8(a, b)                  byte-wise
//   select8(a, b, mask)         the bits of b where the mask of each byte has ones, else those of a
//   PathRows(chunk, lane)       4 L bytes of rows [lane, lane + L) of a chunk; after<k>() is what cycles of quads
//                               (trellis.h) have k places further, for k of 0, 1, 2, 4 and 6
//   load_bytes(p)               L bytes, zero-extended to int32
//   load_nibbles(p, lane)       nibbles of rows [lane, lane + L) of 8 bytes, row r low and r + 8 high
//   set1_i(c), to_float(v), as_float(v), shift32<n>(v), add32(v, c), and32(v, c), max32(v, c)
//   load_f32(p), load_f16(p), load_bf16(p), set1(c), mul(a, b), add(a, b), store(p, v)
//   fma(a, b, c), fnma(a, b, c) a b + c, c - a b
//   has_kernels_of(f)           whether it has its own for a format; else matmul() is not called for it
//   kMaxTokens                  tokens that share one unpacking (4 or 8), by the number of registers
// clang-format on

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

// How far single-token products read ahead of themselves: the hardware's own prefetch stops at every page
// of 4 KiB, which is a few blocks away. 2 to 10 KiB do equally well; without it 2 to 6 bits run at half the
// speed.
constexpr std::int64_t kPrefetchBytes = 3072;

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

template <Format f, int T, int g>
inline void add_quad(I w, const TokenBlock<T>& x, Sums<value_bits(f)> (&sums)[T]) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sums[t].template add<g>(w, x.codes[t] + g * kQuad);
}

template <Format f, int T, int g_begin, int g_end>
inline void add_quads(const Block<f>& block, const TokenBlock<T>& x, Sums<value_bits(f)> (&sums)[T]) {
    if constexpr (g_begin < g_end) {
        if constexpr (has_grid(f)) {
            const auto [first, second] = block.template quads<g_begin>();
            add_quad<f, T, g_begin>(first, x, sums);
            add_quad<f, T, g_begin + 1>(second, x, sums);
        } else {
            add_quad<f, T, g_begin>(block.template quad<g_begin>(), x, sums);
            add_quad<f, T, g_begin + 1>(block.template quad<g_begin + 1>(), x, sums);
        }
        add_quads<f, T, g_begin + 2, g_end>(block, x, sums);
    }
}

// Adds the products of quads [g_begin, g_end).
template <Format f, int T, int g_begin, int g_end>
inline void dot_quads(const Block<f>& block, const TokenBlock<T>& x, I (&sum)[T]) {
    Sums<value_bits(f)> sums[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sums[t].sum = sum[t];
    add_quads<f, T, g_begin, g_end>(block, x, sums);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sum[t] = sums[t].total();
}

template <Format f, int T>
inline void accumulate_halves(const std::uint8_t* codes, const ScalePlace& place, const TokenBlock<T>& x,
                              F (&acc)[T]) {
    const Block<f> block{codes, place};
    I sum[T];
    F product[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sum[t] = set1_i(start_of_half<f>(x, 0, t));
    dot_quads<f, T, 0, 4>(block, x, sum);
    const auto [scale, minimum] = half_scales<f>(place);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        product[t] = mul(scale[0], to_float(sum[t]));
        sum[t] = set1_i(start_of_half<f>(x, 1, t));
    }
    dot_quads<f, T, 4, 8>(block, x, sum);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
        const F dots = fma(scale[1], to_float(sum[t]), product[t]);
        if constexpr (has_minimum(f)) {
            const F part = fnma(minimum[0], set1(x.half_sums[0][t]), mul(dots, set1(x.scales[t])));
            acc[t] = add(acc[t], fnma(minimum[1], set1(x.half_sums[1][t]), part));
        } else {
            acc[t] = fma(dots, set1(x.scales[t]), acc[t]);
        }
    }
}

// Adds the product of one block: scale * scale of x * sum(value x) - minimum * sum(x). Zeros that are the
// same everywhere are in what the integer sums begin at; those of q4 are scaled together with its products.
template <Format f, int T>
inline void accumulate_whole(const std::uint8_t* codes, const ScalePlace& place, const TokenBlock<T>& x,
                             F (&acc)[T]) {
    const Block<f> block{codes, place};
    I sum[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sum[t] = set1_i(start_of_block<f>(x, t));
    if constexpr (f == Format::kQ4) {
        const F scale = scale_e4m4(load_bytes(place.block + place.lane));
        const F zero = mul(to_float(load_bytes(place.block + kRowGroup + place.lane)), set1(kZeroStepQ4));
        dot_quads<f, T, 0, 8>(block, x, sum);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            const F dots = mul(to_float(sum[t]), set1(x.scales[t]));
            acc[t] = fma(scale, fnma(zero, set1(x.sums[t]), dots), acc[t]);
        }
    } else {
        const auto [scale, minimum] = whole_scale<f>(place);
        dot_quads<f, T, 0, 8>(block, x, sum);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
            if constexpr (has_minimum(f)) acc[t] = fnma(minimum, set1(x.sums[t]), acc[t]);
            acc[t] = fma(scale, mul(to_float(sum[t]), set1(x.scales[t])), acc[t]);
        }
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
    constexpr std::int64_t kBytes =
        block_code_bytes(f) + block_scale_bytes(f) + shared_scale_bytes(f) / kSuperBlocks;
    const std::uint8_t* next = codes + block * kBytes + kPrefetchBytes;
    for (std::int64_t i = 0; i < kBytes; i += kAlignment) __builtin_prefetch(next + i);
}

// What is common to all weights of L rows.
template <Format f>
inline F load_base(const std::uint8_t* group, std::int64_t lane) {
    if constexpr (base_bytes(f) == 4 * kRowGroup)
        return load_f32(reinterpret_cast<const float*>(group) + lane);
    if constexpr (has_base(f)) return load_bf16(reinterpret_cast<const std::uint16_t*>(group) + lane);
    return set1(1.0f);
}

// V vectors of rows from `lane` on: their part of a block is read at once.
template <Format f, int T, int V>
void low_bit_rows(const std::uint8_t* group, std::int64_t lane, const Activations& x, const TokenRange& range,
                  std::int64_t num_rows) {
    const std::int64_t cols = x.cols;
    const auto* tokens =
        reinterpret_cast<const TokenBlock<T>*>(x.blocks + range.first * (cols / kBlock) * kTokenBlockBytes);
    const std::uint8_t* codes = group + group_header_bytes(f, cols) + lane * kQuad;
    F acc[V][T];
    for (auto& vector : acc) {
        for (F& sum : vector) sum = set1(0.0f);
    }
    for (std::int64_t block = 0; block < cols / kBlock; ++block) {
        if (T == 1) prefetch_ahead<f>(codes, block);
        const std::uint8_t* block_codes = codes + block * block_code_bytes(f);
        const std::uint8_t* shared = group + shared_scale_offset(f, block);
        const std::uint8_t* scales = group + block_scale_offset(f, block);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            const ScalePlace place = {shared, scales,
                                      V * kLanes == kRowGroup ? v * kLanes : lane + v * kLanes};
            const std::uint8_t* part = block_codes + v * kLanes * kQuad;
            if constexpr (has_half_scales(f)) {
                accumulate_halves<f, T>(part, place, tokens[block], acc[v]);
            } else {
                accumulate_whole<f, T>(part, place, tokens[block], acc[v]);
            }
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
        const std::int64_t row = v * kLanes;
        if (num_rows <= row) break;
        const F base = load_base<f>(group, lane + row);
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

using MatmulOfFormat = void(const Matrix&, const Activations&, std::int64_t, std::int64_t, float*,
                            std::int64_t);
template <Format f>
constexpr MatmulOfFormat* kernel_of() {
    if constexpr (has_kernels_of(f)) return matmul_of<f>;
    return nullptr;
}
template <typename Numbers>
struct MatmulTable;
template <int... f>
struct MatmulTable<std::integer_sequence<int, f...>> {
    static constexpr MatmulOfFormat* kEntries[] = {kernel_of<static_cast<Format>(f)>()...};
};

void matmul(const Matrix& w, const Activations& x, std::int64_t begin, std::int64_t end, float* out,
            std::int64_t stride) {
    using Table = MatmulTable<std::make_integer_sequence<int, kNumFormats>>;
    Table::kEntries[static_cast<int>(w.format)](w, x, begin, end, out, stride);
}
