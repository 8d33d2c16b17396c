// What VBMI does better than the rest of AVX-512 does (avx512_points.h): nibbles and tables. Included
// textually after avx512.h by the files of instruction sets that have it.

struct alignas(kChunk) Bytes {
    std::uint8_t at[kChunk];
    operator I() const { return _mm512_load_si512(at); }
};

inline I load_nibbles(const std::uint8_t* p, std::int64_t) {
    static constexpr Bytes kFirstBits = [] {
        Bytes bits = {};
        for (int row = 0; row < kRowGroup; ++row) {
            bits.at[4 * row] = static_cast<std::uint8_t>(row % 8 * 8 + row / 8 * 4);
        }
        return bits;
    }();
    std::int64_t nibbles;
    __builtin_memcpy(&nibbles, p, sizeof nibbles);
    const I shifted = _mm512_multishift_epi64_epi8(kFirstBits, _mm512_set1_epi64(nibbles));
    return _mm512_and_si512(shifted, _mm512_set1_epi32(15));
}
inline I look_up(const std::uint8_t* table, I codes) {
    const __m128i entries = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_permutexvar_epi8(codes, _mm512_broadcast_i32x4(entries));
}
