// What token mixers with a state of fixed size share. Letters: T rows of one text, C channels of a
// convolution, K its taps.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/thread_pool.h"
#include "mixers/causal_conv.h"

namespace edgemoe {

// Rows of one text, and what it has left behind.
struct RecurrentSegment {
    std::int64_t first_row;
    std::int64_t num_rows;
    float* state;  // of all heads, one after the other; nullptr where the mixer has none
    float* tail;   // [K - 1][C], what the convolution got last
    // [T record_width()], or nullptr: rows that may be taken back. What `replay` needs is written here, and
    // state and tail stay as they are.
    float* record = nullptr;

    bool moves_on(bool commits) const { return commits && record == nullptr; }
};

// A state's heads and what each keeps, [rows][cols]; all 0 where there is none.
struct StateShape {
    std::int64_t num_heads;
    std::int64_t num_rows;
    std::int64_t num_cols;

    std::int64_t size_of_head() const { return num_rows * num_cols; }
};

using FloatBuffer = std::unique_ptr<float[]>;

inline FloatBuffer uninitialized(std::int64_t count) {
    return std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count));
}

inline std::int64_t float_bytes(std::int64_t count) {
    return count * static_cast<std::int64_t>(sizeof(float));
}

inline float softplus(float x) {
    constexpr float kLarge = 20.0f;  // beyond it ln(1 + e^x) is x in single precision
    return x > kLarge ? x : std::log1p(std::exp(x));
}

inline float logistic(float x) { return 1.0f / (1.0f + std::exp(-x)); }

// out [T][C] from x [T][C], the rows of the segment. Its tail moves on if this `commits`.
void convolve(const CausalConv& conv, const float* x, const RecurrentSegment& segment, bool commits,
              float* out);

// Calls run(head, its state) for all heads, side by side; states move on if this `commits`.
template <typename Run>
void for_each_head(const RecurrentSegment& segment, const StateShape& shape, bool commits, const Run& run) {
    parallel_for(shape.num_heads, 1, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t size = shape.size_of_head();
        std::vector<float> spare;
        for (std::int64_t head = begin; head < end; ++head) {
            float* state = segment.state + head * size;
            if (!segment.moves_on(commits)) {
                spare.assign(state, state + size);
                state = spare.data();
            }
            run(head, state);
        }
    });
}

// x [count] += scale times added [count].
void add_scaled(const float* added, std::int64_t count, float scale, float* x);

}  // namespace edgemoe
