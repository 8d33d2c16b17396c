// Points of grids as quads of columns, by the definitions in layout.h. Included textually by every vector
// instruction set after block_scales.h and before loops.h. Primitives expected beyond those that loops.h
// lists:
// clang-format off
//   look_up_points(points, n)     for int32 [L] numbers of points of 8 columns: the quads of their first and last four,
//                                 a QuadPair; of 4 columns: the quad
//   negate_where(v, signs, twice) twice - v, byte-wise, where the highest bit of a byte of signs is set, else v
// clang-format on

// The numbers of one point of L rows.
template <Format f, int point>
inline I point_numbers(const std::uint8_t* codes, const ScalePlace& at) {
    const I low = and32(shift32<-8 * (point % 4)>(load_codes(codes + point / 4 * kChunk)), 255);
    constexpr std::int64_t kRowBits = high_bits_of_row(f);
    if constexpr (kRowBits == 0) {
        return low;
    } else {
        constexpr int kBits = grid_traits(f).high_bits;
        constexpr bool kIsApart = kRowBits == 16;  // in two bytes
        const std::uint8_t* high = at.block + own_scale_bytes(f) + (kIsApart ? point / 2 * kRowGroup : 0);
        const I bits = kRowBits == 4 ? load_nibbles(high, at.lane) : load_bytes(high + at.lane);
        constexpr int kPlace = kBits * (kIsApart ? point % 2 : point);
        return or8(low, and32(shift32<8 - kPlace>(bits), ((1 << kBits) - 1) << 8));
    }
}

// The values of one block of L rows.
template <Format f>
struct GridBlock {
    const std::uint8_t* codes;
    const ScalePlace& at;

    // Of quads g and g + 1, for an even g.
    template <int g>
    QuadPair quads() const {
        constexpr GridTraits kGrid = grid_traits(f);
        QuadPair quads;
        if constexpr (kGrid.cols == 8) {
            const I numbers = point_numbers<f, g / 2>(codes, at);
            quads = look_up_points(grid_tables<f>().points,
                                   kGrid.has_signs ? numbers : and32(numbers, kPoints1 - 1));
            if constexpr (!kGrid.has_signs) {
                const I bit = and32(shift32<-10>(numbers), kRaise1);
                const I two = or8(bit, shift32<8>(bit));
                const I raise = or8(two, shift32<16>(two));
                return {or8(quads.first, raise), or8(quads.second, raise)};
            }
        } else {
            quads.first = look_up_points(grid_tables<f>().points, point_numbers<f, g>(codes, at));
            quads.second = look_up_points(grid_tables<f>().points, point_numbers<f, g + 1>(codes, at));
        }
        const I signs = load_codes(codes + block_points(f) / 4 * kChunk);
        constexpr int kTwice = 2 * traits(f).zero;
        return {negate_where(quads.first, shift<7 - g>(signs), kTwice),
                negate_where(quads.second, shift<6 - g>(signs), kTwice)};
    }
};
