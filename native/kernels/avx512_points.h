// What AVX-512 has instead of vbmi.h: nibbles, tables of 16 bytes, and points of grids as grid_quads.h
// expects them. Included textually after avx512.h.

inline I load_nibbles(const std::uint8_t* p, std::int64_t) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    const __m128i both = _mm_unpacklo_epi64(bytes, _mm_srli_epi16(bytes, 4));
    return _mm512_cvtepu8_epi32(_mm_and_si128(both, _mm_set1_epi8(15)));
}
inline I look_up(const std::uint8_t* table, I codes) {
    const __m128i entries = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(entries), and8(codes, 15));
}

// Single loads take the time of gathers here, and much less where those are held up for safety's sake.
inline __m256i four_points(const std::uint64_t* points, const std::uint32_t* a, const std::uint32_t* b) {
    const auto two = [=](const std::uint32_t* n) {
        const __m128d first = _mm_load_sd(reinterpret_cast<const double*>(points + n[0]));
        return _mm_castpd_si128(_mm_loadh_pd(first, reinterpret_cast<const double*>(points + n[1])));
    };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(two(a)), two(b), 1);
}
inline QuadPair look_up_points(const std::uint64_t* points, I numbers) {
    alignas(64) std::uint32_t n[16];
    _mm512_store_si512(n, numbers);
    const auto eight = [&](int i) {
        const I low = _mm512_castsi256_si512(four_points(points, n + i, n + i + 4));
        return _mm512_castsi512_ps(_mm512_inserti64x4(low, four_points(points, n + i + 8, n + i + 12), 1));
    };
    const F first = eight(0), last = eight(2);  // rows 0, 1, 4, 5 ... and 2, 3, 6, 7 ...
    return {_mm512_castps_si512(_mm512_shuffle_ps(first, last, 0x88)),
            _mm512_castps_si512(_mm512_shuffle_ps(first, last, 0xdd))};
}
inline I look_up_points(const std::uint32_t* points, I numbers) {
    alignas(64) std::uint32_t n[16];
    _mm512_store_si512(n, numbers);
    const auto four = [&](int i) {
        __m128i rows = _mm_cvtsi32_si128(static_cast<int>(points[n[i]]));
        rows = _mm_insert_epi32(rows, static_cast<int>(points[n[i + 1]]), 1);
        rows = _mm_insert_epi32(rows, static_cast<int>(points[n[i + 2]]), 2);
        return _mm_insert_epi32(rows, static_cast<int>(points[n[i + 3]]), 3);
    };
    const auto eight = [&](int i) {
        return _mm256_inserti128_si256(_mm256_castsi128_si256(four(i)), four(i + 4), 1);
    };
    return _mm512_inserti64x4(_mm512_castsi256_si512(eight(0)), eight(8), 1);
}
inline I negate_where(I v, I signs, int twice) {
    return _mm512_mask_sub_epi8(v, _mm512_movepi8_mask(signs), _mm512_set1_epi8(static_cast<char>(twice)), v);
}
