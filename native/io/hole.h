// Giving a part of a file back to its file system.
#pragma once

#include <cstdint>

namespace edgemoe {

// The range reads as zeros afterwards and takes no room; the file keeps its size. Returns errno, EOPNOTSUPP
// where the file system or this system cannot.
int punch_hole(int descriptor, std::int64_t offset, std::int64_t num_bytes);

}  // namespace edgemoe
