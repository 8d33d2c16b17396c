// Page-aligned anonymous memory: the destination of direct reads. Pages count only once touched.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>

#include "platform/memory.h"

namespace edgemoe {

class AlignedBuffer {
  public:
    explicit AlignedBuffer(std::size_t num_bytes) : num_bytes_(num_bytes == 0 ? 1 : num_bytes) {
        data_ = ::mmap(nullptr, num_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data_ == MAP_FAILED) throw std::bad_alloc();
        // Weights are read end to end: fewer page walks. No page reaches beyond the buffer.
        platform::want_huge_pages(data_, num_bytes_);
    }
    ~AlignedBuffer() { ::munmap(data_, num_bytes_); }
    AlignedBuffer(const AlignedBuffer&) = delete;
    AlignedBuffer& operator=(const AlignedBuffer&) = delete;

    std::uint8_t* data() const { return static_cast<std::uint8_t*>(data_); }

  private:
    void* data_;
    std::size_t num_bytes_;
};

}  // namespace edgemoe
