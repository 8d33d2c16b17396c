// Direct reads by io_uring. The thread that submits starts them itself, and the one that waits sees them end:
// no worker has to be woken, which for small reads takes longer than the read. One thread helps out while
// more is queued than may be read at a time and nobody waits.
#pragma once

#include <thread>

#include "io/file_reader.h"
#include "platform/linux/ring.h"

namespace edgemoe {

class RingReader final : public FileReader {
  public:
    // Throws also where there is no io_uring; see Ring.
    RingReader(std::vector<std::string> paths, int max_depth, Pace pace);
    ~RingReader() override;

    // On a thread that has nothing to do, if there is one: the kernel takes tens of microseconds.
    void begin() override;

  private:
    void start_queued() override;
    void wait_until(Lock& lock, const std::function<bool()>& is_over) override;
    void poll() override;
    void stop() override;

    // Keeps the queue moving while nobody else does.
    void help();
    // Blocks until a read that was started may have ended. One thread at a time: the one that watches.
    void watch(Lock& lock);
    // Hands the rest of a read to the ring; submit() is up to the caller.
    void add(Ticket ticket, const Read& read);
    // The rest of a read, in this thread: bytes, or an errno below zero.
    std::int64_t read_here(const Read& read) const;

    Ring ring_;
    bool is_watched_ = false;
    std::chrono::nanoseconds mean_wait_{0};
    std::vector<Ticket> early_;  // read, but not to arrive yet by the pace
    std::condition_variable needs_help_;
    std::thread helper_;
};

}  // namespace edgemoe
