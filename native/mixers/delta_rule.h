// What delta nets have in common.
#pragma once

#include <cstdint>

namespace edgemoe {

// x [N], of one head, becomes a vector of length `scale`.
void to_length(float* x, std::int64_t dim, float scale);

}  // namespace edgemoe
