#include "core/checksum.h"

#include <cstddef>

#define XXH_INLINE_ALL
#include "third_party/xxhash.h"

namespace edgemoe {

#ifdef EDGEMOE_HAVE_AVX2
std::uint64_t checksum_avx2(const std::uint8_t* data, std::int64_t num_bytes);  // core/checksum_avx2.cpp
#endif

std::uint64_t checksum(const std::uint8_t* data, std::int64_t num_bytes) {
#ifdef EDGEMOE_HAVE_AVX2
    static const bool has_avx2 = __builtin_cpu_supports("avx2");
    if (has_avx2) return checksum_avx2(data, num_bytes);
#endif
    return XXH3_64bits(data, static_cast<std::size_t>(num_bytes));
}

}  // namespace edgemoe
