// Linux's io_uring, as far as reading files takes: requests are handed to the kernel through shared memory,
// many by one call, and what has ended is seen there without any.
//
// Raw system calls, because a build should need no more than a compiler; the protocol is that of
// io_uring(7). One thread at a time, but for has_ended() and wait().
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "platform/mapping.h"

struct io_uring_cqe;
struct io_uring_sqe;

namespace edgemoe {

class Ring {
  public:
    // For at most `num_entries` reads at a time. Throws std::system_error naming "io_uring" where the kernel
    // is too old (before 5.6) or does not allow it.
    explicit Ring(int num_entries);
    ~Ring();
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    // Adds a read to those that the next submit() hands over. Of more than 1 GiB only the first is read.
    void add(int descriptor, std::int64_t offset, std::int64_t num_bytes, std::uint8_t* destination,
             std::int64_t tag);
    // The kernel refuses only what would be a mistake of this class: that ends the program.
    void submit() noexcept;
    // Calls take(tag, returned) for every read that has ended: bytes, or an errno below zero.
    void collect(const std::function<void(std::int64_t tag, std::int64_t returned)>& take);
    // Whether collect() has something to give.
    bool has_ended() const;
    // Blocks until then; for ever, if there is no read in the kernel.
    void wait() const;

  private:
    Mapping map(std::int64_t offset, std::size_t num_bytes) const;

    int descriptor_;
    Mapping queues_;
    Mapping entries_;
    // Of the submission queue: where the next entry goes, and how numbers of entries wrap.
    unsigned* added_end_;
    unsigned added_mask_;
    unsigned num_added_ = 0;
    io_uring_sqe* added_;
    // Of the completion queue: up to where it was collected, and up to where the kernel has filled it.
    unsigned* collected_end_;
    unsigned* ended_end_;
    unsigned ended_mask_;
    io_uring_cqe* ended_;
};

}  // namespace edgemoe
