// What systems do differently does the same.
#include "platform/files.h"
#include "platform/memory.h"
#include "platform/processor.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/check.h"

namespace edgemoe {
namespace {

constexpr std::size_t kPages = 4;

std::size_t page() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

// A file of bytes 7 in the working directory, without a name.
class File {
  public:
    explicit File(std::size_t num_bytes) : written_(::mkstemp(name_)) {
        const std::string bytes(num_bytes, '\7');
        CHECK_EQUAL(::pwrite(written_, bytes.data(), num_bytes, 0), static_cast<ssize_t>(num_bytes));
        read_ = platform::open_to_read(name_, false);
        ::unlink(name_);
    }
    ~File() {
        ::close(read_);
        ::close(written_);
    }
    int written() const { return written_; }
    int read() const { return read_; }

  private:
    char name_[32] = "edgemoe-platform-test-XXXXXX";
    int written_, read_;
};

TEST(pages_that_were_given_back_are_zeros) {
    const std::size_t num_bytes = kPages * page();
    void* data = ::mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK_EQUAL(data == MAP_FAILED, false);
    platform::avoid_huge_pages(data, num_bytes);
    auto* bytes = static_cast<std::uint8_t*>(data);
    std::fill(bytes, bytes + num_bytes, std::uint8_t{7});
    platform::give_back(bytes + page(), 2 * page());
    for (std::size_t i = 0; i < num_bytes; ++i)
        CHECK_EQUAL(int{bytes[i]}, i / page() == 0 || i / page() == kPages - 1 ? 7 : 0);
    ::munmap(data, num_bytes);
}

TEST(a_hole_reads_as_zeros_and_the_file_keeps_its_size) {
    const File file(kPages * page());
    const int error = platform::punch_hole(file.written(), static_cast<std::int64_t>(page()),
                                           static_cast<std::int64_t>(page()));
    if (error == EOPNOTSUPP) return;
    CHECK_EQUAL(error, 0);
    std::vector<std::uint8_t> bytes(kPages * page() + 1);
    const ssize_t got = platform::read_at(file.read(), bytes.data(), bytes.size(), 0);
    CHECK_EQUAL(got, static_cast<ssize_t>(kPages * page()));
    for (std::size_t i = 0; i < kPages * page(); ++i) CHECK_EQUAL(int{bytes[i]}, i / page() == 1 ? 0 : 7);
}

TEST(a_file_that_is_written_has_another_time) {
    const File file(page());
    const timespec long_ago[2] = {{1, 0}, {1, 5}};
    CHECK_EQUAL(::futimens(file.written(), long_ago), 0);
    struct stat found {};
    CHECK_EQUAL(::fstat(file.read(), &found), 0);
    CHECK_EQUAL(platform::time_written(found).tv_sec, 1);
    CHECK_EQUAL(platform::time_written(found).tv_nsec, 5);
}

TEST(a_file_that_is_not_there_is_not_opened) {
    for (const bool direct : {false, true}) {
        CHECK_EQUAL(platform::open_to_read("edgemoe-no-such-file", direct), -1);
        CHECK_EQUAL(errno, ENOENT);
    }
}

TEST(the_machine_has_processors_and_memory) {
    CHECK_EQUAL(platform::usable_processors() > 0, true);
    CHECK_EQUAL(platform::free_memory_bytes() > 0, true);
}

}  // namespace
}  // namespace edgemoe

int main() { return edgemoe::testing::run_all(); }
