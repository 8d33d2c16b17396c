// Reads that the kernel interrupts, serves in pieces or fails: pread() itself is replaced in this program.
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "core/aligned_buffer.h"
#include "io/file_reader.h"
#include "tests/check.h"

namespace {

// What the next calls do, one each, before reads are served as usual: an errno, or the bytes to serve.
struct Step {
    int error;
    std::size_t num_bytes;
};
std::vector<Step> script;
std::atomic<std::size_t> num_calls{0};

ssize_t scripted_pread(int descriptor, void* out, std::size_t num_bytes, off_t offset) {
    const std::size_t call = num_calls++;
    if (call < script.size()) {
        if (script[call].error != 0) {
            errno = script[call].error;
            return -1;
        }
        num_bytes = std::min(num_bytes, script[call].num_bytes);
    }
    return ::syscall(SYS_pread64, descriptor, out, num_bytes, offset);
}

}  // namespace

// Both names that a C library has for it.
extern "C" ssize_t pread(int descriptor, void* out, std::size_t num_bytes, off_t offset) {
    return scripted_pread(descriptor, out, num_bytes, offset);
}
extern "C" ssize_t pread64(int descriptor, void* out, std::size_t num_bytes, off64_t offset) {
    return scripted_pread(descriptor, out, num_bytes, offset);
}

namespace edgemoe {
namespace {

constexpr std::int64_t kSector = kDirectAlignment;
constexpr std::int64_t kNumBytes = 4 * kSector;

std::uint8_t value_at(std::int64_t i) { return static_cast<std::uint8_t>(i * 31 + i / kSector); }

// Reads a file of four sectors while the first calls of pread() go as the script says; checks that every
// byte is right unless the read failed.
ReadResult read_with(std::vector<Step> steps, bool direct) {
    char name[] = "edgemoe-fault-test-XXXXXX";
    const int descriptor = ::mkstemp(name);
    if (descriptor < 0) throw std::system_error(errno, std::generic_category(), name);
    ::close(descriptor);
    std::string bytes(kNumBytes, '\0');
    for (std::int64_t i = 0; i < kNumBytes; ++i)
        bytes[static_cast<std::size_t>(i)] = static_cast<char>(value_at(i));
    std::ofstream(name, std::ios::binary) << bytes;
    const auto reader = open_files(direct ? ReadMethod::kDirect : ReadMethod::kBuffered, {name}, 1);
    ::unlink(name);
    AlignedBuffer buffer(kNumBytes);
    script = std::move(steps);
    num_calls = 0;
    const ReadResult result = reader->wait(reader->submit({0, 0, kNumBytes, buffer.data()}, 0));
    if (result.error == 0)
        for (std::int64_t i = 0; i < kNumBytes; ++i) CHECK_EQUAL(buffer.data()[i], value_at(i));
    return result;
}

TEST(an_interrupted_read_goes_on) {
    for (const bool direct : {false, true}) {
        CHECK_EQUAL(read_with({{EINTR, 0}, {EINTR, 0}}, direct).error, 0);
        CHECK_EQUAL(num_calls.load(), 3u);
        CHECK_EQUAL(read_with({{0, kSector}, {EINTR, 0}}, direct).error, 0);
    }
}

TEST(a_read_served_in_pieces_is_put_together) {
    CHECK_EQUAL(read_with({{0, 1}, {0, 4095}, {0, 4097}}, false).error, 0);
    CHECK_EQUAL(read_with({{0, kSector}, {0, 2 * kSector}}, true).error, 0);
}

TEST(an_error_ends_the_read_with_its_number) {
    for (const int error : {EIO, ENODEV, ESTALE}) {
        const ReadResult result = read_with({{0, kSector}, {error, 0}}, false);
        CHECK_EQUAL(result.error, error);
        CHECK_EQUAL(result.is_short, false);
    }
}

TEST(a_file_that_ends_early_is_short) {
    const ReadResult result = read_with({{0, 2 * kSector}, {0, 0}}, true);
    CHECK_EQUAL(result.error, EIO);
    CHECK_EQUAL(result.is_short, true);
}

}  // namespace
}  // namespace edgemoe

int main() { return edgemoe::testing::run_all(); }
