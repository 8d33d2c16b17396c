#include "io/hole.h"

#include <fcntl.h>

#include <cerrno>

namespace edgemoe {

int punch_hole(int descriptor, std::int64_t offset, std::int64_t num_bytes) {
#if defined(__linux__)
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return fallocate(descriptor, mode, offset, num_bytes) == 0 ? 0 : errno;
#elif defined(__APPLE__)
    fpunchhole_t range{0, 0, offset, num_bytes};
    return fcntl(descriptor, F_PUNCHHOLE, &range) == 0 ? 0 : errno;
#else
    return EOPNOTSUPP;
#endif
}

}  // namespace edgemoe
