// The encoder. Steps go down the cycle, from place 63 to place 0, as a weight's subset depends on the path
// bits of its own and the next six places. A state is the last six bits, the newest in bit 0; a weight and
// its state before it make seven bits, whose subset is as in subset_of().
#include "kernels/trellis.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/clones.h"
#include "kernels/shuffle.h"

namespace edgemoe {
namespace {

constexpr int kStates = 64;
constexpr int kHalf = kStates / 2;
constexpr float kImpossible = 1e30f;

// Subset after state `state`, bit 5 apart, with a new bit that is equal to that one.
constexpr int subset_after(int state) { return (state & 1) << 1 | ((state >> 1 ^ state >> 3) & 1); }

// Eight states side by side.
using Lanes = float __attribute__((vector_size(32)));

// What the best value of each subset costs at 16 places, and its number.
struct ColumnCosts {
    float cost[4][kRowGroup];
    std::int32_t number[4][kRowGroup];
};

EDGEMOE_FOR_EACH_ISA void find_costs(const TrellisLevels& levels, const float* wanted, const float* weights,
                                     ColumnCosts& found) {
    for (int subset = 0; subset < 4; ++subset) {
        float least[kRowGroup];
        std::int32_t best[kRowGroup] = {};
        std::fill_n(least, kRowGroup, HUGE_VALF);
        for (int number = subset; number < levels.count; number += 4) {
            const float level = levels.values[number];
            for (std::int64_t r = 0; r < kRowGroup; ++r) {
                const float distance = wanted[r] - level, square = distance * distance;
                best[r] = square < least[r] ? number : best[r];
                least[r] = square < least[r] ? square : least[r];
            }
        }
        for (std::int64_t r = 0; r < kRowGroup; ++r) found.cost[subset][r] = least[r] * weights[r];
        std::copy_n(best, kRowGroup, found.number[subset]);
    }
}

// The least costs of all states after each step of a column, from its last row up; before[s] is that of
// state s, and the results follow it.
EDGEMOE_FOR_EACH_ISA void run_steps(const ColumnCosts& costs, float* before) {
    for (std::int64_t row = kRowGroup - 1; row >= 0; --row, before += kStates) {
        const float d[4] = {costs.cost[0][row], costs.cost[1][row], costs.cost[2][row], costs.cost[3][row]};
        // Costs after states 0 to 7 and 8 to 15, where the new bit is equal to the oldest and where not; the
        // order is that of subset_after().
        const Lanes equal_0 = {d[0], d[2], d[1], d[3], d[0], d[2], d[1], d[3]};
        const Lanes equal_8 = {d[1], d[3], d[0], d[2], d[1], d[3], d[0], d[2]};
        const Lanes unlike_0 = {d[2], d[0], d[3], d[1], d[2], d[0], d[3], d[1]};
        const Lanes unlike_8 = {d[3], d[1], d[2], d[0], d[3], d[1], d[2], d[0]};
        float* after = before + kStates;
#pragma GCC unroll 4
        for (int p = 0; p < kHalf; p += 8) {
            Lanes low, high;
            std::memcpy(&low, before + p, sizeof low);
            std::memcpy(&high, before + p + kHalf, sizeof high);
            const Lanes equal = p % 16 == 0 ? equal_0 : equal_8, unlike = p % 16 == 0 ? unlike_0 : unlike_8;
            const Lanes zero_low = low + equal, zero_high = high + unlike;
            const Lanes one_low = low + unlike, one_high = high + equal;
            const Lanes zero = zero_high < zero_low ? zero_high : zero_low;
            const Lanes one = one_high < one_low ? one_high : one_low;
            const Lanes first_eight = EDGEMOE_SHUFFLE(zero, one, 0, 8, 1, 9, 2, 10, 3, 11);
            const Lanes last_eight = EDGEMOE_SHUFFLE(zero, one, 4, 12, 5, 13, 6, 14, 7, 15);
            std::memcpy(after + 2 * p, &first_eight, sizeof first_eight);
            std::memcpy(after + 2 * p + 8, &last_eight, sizeof last_eight);
        }
    }
}

EDGEMOE_FOR_EACH_ISA int state_of_least(const float* costs) {
    Lanes least;
    std::memcpy(&least, costs, sizeof least);
    for (int s = 8; s < kStates; s += 8) {
        Lanes next;
        std::memcpy(&next, costs + s, sizeof next);
        least = next < least ? next : least;
    }
    float lowest = least[0];
    for (int i = 1; i < 8; ++i) lowest = std::min(lowest, least[i]);
    int state = 0;
    while (costs[state] > lowest) ++state;
    return state;
}

class Cycle {
  public:
    Cycle(const TrellisLevels& levels, QuadTarget& target) : levels_(levels), target_(target) {}

    // The two columns before the first one in the cycle.
    void warm_up() {
        std::fill_n(least_[0], kStates, 0.0f);
        for (std::int64_t col = 0; col < kQuad; ++col) find_costs_of(col);
        for (const std::int64_t col : {1, 0}) {
            run_steps(costs_[col], least_[0]);
            std::copy_n(least_[kRowGroup], kStates, least_[0]);
        }
    }

    void begin_at(int state) {
        std::fill_n(least_[0], kStates, kImpossible);
        least_[0][state] = 0;
    }

    void run(QuadCodes& codes) {
        for (std::int64_t col = kQuad - 1; col >= 0; --col) {
            const std::int64_t done = kRowGroup * (kQuad - 1 - col);
            if (target_.follows) {
                if (done > 0) trace(best_state(done), done, done - kRowGroup, codes);
                target_.begin_column(col, codes.numbers);
                find_costs_of(col);
            }
            run_steps(costs_[col], least_[done]);
        }
    }

    int best_state(std::int64_t steps) const { return state_of_least(least_[steps]); }

    // Follows the path to a state after `end` steps back to the one after `begin` steps, which is the result.
    int trace(int state, std::int64_t end, std::int64_t begin, QuadCodes& codes) const {
        codes.path = 0;
        for (std::int64_t t = end - 1; t >= begin; --t) {
            const std::int64_t place = kCycle - 1 - t, row = place % kRowGroup;
            const ColumnCosts& costs = costs_[place / kRowGroup];
            const int bit = state & 1, low = state >> 1;
            const int of_low = subset_after(low) ^ bit << 1;
            const int is_high = least_[t][low + kHalf] + costs.cost[of_low ^ 2][row] <
                                least_[t][low] + costs.cost[of_low][row];
            codes.numbers[place] = static_cast<std::uint8_t>(costs.number[of_low ^ is_high << 1][row]);
            codes.path |= static_cast<std::uint64_t>(bit) << place;
            state = low + is_high * kHalf;
        }
        return state;
    }

  private:
    void find_costs_of(std::int64_t col) {
        const std::int64_t first = kRowGroup * col;
        find_costs(levels_, target_.wanted + first, target_.weights + first, costs_[col]);
    }

    const TrellisLevels& levels_;
    QuadTarget& target_;
    ColumnCosts costs_[kQuad];
    float least_[kCycle + 1][kStates];  // cost of the best path to each state
};

// Where bits of quad g lie in a chunk: the path bit, and its own one or two bits.
constexpr int kPathPlace[8] = {0, 4, 2, 6, 1, 5, 3, 7};
constexpr int kOwnBitPlace[8] = {2, 6, 1, 5, 3, 7, 0, 4};
constexpr int kOwnPairPlace[4] = {0, 4, 2, 6};

void set_bits(std::uint8_t& byte, int place, int mask, int value) {
    byte = static_cast<std::uint8_t>((byte & ~(mask << place)) | value << place);
}

}  // namespace

// The outermost of 8 and 16 values lie at 1.91 and 2.59 deviations of a Gaussian.
TrellisLevels::TrellisLevels(Format f) : count(2 << code_bits(f)) {
    if (!is_trellis(f)) return;
    for (int i = 0; i < 16; ++i) values[i] = static_cast<float>(value_table(f)[i] - traits(f).zero);
    spread = values[count - 1] / (code_bits(f) == 2 ? 1.91f : 2.59f);
}

void encode_quad(const TrellisLevels& levels, QuadTarget& target, QuadCodes& codes) {
    Cycle cycle(levels, target);
    cycle.warm_up();
    cycle.run(codes);
    const int end = cycle.best_state(kCycle), begin = cycle.trace(end, kCycle, 0, codes);
    if (begin == end) return;
    cycle.begin_at(begin);
    cycle.run(codes);
    cycle.trace(begin, kCycle, 0, codes);
}

void set_quad(Format f, std::uint8_t* block_codes, std::int64_t quad, const QuadCodes& codes) {
    for (std::int64_t row = 0; row < kRowGroup; ++row) {
        for (std::int64_t col = 0; col < kQuad; ++col) {
            const std::int64_t place = cycle_place(row, col);
            std::uint8_t* bytes = block_codes + row * kQuad + col;
            set_bits(bytes[0], kPathPlace[quad], 1, static_cast<int>(codes.path >> place & 1));
            const int own = codes.numbers[place] >> 2;
            if (code_bits(f) == 2) {
                set_bits(bytes[kChunk], kOwnBitPlace[quad], 1, own);
            } else {
                set_bits(bytes[kChunk + quad / 4 * kChunk], kOwnPairPlace[quad % 4], 3, own);
            }
        }
    }
}

int trellis_number(Format f, const std::uint8_t* block_codes, std::int64_t row, std::int64_t col) {
    const std::int64_t quad = col / kQuad, place = cycle_place(row, col);
    std::uint64_t path = 0;
    for (int k = 0; k < 7; ++k) {
        const std::int64_t at = (place + k) % kCycle;
        const std::uint8_t byte = block_codes[at % kRowGroup * kQuad + at / kRowGroup];
        path |= std::uint64_t{byte >> kPathPlace[quad] & 1u} << k;
    }
    const std::uint8_t* own = block_codes + kChunk + row * kQuad + col % kQuad;
    const int high = code_bits(f) == 2 ? *own >> kOwnBitPlace[quad] & 1
                                       : own[quad / 4 * kChunk] >> kOwnPairPlace[quad % 4] & 3;
    return high << 2 | subset_of(path, 0);
}

}  // namespace edgemoe
