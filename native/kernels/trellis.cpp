// The encoder. Steps go down the cycle, from place 63 to place 0, as a weight's subset depends on the path
// bits of its own and the next six places. A state is the last six bits, the newest in bit 0; a weight and
// its state before it make seven bits, whose subset is as in subset_of().
#include "kernels/trellis.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/clones.h"
#include "kernels/viterbi_steps.h"

namespace edgemoe {
namespace {

constexpr int kHalf = kStates / 2;
constexpr float kImpossible = 1e30f;

EDGEMOE_FOR_EACH_WIDTH(find_costs_in<kLanes>(levels, wanted, weights, found),
                       find_costs(const TrellisLevels& levels, const float* wanted, const float* weights,
                                  ColumnCosts& found))

// From the costs of all states before a column to those after it, from its last row up; choices are those of
// its rows. Registers of 512 bits gain nothing: each step waits for the one before.
EDGEMOE_FOR_EACH_WIDTH(run_steps_in<std::min(kLanes, 8)>(costs, states, choices),
                       run_steps(const ColumnCosts& costs, float* states, Choices* choices))

EDGEMOE_FOR_EACH_WIDTH(find_numbers_in<kLanes>(costs, states, numbers),
                       find_numbers(const ColumnCosts& costs, const std::uint8_t* states,
                                    std::uint8_t* numbers))

EDGEMOE_FOR_EACH_WIDTH(find_least<kLanes>(costs, least), least_of(const float* costs, float& least))

int state_of_least(const float* costs) {
    float least;
    least_of(costs, least);
    return static_cast<int>(std::find(costs, costs + kStates, least) - costs);
}

class Cycle {
  public:
    Cycle(const TrellisLevels& levels, QuadTarget& target) : levels_(levels), target_(target) {}

    // The two columns before the first one in the cycle.
    void warm_up() {
        std::fill_n(costs_of_states_, kStates, 0.0f);
        for (std::int64_t col = 0; col < kQuad; ++col) find_costs_of(col);
        for (const std::int64_t col : {1, 0})
            run_steps(costs_[col], costs_of_states_, choices_ + kRowGroup * col);
    }

    void begin_at(int state) {
        std::fill_n(costs_of_states_, kStates, kImpossible);
        costs_of_states_[state] = 0;
    }

    void run(QuadCodes& codes) {
        for (std::int64_t col = kQuad - 1; col >= 0; --col) {
            if (target_.follows) {
                if (col < kQuad - 1) trace(best_state(), col + 1, col + 2, codes);
                target_.begin_column(col, codes.numbers);
                find_costs_of(col);
            }
            run_steps(costs_[col], costs_of_states_, choices_ + kRowGroup * col);
        }
    }

    // That of least cost after the columns that have been run.
    int best_state() const { return state_of_least(costs_of_states_); }

    // Follows the path to a state that columns [begin, end) end in, back to the one before them, which is the
    // result.
    int trace(int state, std::int64_t begin, std::int64_t end, QuadCodes& codes) const {
        std::uint8_t states[kCycle + 1];
        codes.path = 0;
        for (std::int64_t place = kRowGroup * begin; place < kRowGroup * end; ++place) {
            states[place] = static_cast<std::uint8_t>(state);
            codes.path |= static_cast<std::uint64_t>(state & 1) << place;
            state = state >> 1 | (choices_[place][state] & kHalf);
        }
        states[kRowGroup * end] = static_cast<std::uint8_t>(state);
        for (std::int64_t col = begin; col < end; ++col) {
            find_numbers(costs_[col], states + kRowGroup * col, codes.numbers + kRowGroup * col);
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
    Choices choices_[kCycle];
    float costs_of_states_[kStates];
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
    const int end = cycle.best_state(), begin = cycle.trace(end, 0, kQuad, codes);
    if (begin == end) return;
    cycle.begin_at(begin);
    cycle.run(codes);
    cycle.trace(begin, 0, kQuad, codes);
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
