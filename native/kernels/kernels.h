// The table of compute kernels. One instance per instruction set, chosen once at run time.
//
// Letters: T tokens, N rows, M columns. Guarantee of every kernel: the result for one token does not
// depend, in any bit, on the other tokens of the call or on how rows are shared among threads.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/layout.h"

namespace edgemoe {

// std::min has external linkage, and vector code in it would run on processors without (see loops.h).
static constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// One block of 32 columns of T tokens in 8 bits, with all that a product needs of it side by side.
template <int T>
struct TokenBlock {
    std::int8_t codes[T][kBlock];
    float scales[T];
    float sums[T];          // scale times sum of the codes
    float half_sums[2][T];  // the same of columns 0-15 and 16-31
    // Initial integer sums: minus zero times the sum of codes. The zeros are 128 and 16 for a whole block and
    // 32 for each half; smaller zeros are halves of these.
    std::int32_t starts_128[T];
    std::int32_t half_starts_32[2][T];
    std::int32_t starts_16[T];
};
inline constexpr std::int64_t kTokenBlockBytes = 64;
static_assert(sizeof(TokenBlock<1>) == kTokenBlockBytes && sizeof(TokenBlock<8>) == 8 * kTokenBlockBytes);

// T activation rows, as floats and, for low-bit weights, in 8 bits: tiles of an instruction set's kMaxTokens
// tokens, each [M/32] blocks of so many tokens, the last one perhaps unfilled or, where few are left, a
// narrower one. There is room for whole tiles, and zeros where tokens lack.
inline constexpr std::int64_t kLargestTile = 16;
// Tokens that tiles have room for: the last one is more than half filled, as there are tiles of 1, 2, 4 and 8
// too.
inline constexpr std::int64_t room_in_tiles(std::int64_t num_tokens) {
    const std::int64_t whole = num_tokens / kLargestTile * kLargestTile, left = num_tokens - whole;
    std::int64_t room = left == 0 ? 0 : 1;
    while (room < left) room *= 2;
    return whole + room;
}
struct Activations {
    const float* values;         // [T][M]
    const std::uint8_t* blocks;  // [T][M/32] times kTokenBlockBytes
    std::int64_t num_tokens;
    std::int64_t cols;
    bool are_apart;  // every token is a tile of its own
};

struct Matrix {
    const std::uint8_t* packed;
    Format format;
    std::int64_t rows;
    std::int64_t cols;
};

// What is done with the inner values of a network. Clamped SwiGLU takes the gate up to `gate_limit` and up
// between -limit and limit; the logistic function is of `alpha` times the gate; and up is raised by `raise`,
// 1 in gpt-oss. Capped SwiGLU bends the gate, after its logistic function is taken, and up towards their
// limits by a hyperbolic tangent.
struct Activation {
    enum Kind : int { kSilu, kGelu, kGeluTanh, kRelu, kRelu2, kClampedSwiglu, kCappedSwiglu };

    Activation(Kind k, float gate_limit_ = 0, float limit_ = 0, float alpha_ = 0, float raise_ = 0)
        : kind(k), gate_limit(gate_limit_), limit(limit_), alpha(alpha_), raise(raise_) {}

    bool needs_gate() const { return kind == kClampedSwiglu || kind == kCappedSwiglu; }

    Kind kind;
    float gate_limit;
    float limit;
    float alpha;
    float raise;
};

// Queries that attend to the same keys at most.
inline constexpr std::int64_t kMostQueries = 16;

// One query head [key_dim] of one token, which sees positions [first, last).
struct AttendedQuery {
    const float* q;
    float* out;  // [value_dim]
    std::int64_t first;
    std::int64_t last;
    const float* bias;  // [last - first], added to the scores; or nullptr
    const float* sink;  // one more score, of nothing; or nullptr
};

// What queries see: S cached positions of keys [S][key_dim], and values of which the first `value_dim` of
// every `value_stride` entries count (values may be the beginnings of the keys themselves).
struct Attended {
    bool is_f16;  // keys and values; else they are f32
    std::int64_t num_positions;
    std::int64_t key_dim;
    std::int64_t value_dim;
    std::int64_t value_stride;
    float scale;
};

struct Kernels {
    const char* name;
    // Fills the blocks of tokens [begin, end) of x.
    void (*quantize_rows)(const Activations& x, std::int64_t begin, std::int64_t end, std::uint8_t* blocks);
    // out[t][16 * g + lane] for all tokens and row groups [begin, end); out has `stride` floats a row.
    void (*matmul)(const Matrix& w, const Activations& x, std::int64_t group_begin, std::int64_t group_end,
                   float* out, std::int64_t stride);
    // gate[i] = act(gate[i]) * up[i]; up == nullptr: gate[i] = act(gate[i]).
    void (*activate)(Activation activation, float* gate, const float* up, std::int64_t n);
    // The outputs of up to kMostQueries queries; scores [queries][S] is scratch.
    void (*attend)(const AttendedQuery* queries, std::int64_t num_queries, const void* keys,
                   const void* values, const Attended& seen, float* scores);
    // to[i] = from[i] as f16, rounded to nearest even.
    void (*to_halves)(const float* from, std::int64_t n, std::uint16_t* to);
};

const Kernels* scalar_kernels();
#ifdef EDGEMOE_HAVE_AVX2
const Kernels* avx2_kernels();
#endif
#ifdef EDGEMOE_HAVE_AVXVNNI
const Kernels* avxvnni_kernels();
#endif
#ifdef EDGEMOE_HAVE_AVX512BW
const Kernels* avx512bw_kernels();
#endif
#ifdef EDGEMOE_HAVE_AVX512
const Kernels* avx512_kernels();
#endif
#ifdef EDGEMOE_HAVE_AVX512VBMI
const Kernels* avx512vbmi_kernels();
#endif
#ifdef EDGEMOE_HAVE_AMX
const Kernels* amx_kernels();
#endif
#ifdef EDGEMOE_HAVE_NEON
const Kernels* neon_kernels();
#endif
#ifdef EDGEMOE_HAVE_I8MM
const Kernels* i8mm_kernels();
#endif

// The instruction sets that were built and that this CPU runs, slowest first.
std::vector<const Kernels*> available_kernels();

// The fastest available one, or the one that EDGEMOE_ISA names. Throws std::runtime_error when that
// one was not built or cannot run here.
const Kernels& active_kernels();

// Makes `name` the active one (tests); same errors.
void force_kernels(const char* name);

}  // namespace edgemoe
