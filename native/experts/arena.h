// The memory of the expert cache: slots of several sizes within a fixed number of bytes.
//
// Records of mixed bit widths differ in size. A slot has address space for the largest of them and may hold
// any, so one can always be had while bytes are left: nothing fragments. It keeps the pages it has touched
// and takes more when a larger record comes: pages that are new have to be cleared, which takes as long as
// reading them. When it would be too many, pages that hold no record go back to the system first, so the
// bytes in memory never exceed the capacity. Slots have huge pages as far as every record fills these, or
// mostly: with small ones alone products reach 0.8 of their speed, and a virtual disk 0.4 of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "core/mapping.h"

namespace edgemoe {

class SlotArena {
  public:
    // Slots for records of the given sizes, multiples of 4096, within `capacity_bytes` in all. The sizes are
    // those of every record that there is. Pages go back in pieces of `page_bytes`; 0: the system's.
    SlotArena(std::int64_t capacity_bytes, const std::vector<std::int64_t>& record_sizes,
              std::int64_t page_bytes = 0);

    // The number of a slot for a record of this size. The slot_num_bytes() of slots in use stay within the
    // capacity: the caller's duty; std::logic_error where there are more than that allows.
    int take(std::int64_t num_bytes);
    // Gives a slot back.
    void give(int slot);

    // Page-aligned; what lies there stays until the slot is given back.
    std::uint8_t* data(int slot) const { return start_ + slot * stride_bytes_; }
    // Bytes of memory that a record of this size takes.
    std::int64_t slot_num_bytes(std::int64_t num_bytes) const;
    // Bytes whose pages may be in memory: never more than the capacity.
    std::int64_t touched_bytes() const { return touched_bytes_; }
    int num_slots() const { return static_cast<int>(slots_.size()); }

  private:
    struct Slot {
        std::int64_t touched_bytes = 0;  // pages from its start that may be in memory
        std::int64_t used_bytes = 0;     // of these, what a record takes
        std::int64_t spare_bytes() const { return touched_bytes - used_bytes; }
    };

    // The free slot that fits best: with as many pages as needed, or nearly.
    int find(std::int64_t num_bytes);
    // Returns pages that hold no record to the system: all of one slot's.
    void trim_one();
    Slot& at(int slot) { return slots_[static_cast<std::size_t>(slot)]; }

    std::int64_t capacity_bytes_;
    std::int64_t huge_bytes_ = 0;   // of each slot's start, on huge pages
    std::int64_t grain_bytes_ = 1;  // what slots take is a multiple of this
    std::int64_t stride_bytes_ = 0;
    std::int64_t touched_bytes_ = 0;
    Mapping memory_;
    std::uint8_t* start_ = nullptr;
    std::vector<Slot> slots_;
    std::vector<int> untouched_;
    std::vector<int> free_;   // without a record, with pages that are still in memory
    std::vector<int> spare_;  // with pages behind their record
};

}  // namespace edgemoe
