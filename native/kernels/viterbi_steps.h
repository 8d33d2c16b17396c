// Steps of the Viterbi algorithm for trellis codes, a column of 16 rows at a time; trellis.cpp has the way
// round a cycle. They take most of the time of rounding to such a code.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/group_lanes.h"
#include "kernels/shuffle.h"
#include "kernels/trellis.h"

namespace edgemoe {

// A state is the last six path bits, the newest in bit 0.
inline constexpr int kStates = 64;

// A new bit leads from state s to subset ((s ^ s >> 5 ^ bit) & 1) << 1 | ((s >> 1 ^ s >> 3) & 1). So where it
// is equal to bit 5, the subsets after states 0 to 3 are 0, 2, 1 and 3; they repeat after 4, but after 8 to
// 15 bit 0 of the subset is another.

using Four = Lanes<4>::Floats;
using Eight = Lanes<8>::Floats;

// What the best value of each subset costs at 16 places, and its number.
struct ColumnCosts {
    float cost[kRowGroup][16];  // after states 0 to 15 with a new bit that is equal to bit 5
    std::int32_t number[4][kRowGroup];
};

// Of the two states that lead to a state: all bits where the one with bit 5 set costs less.
using Choices = std::int16_t[kStates];

// From the costs of subsets 0, 2, 1 and 3 to those after 16 states.
[[gnu::always_inline]] inline void repeat(const Four& costs, float* to) {
    const Four others = EDGEMOE_SHUFFLE(costs, costs, 2, 3, 0, 1);
    store_lanes(costs, to);
    store_lanes(costs, to + 4);
    store_lanes(others, to + 8);
    store_lanes(others, to + 12);
}

// From the costs of each subset in 16 rows to those of each row.
[[gnu::always_inline]] inline void put_in_order(const float (&costs)[4][kRowGroup], float (*rows)[16]) {
    for (int i = 0; i < kRowGroup; i += 4) {
        Four of[4];
        for (int subset = 0; subset < 4; ++subset) load_lanes(costs[subset] + i, of[subset]);
        const Four low_02 = EDGEMOE_SHUFFLE(of[0], of[2], 0, 4, 1, 5);
        const Four low_13 = EDGEMOE_SHUFFLE(of[1], of[3], 0, 4, 1, 5);
        const Four high_02 = EDGEMOE_SHUFFLE(of[0], of[2], 2, 6, 3, 7);
        const Four high_13 = EDGEMOE_SHUFFLE(of[1], of[3], 2, 6, 3, 7);
        repeat(EDGEMOE_SHUFFLE(low_02, low_13, 0, 1, 4, 5), rows[i]);
        repeat(EDGEMOE_SHUFFLE(low_02, low_13, 2, 3, 6, 7), rows[i + 1]);
        repeat(EDGEMOE_SHUFFLE(high_02, high_13, 0, 1, 4, 5), rows[i + 2]);
        repeat(EDGEMOE_SHUFFLE(high_02, high_13, 2, 3, 6, 7), rows[i + 3]);
    }
}

template <int lanes>
[[gnu::always_inline]] inline void find_costs_in(const TrellisLevels& levels, const float* wanted,
                                                 const float* weights, ColumnCosts& found) {
    using Floats = typename Lanes<lanes>::Floats;
    using Ints = typename Lanes<lanes>::Ints;
    float costs[4][kRowGroup];
    for (int row = 0; row < kRowGroup; row += lanes) {
        Floats aim, weight;
        load_lanes(wanted + row, aim);
        load_lanes(weights + row, weight);
        for (int subset = 0; subset < 4; ++subset) {
            Floats least = Floats{} + HUGE_VALF;
            Ints best = {};
            for (int number = subset; number < levels.count; number += 4) {
                const Floats distance = aim - levels.values[number], square = distance * distance;
                best = square < least ? Ints{} + number : best;
                least = square < least ? square : least;
            }
            store_lanes(least * weight, costs[subset] + row);
            store_lanes(best, found.number[subset] + row);
        }
    }
    put_in_order(costs, found.cost);
}

// Lanes of a and b in turns.
[[gnu::always_inline]] inline void alternate(const Four& a, const Four& b, Four* out) {
    out[0] = EDGEMOE_SHUFFLE(a, b, 0, 4, 1, 5);
    out[1] = EDGEMOE_SHUFFLE(a, b, 2, 6, 3, 7);
}
[[gnu::always_inline]] inline void alternate(const Eight& a, const Eight& b, Eight* out) {
    out[0] = EDGEMOE_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    out[1] = EDGEMOE_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

[[gnu::always_inline]] inline void swap_neighbours(const Four& x, Four& out) {
    out = EDGEMOE_SHUFFLE(x, x, 1, 0, 3, 2);
}
[[gnu::always_inline]] inline void swap_neighbours(const Eight& x, Eight& out) {
    out = EDGEMOE_SHUFFLE(x, x, 1, 0, 3, 2, 5, 4, 7, 6);
}

// The first half of each lane of a, the second of b.
[[gnu::always_inline]] inline void take_halves(const Lanes<4>::Halves& a, const Lanes<4>::Halves& b,
                                               Lanes<4>::Halves& out) {
    out = EDGEMOE_SHUFFLE(a, b, 0, 9, 2, 11, 4, 13, 6, 15);
}
[[gnu::always_inline]] inline void take_halves(const Lanes<8>::Halves& a, const Lanes<8>::Halves& b,
                                               Lanes<8>::Halves& out) {
    out = EDGEMOE_SHUFFLE(a, b, 0, 17, 2, 19, 4, 21, 6, 23, 8, 25, 10, 27, 12, 29, 14, 31);
}

// Stores for the new bits 0 and 1, in turns, whether the second of two states costs less.
template <int lanes, typename Floats>
[[gnu::always_inline]] inline void store_choices(const Floats (&zeros)[2], const Floats (&ones)[2],
                                                 std::int16_t* to) {
    const auto of_zero = zeros[1] < zeros[0], of_one = ones[1] < ones[0];
    typename Lanes<lanes>::Halves zero, one, both;
    load_lanes(&of_zero, zero);
    load_lanes(&of_one, one);
    take_halves(zero, one, both);
    store_lanes(both, to);
}

template <int lanes>
[[gnu::always_inline]] inline void run_steps_in(const ColumnCosts& costs, float* states, Choices* choices) {
    using Floats = typename Lanes<lanes>::Floats;
    constexpr int kVectors = kStates / lanes, kPatterns = 16 / lanes;
    Floats now[kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) load_lanes(states + lanes * i, now[i]);
    for (std::int64_t row = kRowGroup - 1; row >= 0; --row) {
        // Costs after some of 16 states, where the new bit is equal to bit 5 and where not.
        Floats equal[kPatterns], unlike[kPatterns], next[kVectors];
#pragma GCC unroll 4
        for (int i = 0; i < kPatterns; ++i) {
            load_lanes(costs.cost[row] + lanes * i, equal[i]);
            swap_neighbours(equal[i], unlike[i]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < kVectors / 2; ++i) {
            const Floats low = now[i], high = now[i + kVectors / 2];
            const Floats same = equal[i % kPatterns], other = unlike[i % kPatterns];
            const Floats zeros[2] = {low + same, high + other}, ones[2] = {low + other, high + same};
            store_choices<lanes>(zeros, ones, choices[row] + 2 * lanes * i);
            const Floats zero = zeros[1] < zeros[0] ? zeros[1] : zeros[0];
            const Floats one = ones[1] < ones[0] ? ones[1] : ones[0];
            alternate(zero, one, next + 2 * i);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kVectors; ++i) now[i] = next[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) store_lanes(now[i], states + lanes * i);
}

// Numbers of the weights of a column; states are those after each of its rows, and the one before the last.
template <int lanes>
[[gnu::always_inline]] inline void find_numbers_in(const ColumnCosts& costs, const std::uint8_t* states,
                                                   std::uint8_t* numbers) {
    using Ints = typename Lanes<lanes>::Ints;
    using Bytes = typename Lanes<lanes>::Bytes;
    for (int row = 0; row < kRowGroup; row += lanes) {
        Ints of[4];
        for (int subset = 0; subset < 4; ++subset) load_lanes(costs.number[subset] + row, of[subset]);
        Bytes after_bytes, before_bytes;
        load_lanes(states + row, after_bytes);
        load_lanes(states + row + 1, before_bytes);
        const Ints after = __builtin_convertvector(after_bytes, Ints);
        const Ints before = __builtin_convertvector(before_bytes, Ints);
        const Ints low = (before >> 1 ^ before >> 3) & 1, high = (before ^ before >> 5 ^ after) & 1;
        const Ints even = high != Ints{} ? of[2] : of[0], odd = high != Ints{} ? of[3] : of[1];
        const Ints found = low != Ints{} ? odd : even;
        store_lanes(__builtin_convertvector(found, Bytes), numbers + row);
    }
}

template <int lanes>
[[gnu::always_inline]] inline void find_least(const float* costs, float& least) {
    using Floats = typename Lanes<lanes>::Floats;
    Floats lowest, next;
    load_lanes(costs, lowest);
    for (int s = lanes; s < kStates; s += lanes) {
        load_lanes(costs + s, next);
        lowest = next < lowest ? next : lowest;
    }
    least = lowest[0];
    for (int i = 1; i < lanes; ++i) least = std::min(least, static_cast<float>(lowest[i]));
}

}  // namespace edgemoe
