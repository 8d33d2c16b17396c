// Numbers to test with: the same ones on every run.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace edgemoe::testing {

// n draws of a standard normal distribution.
inline std::vector<float> normal(std::int64_t n, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> distribution;
    std::vector<float> values(static_cast<std::size_t>(n));
    for (float& value : values) value = distribution(generator);
    return values;
}

}  // namespace edgemoe::testing
