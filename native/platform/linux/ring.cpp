#include "platform/linux/ring.h"

#include <linux/io_uring.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace edgemoe {
namespace {

// The kernel stops a little below 2 GiB; a whole number of sectors keeps direct reads direct.
constexpr std::int64_t kMostBytes = std::int64_t{1} << 30;

[[noreturn]] void fail(int error) { throw std::system_error(error, std::generic_category(), "io_uring"); }

int enter(int descriptor, unsigned num_to_submit, unsigned num_to_await) {
    const unsigned flags = num_to_await > 0 ? IORING_ENTER_GETEVENTS : 0;
    const long got =
        ::syscall(__NR_io_uring_enter, descriptor, num_to_submit, num_to_await, flags, nullptr, 0);
    return got < 0 ? -errno : static_cast<int>(got);
}

}  // namespace

Ring::Ring(int num_entries) {
    io_uring_params params{};
    descriptor_ =
        static_cast<int>(::syscall(__NR_io_uring_setup, static_cast<unsigned>(num_entries), &params));
    if (descriptor_ < 0) fail(errno);
    try {
        // Of 5.6, as plain reads are; one mapping for both queues came before.
        if (!(params.features & IORING_FEAT_RW_CUR_POS)) fail(ENOSYS);
        // A filter of system calls may allow a ring and not its use.
        if (const int got = enter(descriptor_, 0, 0); got < 0) fail(-got);
        const std::size_t added_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
        const std::size_t ended_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
        queues_ = map(IORING_OFF_SQ_RING, std::max(added_bytes, ended_bytes));
        entries_ = map(IORING_OFF_SQES, params.sq_entries * sizeof(io_uring_sqe));
    } catch (...) {
        ::close(descriptor_);
        throw;
    }
    const auto in_queues = [&](unsigned offset) {
        return reinterpret_cast<unsigned*>(queues_.get() + offset);
    };
    added_end_ = in_queues(params.sq_off.tail);
    added_mask_ = *in_queues(params.sq_off.ring_mask);
    added_ = reinterpret_cast<io_uring_sqe*>(entries_.get());
    collected_end_ = in_queues(params.cq_off.head);
    ended_end_ = in_queues(params.cq_off.tail);
    ended_mask_ = *in_queues(params.cq_off.ring_mask);
    ended_ = reinterpret_cast<io_uring_cqe*>(queues_.get() + params.cq_off.cqes);
    // Entries are used in their order: the indirection stays the identity.
    unsigned* order = in_queues(params.sq_off.array);
    for (unsigned i = 0; i < params.sq_entries; ++i) order[i] = i;
}

Ring::~Ring() { ::close(descriptor_); }

Mapping Ring::map(std::int64_t offset, std::size_t num_bytes) const {
    void* data = ::mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor_,
                        static_cast<off_t>(offset));
    if (data == MAP_FAILED) fail(errno);
    return {static_cast<std::uint8_t*>(data), Unmap{num_bytes}};
}

void Ring::add(int descriptor, std::int64_t offset, std::int64_t num_bytes, std::uint8_t* destination,
               std::int64_t tag) {
    io_uring_sqe& entry = added_[(*added_end_ + num_added_) & added_mask_];
    std::memset(&entry, 0, sizeof entry);
    entry.opcode = IORING_OP_READ;
    entry.fd = descriptor;
    entry.off = static_cast<std::uint64_t>(offset);
    entry.addr = reinterpret_cast<std::uint64_t>(destination);
    entry.len = static_cast<unsigned>(std::min(num_bytes, kMostBytes));
    entry.user_data = static_cast<std::uint64_t>(tag);
    ++num_added_;
}

void Ring::submit() noexcept {
    std::atomic_ref(*added_end_).store(*added_end_ + num_added_, std::memory_order_release);
    while (num_added_ > 0) {
        const int taken = enter(descriptor_, num_added_, 0);
        if (taken >= 0) {
            num_added_ -= static_cast<unsigned>(taken);
        } else if (taken == -EAGAIN || taken == -EBUSY) {
            ::sched_yield();  // short of memory for a moment
        } else if (taken != -EINTR) {
            fail(-taken);
        }
    }
}

void Ring::collect(const std::function<void(std::int64_t, std::int64_t)>& take) {
    const unsigned end = std::atomic_ref(*ended_end_).load(std::memory_order_acquire);
    unsigned next = *collected_end_;
    for (; next != end; ++next) {
        const io_uring_cqe& entry = ended_[next & ended_mask_];
        take(static_cast<std::int64_t>(entry.user_data), entry.res);
    }
    std::atomic_ref(*collected_end_).store(next, std::memory_order_release);
}

bool Ring::has_ended() const {
    return std::atomic_ref(*ended_end_).load(std::memory_order_acquire) !=
           std::atomic_ref(*collected_end_).load(std::memory_order_relaxed);
}

void Ring::wait() const {
    // An interrupted wait is taken up again by the one who asks whether anything has ended.
    enter(descriptor_, 0, 1);
}

}  // namespace edgemoe
