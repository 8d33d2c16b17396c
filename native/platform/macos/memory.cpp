#include "platform/memory.h"

#include <mach/mach.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <limits>

namespace edgemoe::platform {

// The system chooses the size of pages itself.
void want_huge_pages(void*, std::size_t) {}
void avoid_huge_pages(void*, std::size_t) {}

void keep_from_children(void* data, std::size_t num_bytes) { ::minherit(data, num_bytes, VM_INHERIT_NONE); }

// Advice (MADV_DONTNEED, MADV_FREE) leaves what is there until memory is short. New pages in place of the old
// are zeros at once.
void give_back(void* data, std::size_t num_bytes) {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (::mmap(data, num_bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0) == MAP_FAILED)
        std::memset(data, 0, num_bytes);
}

std::int64_t free_memory_bytes() {
    vm_statistics64_data_t counts{};
    mach_msg_type_number_t size = HOST_VM_INFO64_COUNT;
    const mach_port_t host = ::mach_host_self();
    const auto got =
        ::host_statistics64(host, HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&counts), &size);
    ::mach_port_deallocate(::mach_task_self(), host);
    if (got != KERN_SUCCESS) return 0;
    // Inactive pages are given up when memory is asked for.
    return (std::int64_t{counts.free_count} + counts.inactive_count) * ::sysconf(_SC_PAGESIZE);
}

std::int64_t most_mappings() { return std::numeric_limits<std::int64_t>::max(); }

// Shared memory (shm_open) gets its size once, costs an object of the kernel for every 4 GiB of it whether
// used or not, and gives no part of itself back. So texts copy their beginnings.
int create_memory_file(const char*, std::int64_t) { return -1; }
void punch_memory_file(int, std::int64_t, std::int64_t) {}
void* map_memory_file(int, void*, std::size_t, bool, std::int64_t) { return nullptr; }

}  // namespace edgemoe::platform
