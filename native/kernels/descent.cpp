// Coordinate descent on the codes of a row (as in QuantEase, arXiv 2309.01885): with all other codes fixed,
// the best value of one is known in closed form, and is rounded to the nearest that can be stored. Columns
// take turns until nothing changes. Then each row's base, one factor for all of its weights, is set to the
// best one and the codes have a second go.
//
// The codes of a trellis are chosen for a quad of columns at a time, by the encoder.
//
// A change of column j by d changes the gradient of the row by -d times row j of the gram. The 16 rows of a
// group share each row of the gram while it is in the cache.
#include "kernels/descent.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/thread_pool.h"
#include "kernels/clones.h"
#include "kernels/decode.h"
#include "kernels/trellis.h"

namespace edgemoe {
namespace {

// Four sweeps give all but about one per cent of what ten do.
constexpr int kSweeps = 4;
// Gram rows added at a time: the gradient is loaded and stored once for all of them.
constexpr std::int64_t kAtOnce = 4;

EDGEMOE_FOR_EACH_ISA void add_scaled(float* out, const float* row, float factor, std::int64_t cols) {
    for (std::int64_t i = 0; i < cols; ++i) out[i] += factor * row[i];
}

EDGEMOE_FOR_EACH_ISA void add_four_scaled(float* out, const float* rows, const float* factors,
                                          std::int64_t cols) {
    const float a = factors[0], b = factors[1], c = factors[2], d = factors[3];
    const float *ra = rows, *rb = rows + cols, *rc = rb + cols, *rd = rc + cols;
    for (std::int64_t i = 0; i < cols; ++i) out[i] += (a * ra[i] + b * rb[i]) + (c * rc[i] + d * rd[i]);
}

// 16 rows on their way; arrays are [kRowGroup][cols].
class Group {
  public:
    Group(const float* w, std::int64_t rows, std::int64_t cols, Format format, const float* gram,
          std::uint8_t* packed)
        : rows_(rows), cols_(cols), format_(format), levels_(format), gram_(gram), packed_(packed) {
        for (auto* array : {&scale_, &zero_, &code_, &value_}) array->resize(rows * cols);
        unpack();
        std::vector<float> error(value_.size());
        for (std::size_t i = 0; i < error.size(); ++i) error[i] = w[i] - value_[i];
        multiply(error, gradient_);
    }

    void descend() {
        for (int i = 0; i < kSweeps && (is_trellis(format_) ? sweep_quads() : sweep()); ++i) {
        }
    }

    // Sets each row's base to the nearest that can be stored to the one of least error; that error is a
    // parabola of the base, and the present base can be stored, so it does not rise.
    void fit_bases() {
        multiply(value_, product_);
        for (std::int64_t r = 0; r < rows_; ++r) {
            double along = 0, curve = 0;  // q (w G)^T and q G q^T, where w G = q G + gradient
            for (std::int64_t i = r * cols_; i < (r + 1) * cols_; ++i) {
                curve += double{value_[i]} * product_[i];
                along += double{value_[i]} * (product_[i] + gradient_[i]);
            }
            if (!(curve > 0) || !(along > 0)) continue;
            const float base = decode_base(format_, packed_, r);
            const std::uint16_t stored = bf16_of_float(static_cast<float>(base * along / curve));
            std::memcpy(packed_ + 2 * r, &stored, sizeof stored);
            const float growth = float_of_bf16(stored) / base;
            for (std::int64_t i = r * cols_; i < (r + 1) * cols_; ++i) {
                scale_[i] *= growth;
                value_[i] *= growth;
                gradient_[i] += (1 - growth) * product_[i];
            }
        }
    }

    void store_codes() {
        if (is_trellis(format_)) return;  // stored as they were found
        for (std::int64_t r = 0; r < rows_; ++r) {
            for (std::int64_t j = 0; j < cols_; ++j) {
                set_code(format_, block_codes(j), r, j % kBlock,
                         static_cast<std::uint8_t>(code_[r * cols_ + j]));
            }
        }
    }

  private:
    std::uint8_t* block_codes(std::int64_t col) {
        return packed_ + group_header_bytes(format_, cols_) + col / kBlock * block_code_bytes(format_);
    }

    void unpack() {
        for (std::int64_t r = 0; r < rows_; ++r) {
            const float base = decode_base(format_, packed_, r);
            for (std::int64_t j = 0; j < cols_; ++j) {
                const std::int64_t i = r * cols_ + j;
                const BlockScale s = scale_in_group(format_, packed_, j / kBlock, r, j % kBlock / 16);
                scale_[i] = base * s.scale;
                zero_[i] = s.zero;
                const std::uint8_t* own = packed_ + block_scale_offset(format_, j / kBlock);
                code_[i] = is_trellis(format_) ? value_in_block(format_, block_codes(j), own, r, j % kBlock)
                                               : get_code(format_, block_codes(j), r, j % kBlock);
                value_[i] = scale_[i] * (code_[i] - zero_[i]);
            }
        }
    }

    // The product of every row of x with the gram.
    void multiply(const std::vector<float>& x, std::vector<float>& out) const {
        out.assign(x.size(), 0.0f);
        for (std::int64_t j = 0; j < cols_; j += kAtOnce) {
            for (std::int64_t r = 0; r < rows_; ++r) {
                add_four_scaled(&out[r * cols_], gram_ + j * cols_, &x[r * cols_ + j], cols_);
            }
        }
    }

    // One turn of every column; says whether any code changed.
    bool sweep() {
        const float largest_code = static_cast<float>((1 << code_bits(format_)) - 1);
        bool has_changed = false;
        for (std::int64_t j = 0; j < cols_; ++j) {
            const float* row = gram_ + j * cols_;
            for (std::int64_t r = 0; r < rows_; ++r) {
                const std::int64_t i = r * cols_ + j;
                if (!(scale_[i] > 0)) continue;
                const float wanted = value_[i] + gradient_[i] / row[j];
                const float code =
                    std::clamp(std::nearbyint(wanted / scale_[i] + zero_[i]), 0.0f, largest_code);
                if (code == code_[i]) continue;
                const float value = scale_[i] * (code - zero_[i]);
                add_scaled(&gradient_[r * cols_], row, value_[i] - value, cols_);
                code_[i] = code;
                value_[i] = value;
                has_changed = true;
            }
        }
        return has_changed;
    }

    // For the best values of a column all others stay as they are, but for those of the quad that come
    // before.
    struct Wanted : QuadTarget {
        Wanted(const Group& group_, std::int64_t first_) : group(group_), first(first_) {
            for (std::int64_t c = 0; c < kQuad; ++c) begin_column(c, nullptr);
            follows = true;
        }

        void begin_column(std::int64_t col, const std::uint8_t* numbers) override {
            const std::int64_t j = first + col;
            const float weight = group.gram_[j * group.cols_ + j];
            for (std::int64_t r = 0; r < group.rows_; ++r) {
                const std::int64_t i = r * group.cols_ + j, place = cycle_place(r, j);
                if (!(group.scale_[i] > 0)) continue;
                float gradient = group.gradient_[i];
                for (std::int64_t c = col + 1; numbers != nullptr && c < kQuad; ++c) {
                    const std::int64_t k = i + c - col;
                    const float value = group.scale_[k] * group.levels_.values[numbers[cycle_place(r, c)]];
                    gradient += (group.value_[k] - value) * group.gram_[j * group.cols_ + first + c];
                }
                wanted[place] = (group.value_[i] + gradient / weight) / group.scale_[i];
                weights[place] = weight * group.scale_[i] * group.scale_[i];
            }
        }

        const Group& group;
        std::int64_t first;
    };

    // One turn of every quad of columns.
    bool sweep_quads() {
        bool has_changed = false;
        for (std::int64_t j = 0; j < cols_; j += kQuad) has_changed |= choose_quad(j);
        return has_changed;
    }

    // The encoder's choice for columns [first, first + kQuad) as if these were unrelated, if the error falls.
    bool choose_quad(std::int64_t first) {
        Wanted target(*this, first);
        QuadCodes codes;
        encode_quad(levels_, target, codes);
        float change[kRowGroup][kQuad];
        for (std::int64_t r = 0; r < rows_; ++r) {
            for (std::int64_t c = 0; c < kQuad; ++c) {
                const std::int64_t i = r * cols_ + first + c;
                change[r][c] = value_[i] - scale_[i] * levels_.values[codes.numbers[cycle_place(r, c)]];
            }
        }
        if (!(error_change(change, first) < 0)) return false;
        for (std::int64_t r = 0; r < rows_; ++r) {
            add_four_scaled(&gradient_[r * cols_], gram_ + first * cols_, change[r], cols_);
            for (std::int64_t c = 0; c < kQuad; ++c) value_[r * cols_ + first + c] -= change[r][c];
        }
        set_quad(format_, block_codes(first), first % kBlock / kQuad, codes);
        return true;
    }

    // What the squared error changes by when values fall by `change`.
    double error_change(const float (&change)[kRowGroup][kQuad], std::int64_t first) const {
        double sum = 0;
        for (std::int64_t r = 0; r < rows_; ++r) {
            for (std::int64_t c = 0; c < kQuad; ++c) {
                double pull = 2.0 * gradient_[r * cols_ + first + c];
                for (std::int64_t d = 0; d < kQuad; ++d) {
                    pull += double{change[r][d]} * gram_[(first + c) * cols_ + first + d];
                }
                sum += change[r][c] * pull;
            }
        }
        return sum;
    }

    std::int64_t rows_, cols_;
    Format format_;
    TrellisLevels levels_;
    const float* gram_;
    std::uint8_t* packed_;
    std::vector<float> scale_, zero_, code_, value_, gradient_, product_;
};

}  // namespace

void refine(const float* w, std::int64_t rows, std::int64_t cols, Format format, const float* gram,
            std::uint8_t* packed) {
    parallel_for(num_groups(rows), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t g = begin; g < end; ++g) {
            const std::int64_t first = g * kRowGroup;
            Group group(w + first * cols, std::min(kRowGroup, rows - first), cols, format, gram,
                        packed + g * group_bytes(format, cols));
            group.descend();
            group.fit_bases();
            group.descend();
            group.store_codes();
        }
    });
}

}  // namespace edgemoe
