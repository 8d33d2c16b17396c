// The grids of formats whose codes are numbers of points: numbers that 4 or 8 columns have together.
#pragma once

#include <cstdint>

#include "kernels/formats.h"

namespace edgemoe {

// Points of iq1 have this many numbers; the bit above says that their columns are eight times -1, 0 or 1 plus
// 1, not minus 1: two more, which are added by setting a bit.
inline constexpr int kPoints1 = 2048;
inline constexpr int kRaise1 = 2;

// A grid in the forms that kernels look up. A level is what a column of a point has: one of 3, or of 8 in
// points of 4.
template <typename Point, int size>
struct GridTables {
    // A byte for each column, the first the lowest: what it stands for without a sign, plus the zero of the
    // format.
    alignas(64) Point points[size];
    // The levels, for shuffles of bytes. With 3 levels a byte has two bits for each of 4 columns; with 8 the
    // first has the low two bits of each column, the second the third bits.
    alignas(64) std::uint8_t fields[2][size];
    // What a level stands for, plus the zero, and with the bit above those of a level negated or raised; over
    // and over.
    alignas(64) std::uint8_t values[64];
};
extern const GridTables<std::uint64_t, kPoints1> kGrid1;
extern const GridTables<std::uint64_t, 256> kGrid2Xxs;
extern const GridTables<std::uint64_t, 512> kGrid2Xs;
extern const GridTables<std::uint64_t, 1024> kGrid2S;
extern const GridTables<std::uint32_t, 256> kGrid3Xxs;
extern const GridTables<std::uint32_t, 512> kGrid3S;

// The tables of a format that has a grid.
template <Format f>
static constexpr const auto& grid_tables() {
    constexpr Values kValues = traits(f).values;
    if constexpr (kValues == Values::kGrid1)
        return kGrid1;
    else if constexpr (kValues == Values::kGrid2Xxs)
        return kGrid2Xxs;
    else if constexpr (kValues == Values::kGrid2Xs)
        return kGrid2Xs;
    else if constexpr (kValues == Values::kGrid2S)
        return kGrid2S;
    else if constexpr (kValues == Values::kGrid3Xxs)
        return kGrid3Xxs;
    else
        return kGrid3S;
}

// One byte of a point.
int byte_of_point(Format f, int number, std::int64_t col);

}  // namespace edgemoe
