// What is summed over the columns of a block to choose the scales of trellis formats, for all rows of a
// group.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/group_lanes.h"
#include "kernels/trellis.h"

namespace edgemoe {

// Levels of each half of the table that can be the nearest to a weight that is not negative. The halves
// mirror each other, so a negative weight is as far from both as its opposite is.
struct HalfLevels {
    float values[2][8];
    int count[2] = {};

    explicit HalfLevels(const TrellisLevels& levels) {
        for (int i = 0; i < levels.count; ++i) {
            const bool is_last = i + 2 >= levels.count;
            if (!is_last && levels.values[i] + levels.values[i + 2] <= 0) continue;
            values[i % 2][count[i % 2]++] = levels.values[i];
        }
    }
};

// A block of all rows.
struct Block {
    const Column* weights;    // [kBlock]
    const float* importance;  // [kBlock], or nullptr
    Column size;              // root mean square
    Column largest;           // of the magnitudes
};

template <int lanes>
[[gnu::always_inline]] inline void measure_in(Block& block) {
    using Vector = typename Lanes<lanes>::Floats;
    for (int row = 0; row < kRowGroup; row += lanes) {
        Vector sum = {}, largest = {};
        for (std::int64_t i = 0; i < kBlock; ++i) {
            Vector w;
            load_lanes(block.weights[i] + row, w);
            const Vector magnitude = w < Vector{} ? -w : w;
            largest = largest < magnitude ? magnitude : largest;
            sum += w * w;
        }
        for (int i = 0; i < lanes; ++i) block.size[row + i] = std::sqrt(sum[i] / kBlock);
        store_lanes(largest, block.largest + row);
    }
}

// How far from the nearest level of a half.
template <int half, typename Vector>
[[gnu::always_inline]] inline void find_distance(const HalfLevels& levels, const Vector& wanted,
                                                 Vector& distance) {
    distance = Vector{} + HUGE_VALF;
    for (int k = 0; k < levels.count[half]; ++k) {
        const Vector difference = wanted - levels.values[half][k];
        const Vector magnitude = difference < Vector{} ? -difference : difference;
        distance = magnitude < distance ? magnitude : distance;
    }
}

template <int lanes>
[[gnu::always_inline]] inline void estimate_error_in(const Block& block, const HalfLevels& levels,
                                                     const Column& scales, Column& errors) {
    using Vector = typename Lanes<lanes>::Floats;
    for (int row = 0; row < kRowGroup; row += lanes) {
        Vector scale, sum = {};
        load_lanes(scales + row, scale);
        const Vector inverse = scale > Vector{} ? 1 / scale : Vector{};
        for (std::int64_t i = 0; i < kBlock; ++i) {
            Vector wanted, even, odd;
            load_lanes(block.weights[i] + row, wanted);
            wanted = wanted * inverse;
            wanted = wanted < Vector{} ? -wanted : wanted;
            find_distance<0>(levels, wanted, even);
            find_distance<1>(levels, wanted, odd);
            sum += (block.importance == nullptr ? 1.0f : block.importance[i]) * (even * even + odd * odd);
        }
        store_lanes(sum * scale * scale, errors + row);
    }
}

// Sums over columns, in their order.
struct Fit {
    double product[kRowGroup] = {}, square[kRowGroup] = {};  // of weights and values, and of values
};

template <int lanes>
[[gnu::always_inline]] inline void add_block_in(const Column* weights, const Column* values,
                                                const float* importance, const Column& scales, Fit& fit) {
    using Vector = typename Lanes<lanes>::Floats;
    using Doubles = typename Lanes<lanes>::Doubles;
    for (int row = 0; row < kRowGroup; row += lanes) {
        Vector scale, weight, value;
        Doubles product, square;
        load_lanes(scales + row, scale);
        load_lanes(fit.product + row, product);
        load_lanes(fit.square + row, square);
        for (std::int64_t col = 0; col < kBlock; ++col) {
            load_lanes(weights[col] + row, weight);
            load_lanes(values[col] + row, value);
            const Doubles scaled = __builtin_convertvector(value * scale, Doubles);
            const Doubles weighted = importance == nullptr ? scaled : scaled * double{importance[col]};
            product += weighted * __builtin_convertvector(weight, Doubles);
            square += weighted * scaled;
        }
        store_lanes(product, fit.product + row);
        store_lanes(square, fit.square + row);
    }
}

}  // namespace edgemoe
