#include "experts/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

#include "platform/memory.h"

namespace edgemoe {
namespace {

constexpr std::int64_t kHugePage = platform::kHugePage;

std::int64_t round_down(std::int64_t num_bytes, std::int64_t multiple) {
    return num_bytes / multiple * multiple;
}

std::int64_t round_up(std::int64_t num_bytes, std::int64_t multiple) {
    return round_down(num_bytes + multiple - 1, multiple);
}

}  // namespace

Mapping map_apart(std::int64_t num_bytes) {
    const auto size = static_cast<std::size_t>(num_bytes);
    void* data =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    // A child would make pages copies that a direct read is writing to: it does not get them.
    platform::keep_from_children(data, size);
    platform::avoid_huge_pages(data, size);
    return {static_cast<std::uint8_t*>(data), Unmap{size}};
}

Arena::Arena(std::int64_t capacity_bytes) : memory_(map_apart(capacity_bytes + kHugePage)) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
    start_ = memory_.get() + (kHugePage - address % kHugePage) % kHugePage;
    // Not the last one, if it would take more than the capacity.
    const std::int64_t huge_bytes = round_down(capacity_bytes, kHugePage);
    if (huge_bytes > 0) platform::want_huge_pages(start_, static_cast<std::size_t>(huge_bytes));
}

void Arena::give_back(std::int64_t offset, std::int64_t num_bytes) {
    const std::int64_t page = ::sysconf(_SC_PAGESIZE);
    const std::int64_t begin = round_up(offset, page), end = round_down(offset + num_bytes, page);
    if (begin < end) platform::give_back(at(begin), static_cast<std::size_t>(end - begin));
}

}  // namespace edgemoe
