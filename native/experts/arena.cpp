#include "experts/arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <utility>

#include "platform/memory.h"

namespace edgemoe {
namespace {

constexpr std::int64_t kHugePage = platform::kHugePage;
// Sixteenths of its last huge page that a record must fill to get all of it. Where all records fit, they must
// take no more room; where less than half do, the rest of a page is worth less than faster reads.
constexpr std::int64_t kFull = 16, kNearlyFull = 15, kMostlyFull = 12;

// Bytes of huge pages that the smallest record fills, the last one to this share at least.
std::int64_t filled_huge_bytes(std::int64_t smallest, std::int64_t least_share) {
    const std::int64_t rest = smallest % kHugePage;
    return smallest - rest + (rest * kFull >= least_share * kHugePage ? kHugePage : 0);
}

std::int64_t round_up(std::int64_t num_bytes, std::int64_t grain_bytes) {
    return (num_bytes + grain_bytes - 1) / grain_bytes * grain_bytes;
}

void erase(std::vector<int>& slots, int slot) {
    const auto found = std::find(slots.begin(), slots.end(), slot);
    if (found == slots.end()) return;
    *found = slots.back();
    slots.pop_back();
}

Mapping reserve_addresses(std::int64_t num_bytes) {
    const auto size = static_cast<std::size_t>(num_bytes);
    void* data =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    // A child would make pages copies that a direct read is writing to: it does not get them.
    platform::keep_from_children(data, size);
    return {static_cast<std::uint8_t*>(data), Unmap{size}};
}

}  // namespace

SlotArena::SlotArena(std::int64_t capacity_bytes, const std::vector<std::int64_t>& record_sizes,
                     std::int64_t page_bytes)
    : capacity_bytes_(capacity_bytes) {
    std::int64_t all_bytes = 0, smallest = 0, largest = 0;
    for (const std::int64_t size : record_sizes) {
        all_bytes += size;
        if (size > capacity_bytes) continue;
        smallest = smallest == 0 ? size : std::min(smallest, size);
        largest = std::max(largest, size);
    }
    if (smallest == 0) return;
    // Slots whose pages may go back apart must not share a huge page: each begins at one.
    if (smallest < largest) {
        const bool holds_all = capacity_bytes >= all_bytes;  // and would not, if records took more
        const std::int64_t least = holds_all                        ? kFull
                                   : capacity_bytes < all_bytes / 2 ? kMostlyFull
                                                                    : kNearlyFull;
        const std::int64_t huge_bytes = filled_huge_bytes(smallest, least);
        huge_bytes_ = huge_bytes <= capacity_bytes ? huge_bytes : 0;
        // Where pages are larger than records' multiples (16 KiB on some boards), none is in two slots.
        if (!holds_all) grain_bytes_ = page_bytes > 0 ? page_bytes : ::sysconf(_SC_PAGESIZE);
    }
    stride_bytes_ = round_up(largest, huge_bytes_ > 0 ? kHugePage : grain_bytes_);
    const std::int64_t num_slots = capacity_bytes / slot_num_bytes(smallest);
    memory_ = reserve_addresses(stride_bytes_ * num_slots + kHugePage);
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
    start_ = memory_.get() + (kHugePage - address % kHugePage) % kHugePage;
    const bool has_huge_pages = smallest == largest && largest * num_slots >= kHugePage;
    const auto size = static_cast<std::size_t>(stride_bytes_ * num_slots);
    if (has_huge_pages)
        platform::want_huge_pages(start_, size);
    else
        platform::avoid_huge_pages(start_, size);
    slots_.resize(static_cast<std::size_t>(num_slots));
    for (int slot = static_cast<int>(num_slots) - 1; slot >= 0; --slot) untouched_.push_back(slot);
}

std::int64_t SlotArena::slot_num_bytes(std::int64_t num_bytes) const {
    return round_up(std::max(num_bytes, huge_bytes_), grain_bytes_);
}

int SlotArena::take(std::int64_t num_bytes) {
    const std::int64_t needed_bytes = slot_num_bytes(num_bytes);
    const int number = find(needed_bytes);
    Slot& slot = at(number);
    const std::int64_t growth = std::max(needed_bytes - slot.touched_bytes, std::int64_t{0});
    while (touched_bytes_ + growth > capacity_bytes_) trim_one();
    touched_bytes_ += growth;
    slot.touched_bytes += growth;
    slot.used_bytes = needed_bytes;
    if (slot.spare_bytes() > 0) spare_.push_back(number);
    return number;
}

void SlotArena::give(int slot) {
    erase(spare_, slot);
    at(slot).used_bytes = 0;
    free_.push_back(slot);
}

int SlotArena::find(std::int64_t num_bytes) {
    if (!free_.empty()) {
        const auto misfit = [&](int slot) {
            const std::int64_t extra_bytes = at(slot).touched_bytes - num_bytes;
            return std::pair(extra_bytes < 0, extra_bytes < 0 ? -extra_bytes : extra_bytes);
        };
        const int best = *std::min_element(free_.begin(), free_.end(),
                                           [&](int a, int b) { return misfit(a) < misfit(b); });
        erase(free_, best);
        return best;
    }
    if (untouched_.empty()) throw std::logic_error("arena: more slots than its capacity allows");
    const int slot = untouched_.back();
    untouched_.pop_back();
    if (huge_bytes_ > 0) platform::want_huge_pages(data(slot), static_cast<std::size_t>(huge_bytes_));
    return slot;
}

void SlotArena::trim_one() {
    std::vector<int>& from = free_.empty() ? spare_ : free_;
    if (from.empty()) throw std::logic_error("arena: records of more bytes than its capacity");
    const int number = *std::max_element(
        from.begin(), from.end(), [&](int a, int b) { return at(a).spare_bytes() < at(b).spare_bytes(); });
    Slot& slot = at(number);
    platform::give_back(data(number) + slot.used_bytes, static_cast<std::size_t>(slot.spare_bytes()));
    touched_bytes_ -= slot.spare_bytes();
    slot.touched_bytes = slot.used_bytes;
    if (&from == &free_) untouched_.push_back(number);
    erase(from, number);
}

}  // namespace edgemoe
