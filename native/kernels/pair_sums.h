// Sums of byte products where an instruction multiplies bytes and adds pairs of products in 16 bits, which
// hold as many of those as the values allow. Included textually, as loops.h is, before it. Primitives
// expected beyond those that loops.h lists:
// clang-format off
//   multiply_pairs(w, x)         w[2 i] * x[2 i % 4] + w[2 i + 1] * x[(2 i + 1) % 4] in 16 bits
//   add16(acc, pairs)            sums in 16 bits
//   add_pairs(acc, pairs, n)     acc plus n times the sums of two neighbours, in 32 bits
// clang-format on

// Values below 16: eight pairs, a block's, are at most 8 * 2 * 15 * 128 = 30720.
template <int bits, bool>
struct Sums {
    I sum;
    I pairs = set1_i(0);

    template <int g>
    void add(I w, const std::int8_t* x) {
        pairs = add16(pairs, multiply_pairs(w, x));
    }
    I total() const { return add_pairs(sum, pairs, 1); }
};
// Larger values: n pairs are at most n * 2 * value * 128, below 32768.
template <int n>
struct ShortSums {
    I sum;
    I pairs = set1_i(0);

    template <int g>
    void add(I w, const std::int8_t* x) {
        const I products = multiply_pairs(w, x);
        pairs = g % n == 0 ? products : add16(pairs, products);
        if constexpr (g % n == n - 1) sum = add_pairs(sum, pairs, 1);
    }
    I total() const { return sum; }
};
template <bool is_one>
struct Sums<5, is_one> : ShortSums<4> {};
template <bool is_one>
struct Sums<6, is_one> : ShortSums<2> {};
template <bool is_one>
struct Sums<7, is_one> : ShortSums<1> {};
// Eight bits are two codes below 16.
template <bool is_one>
struct Sums<8, is_one> {
    I sum;
    I low = set1_i(0), high = set1_i(0);

    template <int g>
    void add(I w, const std::int8_t* x) {
        low = add16(low, multiply_pairs(and8(w, 15), x));
        high = add16(high, multiply_pairs(and8(shift<-4>(w), 15), x));
    }
    I total() const { return add_pairs(add_pairs(sum, low, 1), high, 16); }
};
