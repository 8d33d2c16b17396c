// Primitives of AVX-512 (F, BW, VL, DQ), as loops.h lists them but for Sums: 16 rows a vector. Included
// textually by the files of instruction sets that have them, inside their anonymous namespaces.

using F = __m512;
using I = __m512i;
constexpr int kLanes = 16;
constexpr int kMaxTokens = 8;
constexpr int kVectorsTogether = 1;
constexpr int kDot8Zero = 128;

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
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(static_cast<char>(mask)), b, a, 0xca);
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
// L 4-bit numbers of rows [lane, lane + L) from 8 bytes.
inline I load_nibbles(const std::uint8_t* p, std::int64_t) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i both = _mm_unpacklo_epi64(bytes, _mm_srli_epi16(bytes, 4));
    return _mm512_cvtepu8_epi32(_mm_and_si128(both, _mm_set1_epi8(15)));
}
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
inline I look_up(const std::uint8_t* table, I codes) {
    const __m128i entries = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), codes);
}
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
inline float sum_of(F v) { return _mm512_reduce_add_ps(v); }
