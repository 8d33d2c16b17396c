// Memory that the system maps, unmapped with its owner.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace edgemoe {

struct Unmap {
    std::size_t num_bytes;
    void operator()(std::uint8_t* data) const { ::munmap(data, num_bytes); }
};
using Mapping = std::unique_ptr<std::uint8_t, Unmap>;

}  // namespace edgemoe
