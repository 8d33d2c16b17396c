// What systems do differently with files. Implemented in linux/ and in macos/.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <ctime>

namespace edgemoe::platform {

// A descriptor, or -1 and errno. `direct`: reads go around the page cache.
int open_to_read(const char* path, bool direct);

// pread(), which may read less than asked for.
ssize_t read_at(int descriptor, void* to, std::size_t num_bytes, std::int64_t offset);

// A hint: nobody reads this again soon.
void drop_from_cache(int descriptor, std::int64_t offset, std::int64_t num_bytes);

// Gives a part of a file back to its file system: the range reads as zeros afterwards and takes no room, and
// the file keeps its size. Returns errno, EOPNOTSUPP where the file system cannot.
int punch_hole(int descriptor, std::int64_t offset, std::int64_t num_bytes);

// When the file was last written.
timespec time_written(const struct stat& found);

}  // namespace edgemoe::platform
