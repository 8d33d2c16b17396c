// Sums of VNNI: one dot-product instruction per quad of columns. Included textually after avx512.h.

template <int bits>
struct Sums {
    I sum;

    template <int g>
    void add(I w, const std::int8_t* x) {
        std::int32_t quad;
        __builtin_memcpy(&quad, x, sizeof quad);
        sum = _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(quad));
    }
    I total() const { return sum; }
};
