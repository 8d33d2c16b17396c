#include "platform/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace edgemoe::platform {
namespace {

// More than INT_MAX at a time is refused; a whole number of pages.
constexpr std::size_t kMostBytes = std::size_t{1} << 30;

}  // namespace

int open_to_read(const char* path, bool direct) {
    const int descriptor = ::open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || !direct) return descriptor;
    // What the cache has already is still taken from there. Records are asked for whole: what lies behind one
    // is not wanted.
    if (::fcntl(descriptor, F_NOCACHE, 1) == 0 && ::fcntl(descriptor, F_RDAHEAD, 0) == 0) return descriptor;
    const int error = errno;
    ::close(descriptor);
    errno = error;
    return -1;
}

ssize_t read_at(int descriptor, void* to, std::size_t num_bytes, std::int64_t offset) {
    return ::pread(descriptor, to, std::min(num_bytes, kMostBytes), offset);
}

// There is no such hint for a part of a file; the cache gives way when memory is asked for.
void drop_from_cache(int, std::int64_t, std::int64_t) {}

int punch_hole(int descriptor, std::int64_t offset, std::int64_t num_bytes) {
    fpunchhole_t range{0, 0, offset, num_bytes};
    if (::fcntl(descriptor, F_PUNCHHOLE, &range) == 0) return 0;
    // File systems other than APFS say ENOTSUP or ENOTTY.
    return errno == ENOTSUP || errno == ENOTTY ? EOPNOTSUPP : errno;
}

timespec time_written(const struct stat& found) { return found.st_mtimespec; }

}  // namespace edgemoe::platform
