#include "mixers/delta_rule.h"

#include <cmath>

#include "kernels/clones.h"

namespace edgemoe {
namespace {

// Under the root of a head's length, as the family was trained.
constexpr float kLengthEps = 1e-6f;

// x of one head becomes a vector of length `scale`.
EDGEMOE_FOR_EACH_ISA void set_length(float* x, std::int64_t dim, float scale) {
    constexpr std::int64_t kPartials = 16;
    float partial[kPartials] = {};
    std::int64_t i = 0;
    for (; i + kPartials <= dim; i += kPartials) {
        for (std::int64_t j = 0; j < kPartials; ++j) partial[j] += x[i + j] * x[i + j];
    }
    for (; i < dim; ++i) partial[0] += x[i] * x[i];
    float sum = 0;
    for (const float one : partial) sum += one;
    const float factor = scale / std::sqrt(sum + kLengthEps);
    for (i = 0; i < dim; ++i) x[i] *= factor;
}

}  // namespace

void to_length(float* x, std::int64_t dim, float scale) { set_length(x, dim, scale); }

}  // namespace edgemoe
