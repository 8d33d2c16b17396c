// The table of compute kernels. One instance per instruction set, chosen once at run time.
//
// Letters: T tokens, N rows, M columns. Guarantee of every kernel: the result for one token does not
// depend, in any bit, on the other tokens of the call or on how rows are shared among threads.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/layout.h"

namespace edgemoe {

// T activation rows, as floats and, for low-bit weights, in 8 bits per block of 32.
struct Activations {
    const float* values;       // [T][M]
    const std::int8_t* codes;  // [T][M]
    const float* scales;       // [T][M/32]
    const float* sums;         // [T][M/16], scale times sum of the codes
    std::int64_t num_tokens;
    std::int64_t cols;
};

struct Matrix {
    const std::uint8_t* packed;
    Format format;
    std::int64_t rows;
    std::int64_t cols;
};

enum class Activation : int { kSilu, kGelu, kRelu };

struct Kernels {
    const char* name;
    // Codes, scales and sums of rows [begin, end) of x [T][M].
    void (*quantize_rows)(const float* x, std::int64_t cols, std::int64_t begin, std::int64_t end,
                          std::int8_t* codes, float* scales, float* sums);
    // out[t][16 * g + lane] for all tokens and row groups [begin, end); out has `stride` floats a row.
    void (*matmul)(const Matrix& w, const Activations& x, std::int64_t group_begin, std::int64_t group_end,
                   float* out, std::int64_t stride);
    // gate[i] = act(gate[i]) * up[i]; up == nullptr: gate[i] = act(gate[i]).
    void (*activate)(Activation activation, float* gate, const float* up, std::int64_t n);
    // One query head [C] over S cached positions [S][C] in f16 or f32; scores [S] is scratch. bias [S] is
    // added to the scores unless it is nullptr.
    void (*attend)(const float* q, const void* keys, const void* values, bool is_f16,
                   std::int64_t num_positions, std::int64_t dim, float scale, const float* bias,
                   float* scores, float* out);
};

const Kernels* scalar_kernels();
#ifdef EDGEMOE_HAVE_AVX2
const Kernels* avx2_kernels();
#endif
#ifdef EDGEMOE_HAVE_AVX512
const Kernels* avx512_kernels();
#endif

// The instruction sets that were built and that this CPU runs, slowest first.
std::vector<const Kernels*> available_kernels();

// The fastest available one, or the one that EDGEMOE_ISA names. Throws std::runtime_error when that
// one was not built or cannot run here.
const Kernels& active_kernels();

// Makes `name` the active one (tests); same errors.
void force_kernels(const char* name);

}  // namespace edgemoe
