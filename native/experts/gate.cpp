#include "experts/gate.h"

#include <algorithm>
#include <vector>

namespace edgemoe {

void gate_scores(const Routed& routed, std::int64_t num_experts, const Matrix& head, float* out) {
    const auto [x, ids, weights, num_tokens, width, top_k] = routed;
    std::vector<float> features(static_cast<std::size_t>(num_tokens * head.cols));
    for (std::int64_t t = 0; t < num_tokens; ++t) {
        float* row = features.data() + t * head.cols;
        std::copy_n(x + t * width, width, row);
        for (std::int64_t k = 0; k < top_k; ++k) row[width + ids[t * top_k + k]] = weights[t * top_k + k];
        row[width + num_experts] = 1;
    }
    matmul(features.data(), num_tokens, head, out);
}

void expect_next_use(UseStatistics& statistics, int position, const Routed& routed, const Matrix& head) {
    const auto [x, ids, weights, num_tokens, width, top_k] = routed;
    const std::int64_t last = num_tokens - 1;
    std::vector<float> uses(static_cast<std::size_t>(head.rows));
    gate_scores({x + last * width, ids + last * top_k, weights + last * top_k, 1, width, top_k}, head.rows,
                head, uses.data());
    statistics.expect(position, uses.data());
}

}  // namespace edgemoe
