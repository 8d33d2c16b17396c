// Files for tests of readers, and the ways of reading that can be tested.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "io/file_reader.h"

namespace edgemoe::testing {

inline constexpr std::int64_t kSector = kDirectAlignment;
// A file of which byte i is value_at(i), of that the bits of a mask; removed with the object. In the working
// directory, because /tmp may be a memory file system without direct reads.
class TemporaryFile {
  public:
    explicit TemporaryFile(std::int64_t num_bytes, std::uint8_t mask = 0xff) {
        const int descriptor = ::mkstemp(name_);
        if (descriptor < 0) throw std::system_error(errno, std::generic_category(), name_);
        ::close(descriptor);
        std::string bytes(static_cast<std::size_t>(num_bytes), '\0');
        for (std::int64_t i = 0; i < num_bytes; ++i)
            bytes[static_cast<std::size_t>(i)] = static_cast<char>(value_at(i) & mask);
        std::ofstream(name_, std::ios::binary) << bytes;
    }
    ~TemporaryFile() { ::unlink(name_); }
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    static std::uint8_t value_at(std::int64_t i) { return static_cast<std::uint8_t>(i * 31 + i / kSector); }
    std::string path() const { return name_; }
    void truncate(std::int64_t num_bytes) const {
        if (::truncate(name_, num_bytes) != 0) throw std::system_error(errno, std::generic_category(), name_);
    }

  private:
    char name_[32] = "edgemoe-io-test-XXXXXX";
};

// Ways of reading that this machine has.
inline const std::vector<ReadMethod>& methods() {
    static const std::vector<ReadMethod> found = [] {
        std::vector<ReadMethod> found;
        const TemporaryFile file(kSector);
        for (const auto method : {ReadMethod::kBuffered, ReadMethod::kDirect, ReadMethod::kRing}) {
            try {
                open_files(method, {file.path()}, 1);
                found.push_back(method);
            } catch (const std::system_error& error) {
                std::printf("      not tested here: %s\n", error.what());
            }
        }
        return found;
    }();
    return found;
}

}  // namespace edgemoe::testing
