// A near reader before a far one: where reads go, and what becomes of records that are not what they should
// be.
#include "io/tiered_reader.h"

#include <cerrno>
#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/checksum.h"
#include "tests/check.h"

namespace edgemoe {
namespace {

constexpr std::int64_t kPage = 4096;
constexpr int kRecords = 4;

// Serves a file from memory when it is waited for; nothing has ended before begin().
class Memory : public Reader {
  public:
    explicit Memory(std::vector<std::uint8_t> contents) : file(std::move(contents)) {}

    Ticket submit(const ReadRequest& request, int) override {
        open_[next_] = request;
        return next_++;
    }
    void begin() override { ++num_begun; }
    ReadResult wait(Ticket ticket) override {
        ReadResult result{.error = error, .request = open_.at(ticket)};
        open_.erase(ticket);
        ++num_reads;
        std::memcpy(result.request.destination, file.data() + result.request.offset,
                    static_cast<std::size_t>(result.request.num_bytes));
        return result;
    }
    std::vector<Ticket> wait_some(const std::vector<Ticket>& tickets, bool) override {
        return {tickets.back()};
    }
    bool cancel(Ticket) override { return false; }
    void abandon(Ticket ticket) override { open_.erase(ticket); }

    std::vector<std::uint8_t> file;
    int error = 0, num_reads = 0, num_begun = 0;

  private:
    std::map<Ticket, ReadRequest> open_;
    Ticket next_ = 100;  // unlike those of the reader in front
};

std::vector<std::uint8_t> numbered() {
    std::vector<std::uint8_t> file(kRecords * kPage);
    for (std::size_t i = 0; i < file.size(); ++i) file[i] = static_cast<std::uint8_t>(i / kPage + 1);
    return file;
}

// Records 1 and 2 are near.
struct Setup {
    Memory near{numbered()}, far{numbered()};
    std::vector<TierEntry> entries = std::vector<TierEntry>(1 + kRecords);
    std::vector<int> forgotten;
    TieredReader reader{near, far, records(), entries.data(), [this](int record) {
                            forgotten.push_back(record);
                            entries[1 + record].state = 0;
                        }};
    AlignedBuffer out{kRecords * kPage};

    Setup() {
        entries[2].state = entries[3].state = kWholeInTier;
        entries[0].worth = 10;
    }
    static std::vector<TieredReader::Record> records() {
        const std::vector<std::uint8_t> file = numbered();
        std::vector<TieredReader::Record> all;
        for (std::int64_t i = 0; i < kRecords; ++i) {
            all.push_back({0, i * kPage, kPage, checksum(file.data() + i * kPage, kPage)});
        }
        return all;
    }
    Reader::Ticket submit(std::int64_t record) {
        return reader.submit({0, record * kPage, kPage, out.data() + record * kPage}, 0);
    }
    bool arrived(std::int64_t record) const { return out.data()[record * kPage + 7] == record + 1; }
};

TEST(what_is_near_is_read_there_checked_and_counted) {
    Setup s;
    const ReadResult result = s.reader.wait(s.submit(1));
    CHECK(result.is_checked && s.arrived(1));
    CHECK(!s.reader.wait(s.submit(0)).is_checked && s.arrived(0));
    CHECK_EQUAL(s.near.num_reads, 1);
    CHECK_EQUAL(s.far.num_reads, 1);
    CHECK_EQUAL(s.reader.near_bytes(), kPage);
    CHECK_EQUAL(s.entries[2].uses, 1u);
    CHECK_EQUAL(s.entries[2].worth, 11.0);
}

TEST(what_is_damaged_near_or_cannot_be_read_there_comes_from_afar) {
    for (const bool is_unreadable : {false, true}) {
        Setup s;
        if (is_unreadable) {
            s.near.error = EIO;
        } else {
            s.near.file.assign(s.near.file.size(), 0);
        }
        const auto one = s.submit(1), two = s.submit(2);
        std::vector<Reader::Ticket> left = {one, two};
        while (!left.empty()) {
            for (const auto ticket : s.reader.wait_some(left, true)) {
                CHECK_EQUAL(s.reader.wait(ticket).error, 0);
                std::erase(left, ticket);
            }
        }
        CHECK(s.arrived(1) && s.arrived(2));
        CHECK_EQUAL(s.forgotten.size(), 2u);
        CHECK_EQUAL(s.far.num_reads, 2);
        CHECK_EQUAL(s.reader.near_bytes(), 0);
        // From now on it is known.
        s.reader.wait(s.submit(1));
        CHECK_EQUAL(s.near.num_reads, 2);
    }
}

TEST(parts_of_records_and_unaligned_destinations_come_from_afar) {
    Setup s;
    s.reader.wait(s.reader.submit({0, kPage, kPage / 2, s.out.data()}, 0));
    s.reader.wait(s.reader.submit({0, kPage, kPage, s.out.data() + 1}, 0));
    CHECK_EQUAL(s.far.num_reads, 2);
}

TEST(only_readers_that_have_something_queued_are_begun) {
    Setup s;
    const auto near = s.submit(1);
    s.reader.begin();
    s.reader.begin();
    CHECK_EQUAL(s.near.num_begun, 1);
    CHECK_EQUAL(s.far.num_begun, 0);
    const auto far = s.submit(0);
    s.reader.begin();
    CHECK_EQUAL(s.far.num_begun, 1);
    s.reader.abandon(near);
    s.reader.abandon(far);
    CHECK_EQUAL(s.near.num_reads + s.far.num_reads, 0);
    bool is_refused = false;
    try {
        s.reader.wait(far);
    } catch (const std::invalid_argument&) {
        is_refused = true;
    }
    CHECK(is_refused);
}

}  // namespace
}  // namespace edgemoe

int main() { return edgemoe::testing::run_all(); }
