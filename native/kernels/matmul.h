// Products with packed matrices on all threads. Letters: T tokens, M columns, N rows, D model width,
// F expert width. The result for one token does not depend, in any bit, on the other tokens of the call
// or on the number of threads.
#pragma once

#include "kernels/kernels.h"

namespace edgemoe {

// out [T][N] = x [T][M] times w transposed.
void matmul(const float* x, std::int64_t num_tokens, const Matrix& w, float* out);

// out [T][D] = down(act(gate(x)) * up(x)) for x [T][D]; gate == nullptr: down(act(up(x))).
void expert_ffn(const float* x, std::int64_t num_tokens, const Matrix* gate, const Matrix& up,
                const Matrix& down, Activation activation, float* out);

}  // namespace edgemoe
