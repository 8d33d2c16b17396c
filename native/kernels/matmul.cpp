#include "kernels/matmul.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "core/thread_pool.h"

namespace edgemoe {
namespace {

// Tokens quantised by one thread at a time; a decode step has one and stays on the caller.
constexpr std::int64_t kTokenGrain = 8;
// Weight bytes times tokens that a thread takes at least: below some 5 us of work, waking another costs more
// than it saves. Small experts stay on the calling thread.
constexpr std::int64_t kBytesPerPiece = 128 * 1024;
constexpr std::int64_t kFloatBytes = sizeof(float);

constexpr std::align_val_t kLine{kAlignment};
struct FreeAligned {
    void operator()(std::uint8_t* p) const { ::operator delete(p, kLine); }
};
using AlignedBytes = std::unique_ptr<std::uint8_t, FreeAligned>;

AlignedBytes aligned_bytes(std::int64_t count) {
    return AlignedBytes(static_cast<std::uint8_t*>(::operator new(static_cast<std::size_t>(count), kLine)));
}

// Zeros for the rows that the last tile lacks.
void clear_room(std::int64_t num_rows, std::int64_t cols, std::uint8_t* blocks) {
    const std::int64_t row_bytes = cols / kBlock * kTokenBlockBytes, room = rounded_bytes(num_rows, cols);
    const std::int64_t whole = num_rows / kLargestTile * kLargestTile;
    if (room == num_rows * row_bytes) return;
    std::memset(blocks + whole * row_bytes, 0, static_cast<std::size_t>(room - whole * row_bytes));
}

// T rows of activations, with their 8-bit form when a low-bit matrix needs it. Rows that are not multiplied
// with the same matrix are kept apart.
class QuantizedRows {
  public:
    QuantizedRows(const float* x, std::int64_t num_tokens, std::int64_t cols, bool needs_codes,
                  bool are_apart = false)
        : activations_{x, nullptr, num_tokens, cols, are_apart} {
        if (!needs_codes) return;
        blocks_ = aligned_bytes(rounded_bytes(num_tokens, cols, are_apart));
        if (!are_apart) clear_room(num_tokens, cols, blocks_.get());
        const Kernels& kernels = active_kernels();
        parallel_for(num_tokens, kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
            kernels.quantize_rows(activations_, begin, end, blocks_.get());
        });
        activations_.blocks = blocks_.get();
    }

    const Activations& operator*() const { return activations_; }

    // Row t alone, of rows that are kept apart.
    Activations row(std::int64_t t) const {
        const Activations& all = activations_;
        const std::int64_t offset = t * all.cols / kBlock * kTokenBlockBytes;
        const std::uint8_t* blocks = all.blocks != nullptr ? all.blocks + offset : nullptr;
        return {all.values + t * all.cols, blocks, 1, all.cols, true};
    }

  private:
    AlignedBytes blocks_;
    Activations activations_;
};

// Most bytes of the 8-bit forms of so many rows in parts, whose last tiles are more than half filled.
std::int64_t parted_bytes(std::int64_t num_rows, std::int64_t cols) {
    return 2 * num_rows * (cols / kBlock) * kTokenBlockBytes;
}

// Rows [R][M] in parts, the rows [starts[p], starts[p + 1]) of each multiplied with a matrix of its own, with
// their 8-bit form when some of these need it.
class PartedRows {
  public:
    PartedRows(const float* values, std::int64_t cols, std::vector<std::int64_t> starts, bool needs_codes)
        : values_(values), cols_(cols), starts_(std::move(starts)) {
        if (!needs_codes) return;
        std::int64_t num_bytes = 0;
        for (std::size_t p = 0; p + 1 < starts_.size(); ++p) {
            places_.push_back(num_bytes);
            num_bytes += rounded_bytes(starts_[p + 1] - starts_[p], cols);
        }
        blocks_ = aligned_bytes(num_bytes);
        const Kernels& kernels = active_kernels();
        parallel_for(std::ssize(places_), kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
            for (auto p = static_cast<std::size_t>(begin); p < static_cast<std::size_t>(end); ++p) {
                const std::int64_t num_rows = starts_[p + 1] - starts_[p];
                std::uint8_t* const to = blocks_.get() + places_[p];
                clear_room(num_rows, cols_, to);
                kernels.quantize_rows(part(p), 0, num_rows, to);
            }
        });
    }

    Activations part(std::size_t p) const {
        const std::uint8_t* blocks = blocks_ != nullptr ? blocks_.get() + places_[p] : nullptr;
        return {values_ + starts_[p] * cols_, blocks, starts_[p + 1] - starts_[p], cols_, false};
    }

  private:
    const float* values_;
    std::int64_t cols_;
    std::vector<std::int64_t> starts_, places_;
    AlignedBytes blocks_;
};

std::int64_t group_grain(const Matrix& w, std::int64_t num_tokens) {
    return std::max<std::int64_t>(1, kBytesPerPiece / (group_bytes(w.format, w.cols) * num_tokens));
}

// Calls body(part, begin, end) for the ranges of equally long parts that [begin, end) of all parts covers.
template <typename Body>
void for_each_part(std::int64_t begin, std::int64_t end, std::int64_t length, const Body& body) {
    while (begin < end) {
        const std::int64_t part = begin / length, stop = std::min(end, (part + 1) * length);
        body(static_cast<std::size_t>(part), begin - part * length, stop - part * length);
        begin = stop;
    }
}

// Adds bias to the columns [first, last) of every row of out, `stride` values each.
void add_bias(const float* bias, std::int64_t first, std::int64_t last, std::int64_t num_rows,
              std::int64_t stride, float* out) {
    for (std::int64_t t = 0; t < num_rows; ++t) {
        for (std::int64_t i = first; i < last; ++i) out[t * stride + i] += bias[i];
    }
}

// The rows of x [T][M] that each expert has, one expert's after the other's.
std::unique_ptr<float[]> rows_of_experts(const float* x, std::int64_t cols,
                                         const std::vector<ChosenExpert>& experts) {
    std::int64_t count = 0;
    for (const ChosenExpert& expert : experts) count += expert.num_rows;
    auto rows = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(count * cols));
    float* to = rows.get();
    for (const ChosenExpert& expert : experts) {
        for (std::int64_t i = 0; i < expert.num_rows; ++i, to += cols) {
            std::copy_n(x + expert.rows[i] * cols, cols, to);
        }
    }
    return rows;
}

}  // namespace

std::int64_t rounded_bytes(std::int64_t num_rows, std::int64_t num_cols, bool are_apart) {
    const std::int64_t row_bytes = num_cols / kBlock * kTokenBlockBytes;
    if (num_rows == 1 || are_apart) return num_rows * row_bytes;
    return room_in_tiles(num_rows) * row_bytes;
}

std::int64_t filled_bytes(std::int64_t num_rows, std::int64_t num_cols) {
    const std::int64_t cols = filled_cols(num_cols);
    return rounded_bytes(num_rows, cols) + (cols == num_cols ? 0 : num_rows * cols * kFloatBytes);
}

std::int64_t expert_ffn_bytes(std::int64_t num_tokens, std::int64_t width, std::int64_t inner_width,
                              bool has_gate, bool chooses_rows) {
    const std::int64_t chosen = chooses_rows ? num_tokens * width * kFloatBytes : 0;
    const std::int64_t hidden = (has_gate ? 2 : 1) * num_tokens * inner_width * kFloatBytes;
    return chosen + rounded_bytes(num_tokens, width) + hidden + rounded_bytes(num_tokens, inner_width);
}

std::int64_t expert_ffns_bytes(std::int64_t num_tokens, std::int64_t top_k, std::int64_t width,
                               std::int64_t inner_width) {
    const std::int64_t num_rows = num_tokens * top_k;
    const std::int64_t hidden = 2 * num_rows * inner_width * kFloatBytes;
    if (num_tokens == 1) {
        return rounded_bytes(1, width) + hidden + rounded_bytes(num_rows, inner_width, /*are_apart=*/true);
    }
    const std::int64_t chosen = num_rows * width * kFloatBytes;
    return chosen + parted_bytes(num_rows, width) + hidden + parted_bytes(num_rows, inner_width);
}

void matmul(const float* x, std::int64_t num_tokens, const Matrix& w, float* out) {
    const Product product = {&w, out};
    matmul_each(x, num_tokens, {&product, 1});
}

void matmul_filled(const float* x, std::int64_t num_tokens, std::int64_t num_cols, const Matrix& w,
                   float* out) {
    if (num_cols == w.cols) {
        matmul(x, num_tokens, w, out);
        return;
    }
    const auto filled = std::make_unique<float[]>(static_cast<std::size_t>(num_tokens * w.cols));
    for (std::int64_t t = 0; t < num_tokens; ++t) {
        std::copy_n(x + t * num_cols, num_cols, filled.get() + t * w.cols);
    }
    matmul(filled.get(), num_tokens, w, out);
}

void matmul_each(const float* x, std::int64_t num_tokens, std::span<const Product> products) {
    if (num_tokens == 0) return;
    const Kernels& kernels = active_kernels();
    std::int64_t groups = 0, grain = 1;
    bool needs_codes = false;
    for (const auto& [w, out] : products) {
        groups += num_groups(w->rows);
        grain = std::max(grain, group_grain(*w, num_tokens));
        needs_codes |= is_low_bit(w->format);
    }
    const QuantizedRows rows(x, num_tokens, products.front().matrix->cols, needs_codes);
    parallel_for(groups, grain, [&](std::int64_t begin, std::int64_t end) {
        std::int64_t first = 0;  // of this matrix
        for (const auto& [w, out] : products) {
            const std::int64_t count = num_groups(w->rows);
            const std::int64_t from = std::max(begin, first) - first, to = std::min(end - first, count);
            if (from < to) kernels.matmul(*w, *rows, from, to, out, w->rows);
            first += count;
        }
    });
}

void matmul_parts(const float* x, std::int64_t num_tokens, const Matrix& w, std::int64_t num_parts,
                  float* out) {
    const std::int64_t rows = w.rows / num_parts, groups = num_groups(rows);
    const std::int64_t part_bytes = groups * group_bytes(w.format, w.cols);
    const auto part_of = [&](std::int64_t p) -> Matrix {
        return {w.packed + p * part_bytes, w.format, rows, w.cols};
    };
    if (num_tokens > 1) {
        for (std::int64_t p = 0; p < num_parts; ++p) {
            matmul(x + p * num_tokens * w.cols, num_tokens, part_of(p), out + p * num_tokens * rows);
        }
        return;
    }
    // One loop for all parts of a token: each takes less time than threads take to meet.
    const Kernels& kernels = active_kernels();
    const QuantizedRows inputs(x, num_parts, w.cols, is_low_bit(w.format), /*are_apart=*/true);
    parallel_for(num_parts * groups, group_grain(w, 1), [&](std::int64_t begin, std::int64_t end) {
        for_each_part(begin, end, groups, [&](std::size_t part, std::int64_t from, std::int64_t to) {
            const auto p = static_cast<std::int64_t>(part);
            kernels.matmul(part_of(p), inputs.row(p), from, to, out + p * rows, rows);
        });
    });
}

void expert_ffn(const float* x, std::int64_t num_tokens, const Matrix* gate, const Matrix& up,
                const Matrix& down, Activation activation, float* out, const std::int32_t* rows,
                const float* biases) {
    if (num_tokens == 0) return;
    const Kernels& kernels = active_kernels();
    const std::int64_t width = up.rows;
    std::unique_ptr<float[]> chosen;
    if (rows != nullptr) {
        chosen = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(num_tokens * up.cols));
        parallel_for(num_tokens, kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t t = begin; t < end; ++t) {
                std::copy_n(x + rows[t] * up.cols, up.cols, chosen.get() + t * up.cols);
            }
        });
        x = chosen.get();
    }
    const bool needs_codes = is_low_bit(up.format) || (gate != nullptr && is_low_bit(gate->format));
    const QuantizedRows inputs(x, num_tokens, up.cols, needs_codes);
    const auto size = static_cast<std::size_t>(num_tokens * width);
    const auto hidden = std::make_unique_for_overwrite<float[]>(gate != nullptr ? 2 * size : size);
    float* const gated = hidden.get();
    float* const raised = gate != nullptr ? gated + size : nullptr;
    parallel_for(num_groups(width), group_grain(up, num_tokens), [&](std::int64_t begin, std::int64_t end) {
        kernels.matmul(gate != nullptr ? *gate : up, *inputs, begin, end, gated, width);
        if (gate != nullptr) kernels.matmul(up, *inputs, begin, end, raised, width);
        const std::int64_t first = begin * kRowGroup, last = std::min(end * kRowGroup, width);
        if (biases != nullptr) {
            add_bias(biases, first, last, num_tokens, width, gated);
            if (raised != nullptr) add_bias(biases + width, first, last, num_tokens, width, raised);
        }
        for (std::int64_t t = 0; t < num_tokens; ++t) {
            const std::int64_t offset = t * width + first;
            kernels.activate(activation, gated + offset, raised != nullptr ? raised + offset : nullptr,
                             last - first);
        }
    });
    matmul(gated, num_tokens, down, out);
    if (biases == nullptr) return;
    add_bias(biases + (gate != nullptr ? 2 : 1) * width, 0, down.rows, num_tokens, down.rows, out);
}

void expert_ffns(const float* x, std::int64_t num_tokens, const std::vector<ChosenExpert>& experts,
                 Activation activation) {
    if (experts.empty()) return;
    const Kernels& kernels = active_kernels();
    const auto count = static_cast<std::int64_t>(experts.size());
    const Matrix &any_up = experts.front().matrices.up, &any_down = experts.front().matrices.down;
    const bool has_gate = experts.front().matrices.gate.has_value();
    const std::int64_t width = any_up.rows;
    const bool needs_codes = std::any_of(experts.begin(), experts.end(), [](const ChosenExpert& expert) {
        const auto& [gate, up, down, biases] = expert.matrices;
        return is_low_bit(up.format) || (gate && is_low_bit(gate->format));
    });
    const bool needs_hidden_codes =
        std::any_of(experts.begin(), experts.end(),
                    [](const ChosenExpert& expert) { return is_low_bit(expert.matrices.down.format); });
    std::vector<std::int64_t> starts = {0};
    for (const ChosenExpert& expert : experts) starts.push_back(starts.back() + expert.num_rows);
    // A single token is the input of all, rounded once.
    const bool is_shared = num_tokens == 1;
    const std::unique_ptr<float[]> chosen = is_shared ? nullptr : rows_of_experts(x, any_up.cols, experts);
    const PartedRows inputs(is_shared ? x : chosen.get(), any_up.cols,
                            is_shared ? std::vector<std::int64_t>{0, 1} : starts, needs_codes);
    const std::int64_t size = starts.back() * width;
    const auto hidden = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(2 * size));
    float* const gated = hidden.get();
    float* const raised = has_gate ? gated + size : nullptr;
    const std::int64_t up_groups = num_groups(width), down_groups = num_groups(any_down.rows);
    parallel_for(count * up_groups, group_grain(any_up, 1), [&](std::int64_t begin, std::int64_t end) {
        for_each_part(begin, end, up_groups, [&](std::size_t e, std::int64_t from, std::int64_t to) {
            const auto& [gate, up, down, biases] = experts[e].matrices;
            const std::int64_t num_rows = experts[e].num_rows, offset = starts[e] * width;
            const Activations rows = inputs.part(is_shared ? 0 : e);
            kernels.matmul(gate ? *gate : up, rows, from, to, gated + offset, width);
            if (gate) kernels.matmul(up, rows, from, to, raised + offset, width);
            const std::int64_t first = from * kRowGroup, last = std::min(to * kRowGroup, width);
            if (biases != nullptr) {
                add_bias(biases, first, last, num_rows, width, gated + offset);
                if (gate) add_bias(biases + width, first, last, num_rows, width, raised + offset);
            }
            for (std::int64_t t = 0; t < num_rows; ++t) {
                const std::int64_t place = offset + t * width + first;
                kernels.activate(activation, gated + place, gate ? raised + place : nullptr, last - first);
            }
        });
    });
    const PartedRows inner(gated, width, starts, needs_hidden_codes);
    parallel_for(count * down_groups, group_grain(any_down, 1), [&](std::int64_t begin, std::int64_t end) {
        for_each_part(begin, end, down_groups, [&](std::size_t e, std::int64_t from, std::int64_t to) {
            const auto& [matrices, rows, num_rows, out] = experts[e];
            const Matrix& down = matrices.down;
            kernels.matmul(down, inner.part(e), from, to, out, down.rows);
            if (matrices.biases == nullptr) return;
            add_bias(matrices.biases + (has_gate ? 2 : 1) * width, from * kRowGroup,
                     std::min(to * kRowGroup, down.rows), num_rows, down.rows, out);
        });
    });
}

}  // namespace edgemoe
