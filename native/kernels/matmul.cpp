#include "kernels/matmul.h"

#include <algorithm>
#include <memory>

#include "core/thread_pool.h"
#include "kernels/product_rows.h"

namespace edgemoe {

std::int64_t rounded_bytes(std::int64_t num_rows, std::int64_t num_cols, bool are_apart) {
    const std::int64_t row_bytes = num_cols / kBlock * kTokenBlockBytes;
    if (num_rows == 1 || are_apart) return num_rows * row_bytes;
    return room_in_tiles(num_rows) * row_bytes;
}

std::int64_t filled_bytes(std::int64_t num_rows, std::int64_t num_cols) {
    const std::int64_t cols = filled_cols(num_cols);
    const std::int64_t float_bytes = num_rows * cols * static_cast<std::int64_t>(sizeof(float));
    return rounded_bytes(num_rows, cols) + (cols == num_cols ? 0 : float_bytes);
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

}  // namespace edgemoe
