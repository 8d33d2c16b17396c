// Products with packed matrices on all threads. Letters: T tokens, M columns, N rows. The result for one
// token does not depend, in any bit, on the other tokens of the call or on the number of threads.
#pragma once

#include <span>

#include "kernels/kernels.h"

namespace edgemoe {

// out [T][N] = x [T][M] times w transposed.
void matmul(const float* x, std::int64_t num_tokens, const Matrix& w, float* out);

// matmul() of x [T][m], whose rows may be up to a block shorter than those of w [N][M]: columns that are
// missing count as zeros.
void matmul_filled(const float* x, std::int64_t num_tokens, std::int64_t num_cols, const Matrix& w,
                   float* out);

// A matrix that x [T][M] is multiplied with, and where the product [T][N] goes.
struct Product {
    const Matrix* matrix;
    float* out;
};

// matmul() with each of several matrices of M columns, with its bits, in one loop: x is rounded once, and
// threads meet once.
void matmul_each(const float* x, std::int64_t num_tokens, std::span<const Product> products);

// out [P][T][N] = x [P][T][M] times, for each of P parts, the rows [p N, (p + 1) N) of w [P N][M] transposed.
// N is a multiple of kRowGroup.
void matmul_parts(const float* x, std::int64_t num_tokens, const Matrix& w, std::int64_t num_parts,
                  float* out);

// Bytes that products of T rows [M] with low-bit matrices take for the rows' 8-bit form.
std::int64_t rounded_bytes(std::int64_t num_rows, std::int64_t num_cols, bool are_apart = false);

// The length of packed rows that have room for so many columns.
constexpr std::int64_t filled_cols(std::int64_t num_cols) {
    return (num_cols + kBlock - 1) / kBlock * kBlock;
}

// Bytes that matmul_filled takes for T rows [m].
std::int64_t filled_bytes(std::int64_t num_rows, std::int64_t num_cols);

}  // namespace edgemoe
