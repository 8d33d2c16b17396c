// Products with packed matrices on all threads. Letters: T tokens, M columns, N rows, D model width,
// F expert width. The result for one token does not depend, in any bit, on the other tokens of the call
// or on the number of threads.
#pragma once

#include <optional>
#include <span>
#include <vector>

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

// out [T][D] = down(act(gate(x)) * up(x)) for x [T][D]; gate == nullptr: down(act(up(x))). With `rows` [T]
// the tokens are those rows of x. `biases` (or nullptr) are added to the products of the matrices: F of the
// gate, if there is one, F of up and D of down, one after the other.
void expert_ffn(const float* x, std::int64_t num_tokens, const Matrix* gate, const Matrix& up,
                const Matrix& down, Activation activation, float* out, const std::int32_t* rows = nullptr,
                const float* biases = nullptr);

// Most bytes that expert_ffn takes at a time, whatever the formats: for all rows of x, or for chosen ones.
std::int64_t expert_ffn_bytes(std::int64_t num_tokens, std::int64_t width, std::int64_t inner_width,
                              bool has_gate, bool chooses_rows);

// One expert; some families have no gate.
struct ExpertMatrices {
    std::optional<Matrix> gate;
    Matrix up;
    Matrix down;
    const float* biases = nullptr;  // see expert_ffn
};

// One that some tokens have chosen, and where its outputs [num_rows][D] go. All have the same D and F, and
// all have a gate or none, and biases or none.
struct ChosenExpert {
    ExpertMatrices matrices;
    const std::int32_t* rows;  // of the tokens; nullptr where there is one token at all
    std::int64_t num_rows;
    float* out;
};

// What expert_ffn gives for each expert and its rows of x [T][D], with the bits of separate calls. All
// experts share two loops: with small experts, starting and ending a loop for each would cost as much as a
// third of the reading, and most would be computed by one thread.
void expert_ffns(const float* x, std::int64_t num_tokens, const std::vector<ChosenExpert>& experts,
                 Activation activation);

// Most bytes that expert_ffns takes at a time, whatever the formats, for T tokens with so many experts each.
std::int64_t expert_ffns_bytes(std::int64_t num_tokens, std::int64_t top_k, std::int64_t width,
                               std::int64_t inner_width);

}  // namespace edgemoe
