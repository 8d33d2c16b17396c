// Primitives of AVX2 with FMA and F16C, as loops.h lists them but for Sums: 8 rows a vector. Included
// textually by the files of instruction sets that have them, inside their anonymous namespaces.

using F = __m256;
using I = __m256i;
constexpr int kLanes = 8;
constexpr int kMaxTokens = 4;
constexpr int kQueriesAtOnce = 2;  // of attention, and how many of its sums are in registers
constexpr int kSumsAtOnce = 8;
constexpr int kDot8Zero = 128;

struct QuadPair {
    I first, second;
};

inline I set1_i(std::int32_t v) { return _mm256_set1_epi32(v); }
inline I load_codes(const std::uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
inline void store_codes(std::uint8_t* p, I v) { _mm256_storeu_si256(reinterpret_cast<I*>(p), v); }
inline I and8(I v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi8(static_cast<char>(mask))); }
inline I or8(I a, I b) { return _mm256_or_si256(a, b); }
inline I xor8(I a, I b) { return _mm256_xor_si256(a, b); }
inline I select8(I a, I b, int mask) { return or8(and8(a, ~mask), and8(b, mask)); }
template <int n>
inline I shift(I v) {
    if constexpr (n == 0) return v;
    if constexpr (n > 0) return _mm256_slli_epi16(v, n);
    return _mm256_srli_epi16(v, n < 0 ? -n : 0);
}
inline I load_bytes(const std::uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline F to_float(I v) { return _mm256_cvtepi32_ps(v); }
inline I to_int(F v) { return _mm256_cvtps_epi32(v); }
inline F as_float(I v) { return _mm256_castsi256_ps(v); }
// L 4-bit numbers of rows [lane, lane + L) from 8 bytes.
inline I load_nibbles(const std::uint8_t* p, std::int64_t lane) {
    const I bytes = _mm256_srl_epi32(load_bytes(p), _mm_cvtsi32_si128(lane < 8 ? 0 : 4));
    return _mm256_and_si256(bytes, _mm256_set1_epi32(15));
}
struct PathRows {
    I rows, middle, next;

    PathRows(const std::uint8_t* chunk, std::int64_t lane) : rows(load_codes(chunk + lane * kQuad)) {
        const I others = load_codes(chunk + (lane ^ kLanes) * kQuad);
        // After the last row of a column comes the first one of the next.
        next = lane == 0 ? others : or8(_mm256_srli_epi32(others, 8), _mm256_slli_epi32(others, 24));
        middle = _mm256_permute2x128_si256(rows, next, 0x21);
    }
    template <int k>
    I after() const {
        if constexpr (k == 0) return rows;
        if constexpr (k < 4) return _mm256_alignr_epi8(middle, rows, 4 * k % 16);
        if constexpr (k == 4) return middle;
        return _mm256_alignr_epi8(next, middle, 4 * (k - 4) & 15);
    }
};
inline I look_up(const std::uint8_t* table, I codes) {
    const __m128i entries = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), and8(codes, 15));
}
// Loads one by one: gathers are slow on many processors that have nothing wider.
inline QuadPair look_up_points(const std::uint64_t* points, I numbers) {
    alignas(32) std::uint32_t n[8];
    _mm256_store_si256(reinterpret_cast<I*>(n), numbers);
    const auto two = [&](int i) {
        const __m128d first = _mm_load_sd(reinterpret_cast<const double*>(points + n[i]));
        return _mm_castpd_si128(_mm_loadh_pd(first, reinterpret_cast<const double*>(points + n[i + 1])));
    };
    const auto four = [&](int i) {
        return _mm256_castsi256_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(two(i)), two(i + 4), 1));
    };
    const F first = four(0), last = four(2);  // rows 0, 1, 4, 5 and 2, 3, 6, 7
    return {_mm256_castps_si256(_mm256_shuffle_ps(first, last, 0x88)),
            _mm256_castps_si256(_mm256_shuffle_ps(first, last, 0xdd))};
}
inline I look_up_points(const std::uint32_t* points, I numbers) {
    alignas(32) std::uint32_t n[8];
    _mm256_store_si256(reinterpret_cast<I*>(n), numbers);
    const auto four = [&](int i) {
        __m128i rows = _mm_cvtsi32_si128(static_cast<int>(points[n[i]]));
        rows = _mm_insert_epi32(rows, static_cast<int>(points[n[i + 1]]), 1);
        rows = _mm_insert_epi32(rows, static_cast<int>(points[n[i + 2]]), 2);
        return _mm_insert_epi32(rows, static_cast<int>(points[n[i + 3]]), 3);
    };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(four(0)), four(4), 1);
}
inline I negate_where(I v, I signs, int twice) {
    return _mm256_blendv_epi8(v, _mm256_sub_epi8(_mm256_set1_epi8(static_cast<char>(twice)), v), signs);
}
template <int n>
inline I shift32(I v) {
    if constexpr (n >= 0) return _mm256_slli_epi32(v, n);
    return _mm256_srli_epi32(v, n < 0 ? -n : 0);
}
inline I max32(I v, int c) { return _mm256_max_epi32(v, _mm256_set1_epi32(c)); }
inline I add32(I v, int c) { return _mm256_add_epi32(v, _mm256_set1_epi32(c)); }
inline I and32(I v, int c) { return _mm256_and_si256(v, _mm256_set1_epi32(c)); }
inline I add_lanes(I a, I b) { return _mm256_add_epi32(a, b); }
inline I multiply_words(I a, I b) { return _mm256_madd_epi16(a, b); }
inline F load_f32(const float* p) { return _mm256_loadu_ps(p); }
inline F load_f16(const std::uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline F load_bf16(const std::uint16_t* p) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return as_float(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
inline F set1(float v) { return _mm256_set1_ps(v); }
inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F add(F a, F b) { return _mm256_add_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
inline void store(float* p, F v) { _mm256_storeu_ps(p, v); }
inline void store_f16(std::uint16_t* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
inline float sum_of(F v) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
// The sums of lanes of queries' products with four keys, sums [4][m], to rows of scores.
template <int m>
inline void store_sums(const F* sums, float* scores, std::int64_t reach) {
    if constexpr (m == 2) {
        // Each addition is one of sum_of's, of two sums or more at a time.
        const auto halves = [](F a, F b) {
            return add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
        };
        const auto pairs = [](F a, F b) {
            const __m256d c = _mm256_castps_pd(a), d = _mm256_castps_pd(b);
            return add(_mm256_castpd_ps(_mm256_unpacklo_pd(c, d)),
                       _mm256_castpd_ps(_mm256_unpackhi_pd(c, d)));
        };
        const F a = pairs(halves(sums[0], sums[1]), halves(sums[2], sums[3]));
        const F b = pairs(halves(sums[4], sums[5]), halves(sums[6], sums[7]));
        const F all = add(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
        _mm_storeu_ps(scores, _mm256_castps256_ps128(all));
        _mm_storeu_ps(scores + reach, _mm256_extractf128_ps(all, 1));
    } else {
        for (int i = 0; i < 4 * m; ++i) scores[i % m * reach + i / m] = sum_of(sums[i]);
    }
}
