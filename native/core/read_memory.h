// Reads memory as fast as it gives: the ceiling of single-token products.
#pragma once

#include <cstdint>

namespace edgemoe {

// Sum of 64-bit words, modulo 2^64, on all threads.
std::uint64_t read_memory(const std::uint64_t* words, std::int64_t num_words);

}  // namespace edgemoe
