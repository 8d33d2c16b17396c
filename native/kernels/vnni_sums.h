// Sums of VNNI: one dot-product instruction per quad of columns. Included textually by vnni512.h and by
// avxvnni.cpp, which have
// clang-format off
//   add_dots(sum, w, x)         sum plus the dot product of the four bytes of each lane
//   add_lanes(a, b)             int32
// clang-format on

// One token has two sums of even and odd quads: in a single one each product waits for the one before, longer
// than processors look ahead. Several tokens have sums enough.
template <int bits, bool is_one>
struct Sums {
    I sum;
    I odd = set1_i(0);

    template <int g>
    void add(I w, const std::int8_t* x) {
        std::int32_t quad;
        __builtin_memcpy(&quad, x, sizeof quad);
        I& part = is_one && g % 2 == 1 ? odd : sum;
        part = add_dots(part, w, set1_i(quad));
    }
    I total() const { return is_one ? add_lanes(sum, odd) : sum; }
};
