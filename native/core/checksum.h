// The checksum of stored bytes: XXH3 with 64 bits, by the library's own header in third_party/.
#pragma once

#include <cstdint>

namespace edgemoe {

// Runs at memory's speed on one thread; the same number on every machine.
std::uint64_t checksum(const std::uint8_t* data, std::int64_t num_bytes);

}  // namespace edgemoe
