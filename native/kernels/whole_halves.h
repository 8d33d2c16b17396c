// Scales of blocks that many tokens are multiplied with. Those of q2 and q3 are whole numbers in their unit
// (scale_e3m2()), and so are the sums of halves: they are scaled and added up as integers, and rounded when
// these become a float. Floats are rounded at the same place, so tokens that are left over and single ones
// have the same bits. Included textually by unpacked_block.h, after
// clang-format off
//   HalvedSums                  sums of both halves of a block of values of up to 3 bits, or void where floats take
//                               no longer: add<g>(w, x) as that of Sums, total(by) int32 [L], the sum of both times
//                               their scales
//   HalvedSums::scales(a, b)    HalvedSums::Scales, what total() takes, of int32 [L] each
//   to_int(v)                   int32 of floats that are whole numbers, where there are HalvedSums
// clang-format on

template <typename SumsOfHalves>
struct WholeHalves {
    typename SumsOfHalves::Scales scales;
    F minimum[2];
};

template <Format f>
constexpr bool kHasWholeHalves = !std::is_void_v<HalvedSums> && traits(f).scales == Scales::kE3M2Zeros;
template <Format f>
using TileScales = std::conditional_t<kHasWholeHalves<f>, WholeHalves<HalvedSums>, ScalesOf<f>>;

template <Format f, typename SumsOfHalves = HalvedSums>
inline TileScales<f> tile_scales(const ScalePlace& place) {
    const ScalesOf<f> found = scales_at<f>(place);
    if constexpr (kHasWholeHalves<f>) {
        const auto scales = SumsOfHalves::scales(to_int(found.scale[0]), to_int(found.scale[1]));
        return {scales, {found.minimum[0], found.minimum[1]}};
    } else {
        return found;
    }
}
