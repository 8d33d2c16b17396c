// Compiled for AVX2, and called only where there is AVX2.
#include <cstddef>
#include <cstdint>

#define XXH_INLINE_ALL
#include "third_party/xxhash.h"

namespace edgemoe {

std::uint64_t checksum_avx2(const std::uint8_t* data, std::int64_t num_bytes) {
    return XXH3_64bits(data, static_cast<std::size_t>(num_bytes));
}

}  // namespace edgemoe
