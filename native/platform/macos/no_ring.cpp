// io_uring is Linux's.
#include <cerrno>
#include <system_error>

#include "io/file_reader.h"

namespace edgemoe {

std::unique_ptr<FileReader> open_by_ring(std::vector<std::string>, int, Pace) {
    throw std::system_error(ENOSYS, std::generic_category(), "io_uring");
}

}  // namespace edgemoe
