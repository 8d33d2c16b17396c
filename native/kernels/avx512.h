// Primitives of AVX-512 (F, BW, VL, DQ), as loops.h lists them but for Sums and for what VBMI does in another
// way (vbmi.h, avx512_points.h): 16 rows a vector. Included textually by the files of instruction sets that
// have them, inside their anonymous namespaces.

using F = __m512;
using I = __m512i;
constexpr int kLanes = 16;
constexpr int kMaxTokens = 8;
constexpr int kQueriesAtOnce = 4;  // of attention, and how many of its sums are in registers
constexpr int kSumsAtOnce = 16;
constexpr int kVectorsTogether = 1;
constexpr int kDot8Zero = 128;

using HalvedSums = void;  // shorter vectors gain by them, these lose

struct QuadPair {
    I first, second;
};

inline I set1_i(std::int32_t v) { return _mm512_set1_epi32(v); }
inline I load_codes(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
inline void store_codes(std::uint8_t* p, I v) { _mm512_storeu_si512(p, v); }
inline I and8(I v, int mask) { return _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(mask))); }
inline I or8(I a, I b) { return _mm512_or_si512(a, b); }
inline I xor8(I a, I b) { return _mm512_xor_si512(a, b); }
inline I select8(I a, I b, int mask) {
    return _mm512_ternarylogic_epi32(a, b, _mm512_set1_epi8(static_cast<char>(mask)), 0xd8);
}
template <int n>
inline I shift(I v) {
    if constexpr (n == 0) return v;
    if constexpr (n > 0) return _mm512_slli_epi16(v, n);
    return _mm512_srli_epi16(v, n < 0 ? -n : 0);
}
inline I load_bytes(const std::uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline F to_float(I v) { return _mm512_cvtepi32_ps(v); }
inline F as_float(I v) { return _mm512_castsi512_ps(v); }
struct PathRows {
    I rows, next;  // the rows of each column follow those of the column before

    PathRows(const std::uint8_t* chunk, std::int64_t)
        : rows(load_codes(chunk)), next(_mm512_ror_epi32(rows, 8)) {}
    template <int k>
    I after() const {
        if constexpr (k == 0) return rows;
        return _mm512_alignr_epi32(next, rows, k);
    }
};
template <int n>
inline I shift32(I v) {
    if constexpr (n >= 0) return _mm512_slli_epi32(v, n);
    return _mm512_srli_epi32(v, n < 0 ? -n : 0);
}
inline I max32(I v, int c) { return _mm512_max_epi32(v, _mm512_set1_epi32(c)); }
inline I add32(I v, int c) { return _mm512_add_epi32(v, _mm512_set1_epi32(c)); }
inline I and32(I v, int c) { return _mm512_and_si512(v, _mm512_set1_epi32(c)); }
inline F load_f32(const float* p) { return _mm512_loadu_ps(p); }
inline F load_f16(const std::uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline F load_bf16(const std::uint16_t* p) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return as_float(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
inline F set1(float v) { return _mm512_set1_ps(v); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
inline void store(float* p, F v) { _mm512_storeu_ps(p, v); }
inline void store_f16(std::uint16_t* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline float sum_of(F v) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
// The sums of lanes of queries' products with four keys, sums [4][m], to rows of scores.
template <int m>
inline void store_sums(const F* sums, float* scores, std::int64_t reach) {
    if constexpr (m == 4) {
        // Each addition is one of sum_of's, of two sums or more at a time.
        const auto halves = [](F a, F b) {
            return add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
        };
        const auto quarters = [&](const F* four) {
            const F a = halves(four[0], four[1]), b = halves(four[2], four[3]);
            return add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
        };
        const auto pairs = [](F a, F b) {
            const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
            return add(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),
                       _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
        };
        const F a = pairs(quarters(sums), quarters(sums + 4));
        const F b = pairs(quarters(sums + 8), quarters(sums + 12));
        const F all = add(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
        _mm_storeu_ps(scores, _mm512_castps512_ps128(all));
        _mm_storeu_ps(scores + reach, _mm512_extractf32x4_ps(all, 1));
        _mm_storeu_ps(scores + 2 * reach, _mm512_extractf32x4_ps(all, 2));
        _mm_storeu_ps(scores + 3 * reach, _mm512_extractf32x4_ps(all, 3));
    } else {
        for (int i = 0; i < 4 * m; ++i) scores[i % m * reach + i / m] = sum_of(sums[i]);
    }
}
