// Records packed of blocks that another reader brings.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "core/aligned_buffer.h"
#include "io/packing_reader.h"
#include "kernels/exact_blocks.h"
#include "tests/check.h"
#include "tests/temporary_file.h"

namespace edgemoe {
namespace {

using testing::kSector, testing::methods, testing::TemporaryFile;

TEST(blocks_become_records_wherever_they_begin_and_end) {
    constexpr std::int64_t kRows = 16, kCols = 64, kBytes = kRows * 2 * 17;
    const TemporaryFile file(3 * kSector + 77);
    std::string content;
    {
        std::ifstream stream(file.path(), std::ios::binary);
        content.assign(std::istreambuf_iterator<char>(stream), {});
    }
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(content.data());
    BlockRecords records;
    for (std::int64_t i = 0; i * 301 + kBytes <= 3 * kSector + 77; ++i) {
        const BlockSlice slice = {0, i * 301, Format::kMxfp4, kRows, kCols};
        records.push_back({i * kSector, {slice, slice}});
    }
    const auto count = static_cast<std::int64_t>(records.size());
    records.push_back({count * kSector, {{0, 3 * kSector - 100, Format::kMxfp4, kRows, kCols}}});
    for (const ReadMethod method : methods()) {
        PackingReader reader(method, {file.path()}, records, 3, {});
        std::int64_t num_finite = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            AlignedBuffer record(kSector);
            std::memset(record.data(), 0xaa, kSector);
            std::vector<std::uint8_t> expected(kSector, 0);
            const std::int64_t size = packed_bytes(Format::kMxfp4, kRows, kCols);
            bool is_finite = true;
            for (const std::int64_t at : {std::int64_t{0}, size}) {
                is_finite &= pack_blocks(bytes + i * 301, kRows, kCols, Format::kMxfp4, &expected[at]) < 0;
            }
            const auto ticket = reader.submit({0, i * kSector, kSector, record.data()}, 0);
            const ReadResult result = reader.wait(ticket);
            CHECK_EQUAL(result.error, is_finite ? 0 : EBADMSG);
            if (!is_finite) continue;
            ++num_finite;
            CHECK_EQUAL(std::memcmp(record.data(), expected.data(), kSector), 0);
        }
        CHECK(num_finite > 0 && num_finite < count);
        AlignedBuffer record(kSector);
        CHECK(reader.wait(reader.submit({0, count * kSector, kSector, record.data()}, 0)).is_short);
        CHECK_EQUAL(reader.wait(reader.submit({0, kSector / 2, kSector, record.data()}, 0)).error, EINVAL);
    }
}

// Records of two slices, of which each is longer than a huge page.
struct LargeRecords {
    static constexpr std::int64_t kRows = 1500, kCols = 4096, kBytes = kRows * (kCols / 32) * 17, kCount = 3;
    static constexpr std::int64_t kFileBytes = kCount * 2 * kBytes + 5;
    static constexpr std::uint8_t kFinite = 0x3f;

    const TemporaryFile file{kFileBytes, kFinite};
    const std::int64_t packed = packed_bytes(Format::kMxfp4, kRows, kCols);
    const std::int64_t num_bytes = (2 * packed / kSector + 1) * kSector;  // of a record
    BlockRecords records;

    LargeRecords() {
        for (std::int64_t i = 0; i < kCount; ++i) {
            records.push_back({i * num_bytes, {slice(i), slice(2 * kCount - 1 - i)}});
        }
    }

    ReadRequest request(std::int64_t number, std::uint8_t* destination) const {
        return {0, number * num_bytes, num_bytes, destination};
    }

    std::vector<std::uint8_t> expected(std::int64_t number) const {
        std::vector<std::uint8_t> blocks(static_cast<std::size_t>(kBytes));
        std::vector<std::uint8_t> record(static_cast<std::size_t>(num_bytes), 0);
        std::uint8_t* to = record.data();
        for (const BlockSlice& slice : records[static_cast<std::size_t>(number)].slices) {
            for (std::int64_t i = 0; i < kBytes; ++i) {
                blocks[static_cast<std::size_t>(i)] = TemporaryFile::value_at(slice.offset + i) & kFinite;
            }
            pack_blocks(blocks.data(), kRows, kCols, Format::kMxfp4, to);
            to += packed;
        }
        return record;
    }

  private:
    static BlockSlice slice(std::int64_t number) {
        return {0, number * kBytes + 5, Format::kMxfp4, kRows, kCols};
    }
};

// In one buffer, in fewer than a record has pieces, and in more than all have; a thread for each record.
TEST(pieces_of_records_are_packed_by_whoever_waits) {
    const LargeRecords large;
    for (const ReadMethod method : methods()) {
        for (const int max_depth : {1, 2, 20}) {
            PackingReader reader(method, {large.file.path()}, large.records, max_depth, {});
            std::vector<std::thread> waiting;
            for (std::int64_t i = 0; i < LargeRecords::kCount; ++i) {
                waiting.emplace_back([&, i] {
                    const AlignedBuffer found(static_cast<std::size_t>(large.num_bytes));
                    CHECK_EQUAL(reader.wait(reader.submit(large.request(i, found.data()), 0)).error, 0);
                    const std::vector<std::uint8_t> expected = large.expected(i);
                    CHECK_EQUAL(std::memcmp(found.data(), expected.data(), expected.size()), 0);
                });
            }
            for (std::thread& thread : waiting) thread.join();
        }
    }
    large.file.truncate(LargeRecords::kBytes + 5);  // behind the first of the two slices
    PackingReader reader(ReadMethod::kBuffered, {large.file.path()}, large.records, 2, {});
    const AlignedBuffer record(static_cast<std::size_t>(large.num_bytes));
    CHECK(reader.wait(reader.submit(large.request(0, record.data()), 0)).is_short);
}

TEST(a_record_ends_although_nobody_blocks) {
    const LargeRecords large;
    for (const ReadMethod method : methods()) {
        PackingReader reader(method, {large.file.path()}, large.records, 4, {});
        const AlignedBuffer found(static_cast<std::size_t>(large.num_bytes));
        const auto ticket = reader.submit(large.request(0, found.data()), 1);
        while (reader.wait_some({ticket}, /*block=*/false).empty()) std::this_thread::yield();
        CHECK_EQUAL(reader.wait(ticket).error, 0);
        const std::vector<std::uint8_t> expected = large.expected(0);
        CHECK_EQUAL(std::memcmp(found.data(), expected.data(), expected.size()), 0);
    }
}

TEST(a_record_without_a_buffer_may_be_cancelled_and_one_that_has_begun_may_not) {
    const LargeRecords large;
    for (const ReadMethod method : methods()) {
        PackingReader reader(method, {large.file.path()}, large.records, 1, {});
        const AlignedBuffer first(static_cast<std::size_t>(large.num_bytes));
        const AlignedBuffer second(static_cast<std::size_t>(large.num_bytes));
        const auto begun = reader.submit(large.request(0, first.data()), 0);
        const auto queued = reader.submit(large.request(1, second.data()), 0);
        reader.begin();
        CHECK(!reader.cancel(begun));
        CHECK(reader.cancel(queued));
        CHECK(reader.wait(queued).is_cancelled);
        CHECK_EQUAL(reader.wait(begun).error, 0);
        const std::vector<std::uint8_t> expected = large.expected(0);
        CHECK_EQUAL(std::memcmp(first.data(), expected.data(), expected.size()), 0);
    }
}

}  // namespace
}  // namespace edgemoe

int main() { return edgemoe::testing::run_all(); }
