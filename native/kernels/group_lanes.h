// Rows of a group as the lanes of vectors: what is computed for a column is computed for as many rows at once
// as a register holds, and sums over columns have one order, whatever that number is.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/layout.h"

namespace edgemoe {

template <int lanes>
struct Lanes {
    using Floats [[gnu::vector_size(4 * lanes)]] = float;
    using Ints [[gnu::vector_size(4 * lanes)]] = std::int32_t;
    using Words [[gnu::vector_size(4 * lanes)]] = std::uint32_t;
    using Halves [[gnu::vector_size(4 * lanes)]] = std::int16_t;  // two of each lane
    using Bytes [[gnu::vector_size(lanes)]] = std::uint8_t;
    using Doubles [[gnu::vector_size(8 * lanes)]] = double;
};

// The rows of a group; those beyond the matrix are zeros.
struct GroupRows {
    const float* values[kRowGroup];
    std::int64_t cols;
    const float* importance;  // of the columns, or nullptr
};

// A number of each row.
using Column = float[kRowGroup];

[[gnu::always_inline]] inline void load_columns(const GroupRows& rows, std::int64_t first, std::int64_t count,
                                                Column* columns) {
    for (int row = 0; row < kRowGroup; ++row) {
        const float* values = rows.values[row] + first;
        for (std::int64_t i = 0; i < count; ++i) columns[i][row] = values[i];
    }
}

template <typename T>
[[gnu::always_inline]] inline void load_lanes(const void* from, T& to) {
    std::memcpy(&to, from, sizeof to);
}
template <typename T>
[[gnu::always_inline]] inline void store_lanes(const T& from, void* to) {
    std::memcpy(to, &from, sizeof from);
}

}  // namespace edgemoe
