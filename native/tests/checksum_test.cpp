// Checksums are those of the xxHash library, of nothing and of something, and every bit counts.
#include <cstdint>
#include <vector>

#include "core/checksum.h"
#include "tests/check.h"

namespace edgemoe {
namespace {

TEST(of_nothing_is_the_librarys) { CHECK_EQUAL(checksum(nullptr, 0), 0x2D06800538D394C2ULL); }

TEST(every_bit_counts) {
    std::vector<std::uint8_t> record(4096 * 3 + 64);
    for (std::size_t i = 0; i < record.size(); ++i) record[i] = static_cast<std::uint8_t>(i * 7);
    const auto num_bytes = static_cast<std::int64_t>(record.size());
    const std::uint64_t sound = checksum(record.data(), num_bytes);
    for (std::size_t i = 0; i < record.size(); i += 61) {
        record[i] ^= 1;
        CHECK(checksum(record.data(), num_bytes) != sound);
        record[i] ^= 1;
    }
    CHECK_EQUAL(checksum(record.data(), num_bytes), sound);
}

}  // namespace
}  // namespace edgemoe

int main() { return edgemoe::testing::run_all(); }
