// The file reader without Python: every way a read can end, under the sanitizers.
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "core/aligned_buffer.h"
#include "io/file_reader.h"
#include "tests/check.h"
#include "tests/temporary_file.h"

namespace edgemoe {
namespace {

using testing::kSector, testing::methods, testing::TemporaryFile;

// A read of this size keeps the only worker busy while a test fills the queue behind it.
constexpr std::int64_t kLongRead = 32 << 20;

std::unique_ptr<FileReader> open(const TemporaryFile& file, int max_depth, ReadMethod method,
                                 Pace pace = {}) {
    return open_files(method, {file.path()}, max_depth, pace);
}

void check_contents(const AlignedBuffer& buffer, std::int64_t offset, std::int64_t num_bytes) {
    for (std::int64_t i = 0; i < num_bytes; ++i) {
        CHECK_EQUAL(int{buffer.data()[i]}, int{TemporaryFile::value_at(offset + i)});
    }
}

TEST(reads_ranges_in_any_order) {
    const TemporaryFile file(16 * kSector);
    for (const ReadMethod method : methods()) {
        const auto reader = open(file, 3, method);
        std::vector<std::unique_ptr<AlignedBuffer>> buffers;
        std::vector<FileReader::Ticket> tickets;
        for (std::int64_t i = 0; i < 15; ++i) {
            buffers.push_back(std::make_unique<AlignedBuffer>(2 * kSector));
            tickets.push_back(
                reader->submit({0, i * kSector, 2 * kSector, buffers.back()->data()}, int(i % 3)));
        }
        for (std::int64_t i = 14; i >= 0; --i) {
            CHECK_EQUAL(reader->wait(tickets[static_cast<std::size_t>(i)]).error, 0);
            check_contents(*buffers[static_cast<std::size_t>(i)], i * kSector, 2 * kSector);
        }
    }
}

TEST(the_end_of_the_file_is_an_error_wherever_it_lies) {
    // Whole sectors, a part of one (a direct reader must not ask for the same part forever), nothing.
    for (const std::int64_t num_bytes : {kSector, kSector + 1000, std::int64_t{1000}, std::int64_t{0}}) {
        const TemporaryFile file(num_bytes);
        for (const ReadMethod method : methods()) {
            const auto reader = open(file, 1, method);
            const AlignedBuffer buffer(3 * kSector);
            const ReadResult result = reader->wait(reader->submit({0, 0, 3 * kSector, buffer.data()}, 0));
            CHECK_EQUAL(result.error, EIO);
            CHECK(result.is_short);
            CHECK(!result.is_cancelled);
        }
    }
}

TEST(a_file_truncated_while_open_fails_and_the_reader_goes_on) {
    const TemporaryFile file(8 * kSector);
    for (const ReadMethod method : methods()) {
        const auto reader = open(file, 2, method);
        const AlignedBuffer buffer(4 * kSector);
        file.truncate(5 * kSector + 7);
        CHECK_EQUAL(reader->wait(reader->submit({0, 4 * kSector, 4 * kSector, buffer.data()}, 0)).error, EIO);
        CHECK_EQUAL(reader->wait(reader->submit({0, 0, 4 * kSector, buffer.data()}, 0)).error, 0);
        check_contents(buffer, 0, 4 * kSector);
    }
}

TEST(a_destination_that_cannot_be_written_is_a_status) {
    const TemporaryFile file(kSector);
    for (const ReadMethod method : methods()) {
        const auto reader = open(file, 1, method);
        CHECK_EQUAL(reader->wait(reader->submit({0, 0, kSector, nullptr}, 0)).error, EFAULT);
    }
}

// False if in 50 attempts the long read was over before the queue behind it was full.
bool demand_overtakes(const TemporaryFile& file, ReadMethod method) {
    const auto reader = open(file, 1, method);
    const AlignedBuffer busy(kLongRead), demand(kSector), speculation(kSector);
    // The scheduler may hold this thread back until the long read is over; then there is nothing to see.
    for (int attempt = 0; attempt < 50; ++attempt) {
        std::memset(speculation.data(), 7, kSector);
        const auto first = reader->submit({0, 0, kLongRead, busy.data()}, 0);
        const auto low = reader->submit({0, 0, kLongRead, busy.data()}, 9);
        const auto later = reader->submit({0, kSector, kSector, speculation.data()}, 9);
        reader->begin();
        const auto high = reader->submit({0, 2 * kSector, kSector, demand.data()}, 0);
        CHECK_EQUAL(reader->wait(high).error, 0);
        check_contents(demand, 2 * kSector, kSector);
        const bool was_cancelled = reader->cancel(later);
        CHECK(!reader->cancel(first));
        CHECK_EQUAL(reader->wait(later).is_cancelled, was_cancelled);
        CHECK(!reader->cancel(later));
        reader->wait(first);
        reader->wait(low);
        if (!was_cancelled) continue;
        for (std::int64_t i = 0; i < kSector; ++i) CHECK_EQUAL(int{speculation.data()[i]}, 7);
        return true;
    }
    return false;
}

TEST(demand_overtakes_and_a_cancelled_read_never_happens) {
    const TemporaryFile file(kLongRead);
    for (const ReadMethod method : methods()) CHECK(demand_overtakes(file, method));
}

TEST(wait_some_returns_what_has_ended) {
    const TemporaryFile file(8 * kSector);
    for (const ReadMethod method : methods()) {
        const auto reader = open(file, 2, method);
        const AlignedBuffer buffer(8 * kSector);
        std::vector<FileReader::Ticket> tickets;
        for (std::int64_t i = 0; i < 8; ++i) {
            tickets.push_back(reader->submit({0, i * kSector, kSector, buffer.data() + i * kSector}, 0));
        }
        while (!tickets.empty()) {
            const auto ended = reader->wait_some(tickets);
            CHECK(!ended.empty());
            for (const auto ticket : ended) {
                CHECK_EQUAL(std::erase(tickets, ticket), std::size_t{1});
                CHECK_EQUAL(reader->wait(ticket).error, 0);
            }
        }
        check_contents(buffer, 0, 8 * kSector);
    }
}

template <typename Error, typename F>
void check_throws(F&& call) {
    try {
        call();
    } catch (const Error&) {
        return;
    }
    CHECK(!"it throws");
}

TEST(tickets_are_collected_once) {
    const TemporaryFile file(kSector);
    for (const ReadMethod method : methods()) {
        const auto reader = open(file, 1, method);
        const AlignedBuffer buffer(kSector);
        const auto ticket = reader->submit({0, 0, kSector, buffer.data()}, 0);
        reader->wait(ticket);
        check_throws<std::invalid_argument>([&] { reader->wait(ticket); });
        check_throws<std::invalid_argument>([&] { reader->wait_some({ticket}); });
        check_throws<std::invalid_argument>([&] { reader->wait_some({}); });
    }
}

// Reads in flight never share a destination: that would be the caller's race.
std::vector<FileReader::Ticket> submit_slices(FileReader& reader, const AlignedBuffer& buffer) {
    constexpr std::int64_t kSlice = kLongRead / 16;
    std::vector<FileReader::Ticket> tickets;
    for (std::int64_t offset = 0; offset < kLongRead; offset += kSlice) {
        tickets.push_back(reader.submit({0, offset, kSlice, buffer.data() + offset}, 0));
    }
    return tickets;
}

TEST(closing_with_reads_in_flight_ends_every_ticket) {
    const TemporaryFile file(kLongRead);
    const AlignedBuffer buffer(kLongRead);
    for (const ReadMethod method : methods()) {
        const auto reader = open(file, 2, method);
        const auto tickets = submit_slices(*reader, buffer);
        std::thread other([&] { reader->close(); });
        reader->close();
        other.join();
        for (const auto ticket : tickets) CHECK_EQUAL(reader->wait(ticket).error, 0);
        check_throws<std::runtime_error>([&] { reader->submit({0, 0, kSector, buffer.data()}, 0); });
    }
}

TEST(destruction_with_reads_in_flight_neither_hangs_nor_leaks) {
    const TemporaryFile file(kLongRead);
    const AlignedBuffer buffer(kLongRead);
    for (const ReadMethod method : methods()) {
        for (int i = 0; i < 5; ++i) submit_slices(*open(file, 3, method), buffer);
    }
}

// Threads that submit, cancel and wait as they like, on more reads than are served at a time.
TEST(threads_share_a_reader) {
    const TemporaryFile file(64 * kSector);
    for (const ReadMethod method : methods()) {
        for (const Pace pace : {Pace{}, Pace{1e9, 20e-6}}) {
            const auto reader = open(file, 3, method, pace);
            const auto work = [&](int seed) {
                const AlignedBuffer buffer(8 * kSector);
                for (int round = 0; round < 50; ++round) {
                    std::vector<FileReader::Ticket> tickets;
                    for (std::int64_t i = 0; i < 8; ++i) {
                        tickets.push_back(reader->submit(
                            {0, (8 * seed + i) * kSector, kSector, buffer.data() + i * kSector}, int(i % 3)));
                    }
                    reader->cancel(tickets[static_cast<std::size_t>(round % 8)]);
                    while (!tickets.empty()) {
                        for (const auto ticket : reader->wait_some(tickets)) {
                            std::erase(tickets, ticket);
                            CHECK_EQUAL(reader->wait(ticket).error, 0);
                        }
                    }
                }
            };
            std::vector<std::thread> threads;
            for (int seed = 0; seed < 4; ++seed) threads.emplace_back(work, seed);
            for (auto& thread : threads) thread.join();
        }
    }
}

// Whether so long after submission the last of several reads, one at a time, has started by itself.
bool moves_on_within(std::chrono::milliseconds time, const TemporaryFile& file, ReadMethod method) {
    const auto reader = open(file, 1, method, Pace{0, 1e-3});
    const AlignedBuffer buffer(8 * kSector);
    FileReader::Ticket last = 0;
    for (std::int64_t i = 0; i < 8; ++i) {
        last = reader->submit({0, i * kSector, kSector, buffer.data() + i * kSector}, 0);
    }
    reader->begin();
    std::this_thread::sleep_for(time);
    return !reader->cancel(last);
}

TEST(what_is_queued_moves_on_while_nobody_waits) {
    const TemporaryFile file(8 * kSector);
    for (const ReadMethod method : methods()) {
        bool moves_on = false;
        for (int ms = 20; !moves_on && ms < 10000; ms *= 2) {
            moves_on = moves_on_within(std::chrono::milliseconds(ms), file, method);
        }
        CHECK(moves_on);
    }
}

TEST(what_was_never_begun_is_dropped) {
    const TemporaryFile file(8 * kSector);
    const AlignedBuffer buffer(8 * kSector);
    for (const ReadMethod method : methods()) {
        // The reader's own threads may come to life before, amid or after this.
        for (int i = 0; i < 100; ++i) {
            const auto reader = open(file, 2, method);
            for (std::int64_t j = 0; j < 8; ++j) {
                reader->submit({0, j * kSector, kSector, buffer.data() + j * kSector}, 0);
            }
        }
    }
}

TEST(a_missing_file_is_named) {
    try {
        open_files(ReadMethod::kDirect, {"no-such-file.bin"}, 1);
        CHECK(!"it throws");
    } catch (const std::system_error& error) {
        CHECK_EQUAL(error.code().value(), ENOENT);
        CHECK(std::string(error.what()).starts_with("no-such-file.bin"));
    }
}

}  // namespace
}  // namespace edgemoe

int main() { return edgemoe::testing::run_all(); }
