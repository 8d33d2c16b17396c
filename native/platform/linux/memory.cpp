#include "platform/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fstream>

namespace edgemoe::platform {
namespace {

constexpr std::int64_t kUsualMostMappings = 65530;

}  // namespace

void want_huge_pages(void* data, std::size_t num_bytes) { ::madvise(data, num_bytes, MADV_HUGEPAGE); }

void avoid_huge_pages(void* data, std::size_t num_bytes) { ::madvise(data, num_bytes, MADV_NOHUGEPAGE); }

void keep_from_children(void* data, std::size_t num_bytes) { ::madvise(data, num_bytes, MADV_DONTFORK); }

void give_back(void* data, std::size_t num_bytes) { ::madvise(data, num_bytes, MADV_DONTNEED); }

std::int64_t free_memory_bytes() {
    return std::int64_t{::sysconf(_SC_AVPHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
}

std::int64_t most_mappings() {
    std::ifstream file("/proc/sys/vm/max_map_count");
    std::int64_t most = kUsualMostMappings;
    if (!(file >> most)) most = kUsualMostMappings;
    return most;
}

int create_memory_file(const char* name, std::int64_t num_bytes) {
    // Systems may insist that it is never run, which those before Linux 6.3 do not know.
    constexpr unsigned int kNeverRun = 8;
    int descriptor = ::memfd_create(name, MFD_CLOEXEC | kNeverRun);
    if (descriptor < 0) descriptor = ::memfd_create(name, MFD_CLOEXEC);
    // It stays sparse; a limit on the size of files may forbid it all the same.
    if (descriptor >= 0 && ::ftruncate(descriptor, num_bytes) != 0) {
        ::close(descriptor);
        return -1;
    }
    return descriptor;
}

void punch_memory_file(int descriptor, std::int64_t offset, std::int64_t num_bytes) {
    ::fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, num_bytes);
}

void* map_memory_file(int descriptor, void* address, std::size_t num_bytes, bool is_written,
                      std::int64_t offset) {
    const int protection = is_written ? PROT_READ | PROT_WRITE : PROT_READ;
    // Looking pages up one by one would take longer.
    const int flags = MAP_SHARED | (is_written ? 0 : MAP_POPULATE) | (address == nullptr ? 0 : MAP_FIXED);
    void* data = ::mmap(address, num_bytes, protection, flags, descriptor, offset);
    return data == MAP_FAILED ? nullptr : data;
}

}  // namespace edgemoe::platform
