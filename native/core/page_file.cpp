#include "core/page_file.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <new>

#include "platform/memory.h"

namespace edgemoe {
namespace {

constexpr std::int64_t kFileBytes = std::int64_t{1} << 60;

std::uint8_t* checked(void* data, std::int64_t num_bytes) {
    if (data == nullptr) throw std::bad_alloc();
    // With huge pages the first token would take two MiB of every array.
    platform::avoid_huge_pages(data, static_cast<std::size_t>(num_bytes));
    return static_cast<std::uint8_t*>(data);
}

}  // namespace

std::int64_t page_bytes() {
    static const std::int64_t size = ::sysconf(_SC_PAGESIZE);
    return size;
}

// Others may have half of the mappings that a process may have.
PageFile::PageFile()
    : descriptor_(platform::create_memory_file("edgemoe-texts", kFileBytes)),
      process_(::getpid()),
      most_mappings_(platform::most_mappings() / 2) {}

PageFile::~PageFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

std::int64_t PageFile::resident_bytes() const {
    struct stat found;
    if (descriptor_ < 0 || ::fstat(descriptor_, &found) != 0) return 0;
    return static_cast<std::int64_t>(found.st_blocks) * 512;
}

bool PageFile::is_of_this_process() const { return process_ == ::getpid(); }

std::int64_t PageFile::take_run() {
    if (free_runs_.empty()) {
        if (num_runs_ == kFileBytes / kRunBytes) throw std::bad_alloc();
        return kRunBytes * num_runs_++;
    }
    const std::int64_t offset = free_runs_.back();
    free_runs_.pop_back();
    return offset;
}

void PageFile::give_run(std::int64_t offset) {
    if (!is_of_this_process()) return;
    punch(offset, kRunBytes);
    free_runs_.push_back(offset);
}

void PageFile::punch(std::int64_t offset, std::int64_t num_bytes) const {
    if (descriptor_ >= 0 && num_bytes > 0 && is_of_this_process())
        platform::punch_memory_file(descriptor_, offset, num_bytes);
}

std::uint8_t* PageFile::map(void* address, std::int64_t num_bytes, bool is_written,
                            std::int64_t offset) const {
    const auto size = static_cast<std::size_t>(num_bytes);
    return checked(platform::map_memory_file(descriptor_, address, size, is_written, offset), num_bytes);
}

std::uint8_t* PageFile::map_new(std::int64_t num_bytes, std::int64_t offset) const {
    if (is_there()) return map(nullptr, num_bytes, true, offset);
    void* data = ::mmap(nullptr, static_cast<std::size_t>(num_bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return checked(data == MAP_FAILED ? nullptr : data, num_bytes);
}

std::unique_lock<std::mutex> PageFile::lock() {
    // In a forked child whoever held it is gone.
    return is_of_this_process() ? std::unique_lock(mutex_) : std::unique_lock<std::mutex>();
}

}  // namespace edgemoe
