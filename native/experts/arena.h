// The memory of the expert cache: a fixed number of bytes, on huge pages as far as these fill it. With small
// pages products reach 0.8 of their speed, and a virtual disk 0.4 of its own.
#pragma once

#include <cstdint>

#include "platform/mapping.h"

namespace edgemoe {

class Arena {
  public:
    explicit Arena(std::int64_t capacity_bytes);

    // Aligned as the offset is, up to a huge page.
    std::uint8_t* at(std::int64_t offset) const { return start_ + offset; }
    // The pages within go back to the system: these bytes take no memory until they are written to.
    void give_back(std::int64_t offset, std::int64_t num_bytes);

  private:
    Mapping memory_;
    std::uint8_t* start_;
};

// Memory beside an arena, page-aligned, which takes nothing until it is written to. std::bad_alloc where the
// system has no addresses.
Mapping map_apart(std::int64_t num_bytes);

}  // namespace edgemoe
