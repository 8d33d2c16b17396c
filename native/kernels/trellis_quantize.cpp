// Scales and codes of trellis formats without a gram. The encoder can only be run for given scales, so these
// are first chosen as if each weight had its nearest value of either half of the table, and then fitted to
// the codes, in turns.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/clones.h"
#include "kernels/decode.h"
#include "kernels/trellis.h"
#include "kernels/trellis_sums.h"

namespace edgemoe {
namespace {

// Turns of codes and scales. A third lowers the error by less than 1 %.
constexpr int kTurns = 3;
// Scales tried for a block, as multiples of the one that gives its values the spread of a Gaussian's, and of
// the one that reaches its largest weight.
constexpr float kMultiples[] = {0.6f, 0.7f, 0.8f, 0.9f, 1.0f, 1.1f, 1.2f, 1.35f, 1.5f, 1.7f};
constexpr float kReaches[] = {0.7f, 0.85f, 1.0f};
constexpr int kNumScales = 16;
constexpr float kAsTheyAre[kRowGroup] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

EDGEMOE_FOR_EACH_WIDTH(measure_in<kLanes>(block), measure(Block& block))

// What a block's error would be at a scale: the mean of what both halves of the table give.
EDGEMOE_FOR_EACH_WIDTH(estimate_error_in<kLanes>(block, levels, scales, errors),
                       estimate_error(const Block& block, const HalfLevels& levels, const Column& scales,
                                      Column& errors))

EDGEMOE_FOR_EACH_WIDTH(add_block_in<kLanes / 2>(weights, values, importance, scales, fit),
                       add_block(const Column* weights, const Column* values, const float* importance,
                                 const Column& scales, Fit& fit))

EDGEMOE_FOR_EACH_ISA void aim_at(const Column* weights, const float* importance, const Column& scales,
                                 QuadTarget& target) {
    for (std::int64_t col = 0; col < kQuad; ++col) {
        const float weight = importance == nullptr ? 1.0f : importance[col];
        for (std::int64_t row = 0; row < kRowGroup; ++row) {
            const std::int64_t place = cycle_place(row, col);
            target.wanted[place] = scales[row] > 0 ? weights[col][row] / scales[row] : 0.0f;
            target.weights[place] = weight * scales[row] * scales[row];
        }
    }
}

// Rows of one group on their way.
class Group {
  public:
    Group(const GroupRows& rows, Format format, std::uint8_t* packed)
        : cols_(rows.cols),
          importance_(rows.importance),
          format_(format),
          packed_(packed),
          levels_(format),
          half_levels_(levels_),
          numbers_(static_cast<std::size_t>(cols_ / kBlock)),
          encoded_(numbers_.size(), Numbers{kNumScales}),  // as no block has them
          weights_(static_cast<std::size_t>(cols_ * kRowGroup)),
          values_(weights_.size()) {
        load_columns(rows, 0, cols_, reinterpret_cast<Column*>(weights_.data()));
    }

    void choose_scales() {
        Column largest = {};
        for (std::int64_t col = 0; col < cols_; col += kBlock) raise_to_free_scales(block(col), largest);
        for (int row = 0; row < kRowGroup; ++row) set_base(row, largest[row] / kNibbleScales[kNumScales - 1]);
        for (std::int64_t col = 0; col < cols_; col += kBlock) find_scales(block(col), numbers(col));
    }

    // Of blocks whose scales have changed since the last turn.
    void choose_codes() {
        for (std::int64_t col = 0; col < cols_; col += kQuad) {
            if (numbers(col) != encoded_[col / kBlock]) encode(col);
        }
        encoded_ = numbers_;
    }

    // Each block's scale becomes the nearest to the best one for its codes.
    void fit_scales() {
        for (std::int64_t col = 0; col < cols_; col += kBlock) {
            Fit fit;
            add_block(weights(col), values(col), importance(col), kAsTheyAre, fit);
            for (int row = 0; row < kRowGroup; ++row) {
                if (!(bases_[row] > 0) || !(fit.square[row] > 0)) continue;
                numbers(col)[row] = nearest_scale(fit.product[row] / fit.square[row] / bases_[row]);
            }
        }
    }

    // The same for the base of each row.
    void fit_bases() {
        Fit fit;
        for (std::int64_t col = 0; col < cols_; col += kBlock) {
            Column scales;
            decode(numbers(col), scales);
            add_block(weights(col), values(col), importance(col), scales, fit);
        }
        for (int row = 0; row < kRowGroup; ++row) {
            if (!(fit.square[row] > 0) || !(fit.product[row] > 0)) continue;
            set_base(row, static_cast<float>(fit.product[row] / fit.square[row]));
        }
    }

    void store_scales() {
        for (int row = 0; row < kRowGroup; ++row) {
            const std::uint16_t base = bf16_of_float(bases_[row]);
            std::memcpy(packed_ + 2 * row, &base, sizeof base);
            for (std::int64_t col = 0; col < cols_; col += kBlock) {
                std::uint8_t* place = packed_ + block_scale_offset(format_, col / kBlock);
                place[row % 8] |= numbers(col)[row] << (row < 8 ? 0 : 4);
            }
        }
    }

  private:
    using Numbers = std::array<std::uint8_t, kRowGroup>;  // of the scales of a block

    Numbers& numbers(std::int64_t col) { return numbers_[col / kBlock]; }
    const float* importance(std::int64_t col) const {
        return importance_ == nullptr ? nullptr : importance_ + col;
    }
    const Column* weights(std::int64_t col) const {
        return reinterpret_cast<const Column*>(&weights_[col * kRowGroup]);
    }
    Column* values(std::int64_t col) { return reinterpret_cast<Column*>(&values_[col * kRowGroup]); }
    Block block(std::int64_t col) const {
        Block block = {weights(col), importance(col), {}, {}};
        measure(block);
        return block;
    }
    void set_base(int row, float base) { bases_[row] = float_of_bf16(bf16_of_float(base)); }

    static void decode(const Numbers& numbers, Column& scales) {
        for (int row = 0; row < kRowGroup; ++row) scales[row] = kNibbleScales[numbers[row]];
    }
    void decode_with_bases(const Numbers& numbers, Column& scales) const {
        decode(numbers, scales);
        for (int row = 0; row < kRowGroup; ++row) scales[row] *= bases_[row];
    }

    static std::uint8_t nearest_scale(double wanted) {
        int best = 0;
        for (int i = 1; i < kNumScales; ++i) {
            if (std::fabs(kNibbleScales[i] - wanted) < std::fabs(kNibbleScales[best] - wanted)) best = i;
        }
        return static_cast<std::uint8_t>(best);
    }

    // The best scales of a block, if every one could be stored; `largest` rises to those that are larger.
    void raise_to_free_scales(const Block& block, Column& largest) const {
        Column best = {}, least, tried, error;
        std::fill_n(least, kRowGroup, HUGE_VALF);
        const auto consider = [&] {
            estimate_error(block, half_levels_, tried, error);
            for (int row = 0; row < kRowGroup; ++row) {
                if (error[row] < least[row]) best[row] = tried[row], least[row] = error[row];
            }
        };
        for (const float multiple : kMultiples) {
            for (int row = 0; row < kRowGroup; ++row)
                tried[row] = multiple * block.size[row] / levels_.spread;
            consider();
        }
        for (const float reach : kReaches) {
            for (int row = 0; row < kRowGroup; ++row) tried[row] = reach * reaching_scale(block, row);
            consider();
        }
        for (int row = 0; row < kRowGroup; ++row) largest[row] = std::max(largest[row], best[row]);
    }

    float reaching_scale(const Block& block, int row) const {
        return block.largest[row] / levels_.values[levels_.count - 1];
    }

    // Of a block that is not zeros, the best of the scales that can be stored, tried from that of a narrow
    // block, or else the largest, up to the first beyond that of a wide block and the largest weight.
    void find_scales(const Block& block, Numbers& best) const {
        Column lowest, highest, least, scales, error;
        for (int row = 0; row < kRowGroup; ++row) {
            lowest[row] = block.size[row] / levels_.spread * kMultiples[0];
            highest[row] = std::max(3 * lowest[row], 1.2f * reaching_scale(block, row));
            least[row] = HUGE_VALF;
            best[row] = bases_[row] > 0 && block.size[row] > 0;
        }
        Numbers tried = first_scales(lowest);
        for (bool is_done = false; !is_done;) {
            decode_with_bases(tried, scales);
            estimate_error(block, half_levels_, scales, error);
            is_done = true;
            for (int row = 0; row < kRowGroup; ++row) {
                if (best[row] != 0 && error[row] < least[row])
                    best[row] = tried[row], least[row] = error[row];
                if (scales[row] > highest[row] || tried[row] == kNumScales - 1) continue;
                ++tried[row];
                is_done = false;
            }
        }
    }

    // Of each row the first that is not below the lowest, or else the largest.
    Numbers first_scales(const Column& lowest) const {
        Numbers first;
        for (int row = 0; row < kRowGroup; ++row) {
            int i = bases_[row] > 0 ? 1 : kNumScales - 1;
            while (i < kNumScales - 1 && bases_[row] * kNibbleScales[i] < lowest[row]) ++i;
            first[row] = static_cast<std::uint8_t>(i);
        }
        return first;
    }

    void encode(std::int64_t first_col) {
        Column scales;
        decode_with_bases(numbers(first_col), scales);
        QuadTarget target;
        aim_at(weights(first_col), importance(first_col), scales, target);
        QuadCodes codes;
        encode_quad(levels_, target, codes);
        set_quad(format_, codes_of_block(format_, packed_, cols_, first_col), first_col % kBlock / kQuad,
                 codes);
        for (std::int64_t col = 0; col < kQuad; ++col) {
            for (int row = 0; row < kRowGroup; ++row) {
                values(first_col)[col][row] = levels_.values[codes.numbers[cycle_place(row, col)]];
            }
        }
    }

    std::int64_t cols_;
    const float* importance_;
    Format format_;
    std::uint8_t* packed_;
    TrellisLevels levels_;
    HalfLevels half_levels_;
    std::vector<Numbers> numbers_, encoded_;
    Column bases_ = {};
    std::vector<float> weights_, values_;  // [cols][kRowGroup]
};

}  // namespace

void quantize_trellis_group(const GroupRows& rows, Format format, std::uint8_t* packed) {
    Group group(rows, format, packed);
    group.choose_scales();
    for (int turn = 0; turn < kTurns; ++turn) {
        if (turn > 0) group.fit_scales();
        group.choose_codes();
    }
    group.fit_bases();
    group.store_scales();
}

}  // namespace edgemoe
