// A few columns of a head's state, which stay in registers and in the processor's first cache while the
// tokens of a call pass. Every column is computed by itself, so none of this changes a bit.
#pragma once

#include <cstdint>
#include <cstring>

namespace edgemoe {

using Lanes = float __attribute__((vector_size(64)));
inline constexpr std::int64_t kLanesOfColumns = 16;
// As many sums as hide the latency of an addition, of few enough columns for the first cache.
inline constexpr int kColumnVectors = 2;
inline constexpr std::int64_t kColumns = kColumnVectors * kLanesOfColumns;
// One token passes whole rows, in the order of memory, as far as the registers reach.
inline constexpr int kRowVectors = 8;
// Tokens that pass the columns before the next columns' turn comes.
inline constexpr std::int64_t kTokensAtOnce = 32;

[[gnu::always_inline]] inline void load_lanes(const float* from, Lanes& to) {
    std::memcpy(&to, from, sizeof to);
}

[[gnu::always_inline]] inline void store_lanes(const Lanes& from, float* to) {
    std::memcpy(to, &from, sizeof from);
}

// Columns [rows][count], rows `from_stride` and `to_stride` apart.
inline void copy_columns(const float* from, std::int64_t from_stride, std::int64_t num_rows,
                         std::int64_t count, float* to, std::int64_t to_stride) {
    for (std::int64_t r = 0; r < num_rows; ++r) {
        std::memcpy(to + r * to_stride, from + r * from_stride, static_cast<std::size_t>(count) * sizeof *to);
    }
}

}  // namespace edgemoe
