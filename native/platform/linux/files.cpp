#include "platform/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace edgemoe::platform {

int open_to_read(const char* path, bool direct) {
    return ::open(path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
}

ssize_t read_at(int descriptor, void* to, std::size_t num_bytes, std::int64_t offset) {
    return ::pread(descriptor, to, num_bytes, offset);
}

void drop_from_cache(int descriptor, std::int64_t offset, std::int64_t num_bytes) {
    ::posix_fadvise(descriptor, offset, num_bytes, POSIX_FADV_DONTNEED);
}

int punch_hole(int descriptor, std::int64_t offset, std::int64_t num_bytes) {
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return ::fallocate(descriptor, mode, offset, num_bytes) == 0 ? 0 : errno;
}

timespec time_written(const struct stat& found) { return found.st_mtim; }

}  // namespace edgemoe::platform
