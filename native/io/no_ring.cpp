// In place of ring_reader.cpp where the system has no io_uring.
#include <cerrno>
#include <system_error>

#include "io/file_reader.h"

namespace edgemoe {

std::unique_ptr<FileReader> open_by_ring(std::vector<std::string>, int, Pace) {
    throw std::system_error(ENOSYS, std::generic_category(), "io_uring");
}

}  // namespace edgemoe
