// Scales and codes of trellis formats without a gram. The encoder can only be run for given scales, so these
// are first chosen as if each weight had its nearest value of either half of the table, and then fitted to
// the codes, in turns.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/clones.h"
#include "kernels/decode.h"
#include "kernels/trellis.h"

namespace edgemoe {
namespace {

// Turns of codes and scales. A third lowers the error by less than 1 %.
constexpr int kTurns = 3;
// Scales tried for a block, as multiples of the one that gives its values the spread of a Gaussian's, and of
// the one that reaches its largest weight.
constexpr float kMultiples[] = {0.6f, 0.7f, 0.8f, 0.9f, 1.0f, 1.1f, 1.2f, 1.35f, 1.5f, 1.7f};
constexpr float kReaches[] = {0.7f, 0.85f, 1.0f};
constexpr int kNumScales = 16;

// A block of a row. Its error is estimated for a scale as the mean of what both halves of the table give.
struct Span {
    float weights[kBlock];
    float importance[kBlock];
    float size;     // root mean square
    float largest;  // of the magnitudes

    Span(const float* w, const float* given) {
        float sum = 0;
        largest = 0;
        for (std::int64_t i = 0; i < kBlock; ++i) {
            largest = std::max(largest, std::fabs(w[i]));
            weights[i] = w[i];
            importance[i] = given == nullptr ? 1.0f : given[i];
            sum += w[i] * w[i];
        }
        size = std::sqrt(sum / kBlock);
    }
};

EDGEMOE_FOR_EACH_ISA float estimated_error(const Span& span, const TrellisLevels& levels, float scale) {
    const float inverse = scale > 0 ? 1 / scale : 0.0f;
    float least[2][kBlock];
    for (auto& half : least) std::fill_n(half, kBlock, 1e30f);
    for (int number = 0; number < levels.count; ++number) {
        const float level = levels.values[number];
        float* half = least[number % 2];
        for (std::int64_t i = 0; i < kBlock; ++i) {
            const float distance = span.weights[i] * inverse - level;
            half[i] = std::min(half[i], distance * distance);
        }
    }
    float error = 0;
    for (std::int64_t i = 0; i < kBlock; ++i) error += span.importance[i] * (least[0][i] + least[1][i]);
    return error * scale * scale;
}

// Rows of one group on their way; arrays are [kRowGroup][blocks] and [kRowGroup][cols].
class Group {
  public:
    Group(const float* w, std::int64_t rows, std::int64_t cols, Format format, const float* importance,
          std::uint8_t* packed)
        : w_(w),
          rows_(rows),
          cols_(cols),
          format_(format),
          importance_(importance),
          packed_(packed),
          levels_(format),
          numbers_(static_cast<std::size_t>(rows * cols / kBlock)),
          bases_(static_cast<std::size_t>(rows)),
          values_(static_cast<std::size_t>(rows * cols)) {}

    void choose_scales() {
        for (std::int64_t r = 0; r < rows_; ++r) choose_scales_of_row(r);
    }

    void choose_codes() {
        for (std::int64_t col = 0; col < cols_; col += kQuad) encode(col);
    }

    // Each block's scale becomes the nearest to the best one for its codes.
    void fit_scales() {
        for (std::int64_t r = 0; r < rows_; ++r) {
            for (std::int64_t col = 0; col < cols_ && bases_[r] > 0; col += kBlock) {
                const Fit fit = fit_of(r, col, col + kBlock, /*is_scaled=*/false);
                if (!(fit.square > 0)) continue;
                number(r, col) = nearest_scale(fit.product / fit.square / bases_[r]);
            }
        }
    }

    // The same for the base of each row.
    void fit_bases() {
        for (std::int64_t r = 0; r < rows_; ++r) {
            const Fit fit = fit_of(r, 0, cols_, /*is_scaled=*/true);
            if (fit.square > 0 && fit.product > 0) set_base(r, static_cast<float>(fit.product / fit.square));
        }
    }

    void store_scales() const {
        for (std::int64_t r = 0; r < rows_; ++r) {
            const std::uint16_t base = bf16_of_float(bases_[r]);
            std::memcpy(packed_ + 2 * r, &base, sizeof base);
            for (std::int64_t block = 0; block < cols_ / kBlock; ++block) {
                const int number = numbers_[r * cols_ / kBlock + block];
                packed_[block_scale_offset(format_, block) + r % 8] |= number << (r < 8 ? 0 : 4);
            }
        }
    }

  private:
    struct Fit {
        double product, square;  // of weights and values, and of values
    };

    std::uint8_t& number(std::int64_t row, std::int64_t col) {
        return numbers_[row * cols_ / kBlock + col / kBlock];
    }
    float scale(std::int64_t row, std::int64_t col) {
        return bases_[row] * static_cast<float>(kNibbleScales[number(row, col)]);
    }
    void set_base(std::int64_t row, float base) { bases_[row] = float_of_bf16(bf16_of_float(base)); }

    Span span(std::int64_t row, std::int64_t col) const {
        return {w_ + row * cols_ + col, importance_ == nullptr ? nullptr : importance_ + col};
    }

    static std::uint8_t nearest_scale(double wanted) {
        int best = 0;
        for (int i = 1; i < kNumScales; ++i) {
            if (std::fabs(kNibbleScales[i] - wanted) < std::fabs(kNibbleScales[best] - wanted)) best = i;
        }
        return static_cast<std::uint8_t>(best);
    }

    void choose_scales_of_row(std::int64_t r) {
        float largest = 0;
        for (std::int64_t col = 0; col < cols_; col += kBlock) {
            largest = std::max(largest, free_scale(span(r, col)));
        }
        set_base(r, largest / kNibbleScales[kNumScales - 1]);
        for (std::int64_t col = 0; col < cols_ && bases_[r] > 0; col += kBlock) {
            number(r, col) = best_scale(span(r, col), bases_[r]);
        }
    }

    float reaching_scale(const Span& span) const { return span.largest / levels_.values[levels_.count - 1]; }

    // The best scale of a block, if every one could be stored.
    float free_scale(const Span& span) const {
        float best = 0, least = HUGE_VALF;
        const auto consider = [&](float scale) {
            const float error = estimated_error(span, levels_, scale);
            if (error < least) best = scale, least = error;
        };
        for (const float multiple : kMultiples) consider(multiple * span.size / levels_.spread);
        for (const float reach : kReaches) consider(reach * reaching_scale(span));
        return best;
    }

    std::uint8_t best_scale(const Span& span, float base) const {
        if (!(span.size > 0)) return 0;
        const float lowest = span.size / levels_.spread * kMultiples[0];
        const float highest = std::max(3 * lowest, 1.2f * reaching_scale(span));
        int best = 1;
        float least = HUGE_VALF;
        for (int i = 1; i < kNumScales; ++i) {
            const float scale = base * static_cast<float>(kNibbleScales[i]);
            if (scale < lowest && i < kNumScales - 1) continue;
            const float error = estimated_error(span, levels_, scale);
            if (error < least) best = i, least = error;
            if (scale > highest) break;
        }
        return static_cast<std::uint8_t>(best);
    }

    void encode(std::int64_t first_col) {
        QuadTarget target;
        for (std::int64_t r = 0; r < rows_; ++r) {
            for (std::int64_t col = first_col; col < first_col + kQuad; ++col) {
                const float s = scale(r, col);
                if (!(s > 0)) continue;
                target.wanted[cycle_place(r, col)] = w_[r * cols_ + col] / s;
                target.weights[cycle_place(r, col)] =
                    (importance_ == nullptr ? 1.0f : importance_[col]) * s * s;
            }
        }
        QuadCodes codes;
        encode_quad(levels_, target, codes);
        set_quad(format_, codes_of_block(format_, packed_, cols_, first_col), first_col % kBlock / kQuad,
                 codes);
        for (std::int64_t r = 0; r < rows_; ++r) {
            for (std::int64_t col = first_col; col < first_col + kQuad; ++col) {
                values_[r * cols_ + col] = levels_.values[codes.numbers[cycle_place(r, col)]];
            }
        }
    }

    Fit fit_of(std::int64_t row, std::int64_t begin, std::int64_t end, bool is_scaled) {
        Fit fit = {};
        for (std::int64_t col = begin; col < end; ++col) {
            const std::int64_t i = row * cols_ + col;
            const double value = is_scaled ? values_[i] * kNibbleScales[number(row, col)] : values_[i];
            const double weighted = importance_ == nullptr ? value : value * importance_[col];
            fit.product += weighted * w_[i];
            fit.square += weighted * value;
        }
        return fit;
    }

    const float* w_;
    std::int64_t rows_, cols_;
    Format format_;
    const float* importance_;
    std::uint8_t* packed_;
    TrellisLevels levels_;
    std::vector<std::uint8_t> numbers_;
    std::vector<float> bases_, values_;
};

}  // namespace

void quantize_trellis_group(const float* w, std::int64_t rows, std::int64_t cols, Format format,
                            const float* importance, std::uint8_t* packed) {
    Group group(w, rows, cols, format, importance, packed);
    group.choose_scales();
    for (int turn = 0; turn < kTurns; ++turn) {
        if (turn > 0) group.fit_scales();
        group.choose_codes();
    }
    group.fit_bases();
    group.store_scales();
}

}  // namespace edgemoe
