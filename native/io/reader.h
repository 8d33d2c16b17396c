// The seam to storage: who fetches ranges of a store's files, and how it is asked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace edgemoe {

struct ReadRequest {
    int file;
    std::int64_t offset;
    std::int64_t num_bytes;
    std::uint8_t* destination;  // stays valid until the ticket is done
};

// How a request ended. Status, not exception: it crosses threads.
struct ReadResult {
    int error = 0;  // errno, 0 when all bytes arrived
    bool is_cancelled = false;
    bool is_short = false;       // the file ended before the range did
    std::int64_t num_bytes = 0;  // that have come
    bool is_checked = false;     // the reader has compared the bytes with their checksum itself
    ReadRequest request{};
};

// What went wrong, in words.
std::string what_failed(const ReadResult& result);

// Thread-safe. Every submitted ticket is collected exactly once, by wait().
class Reader {
  public:
    using Ticket = std::int64_t;

    virtual ~Reader() = default;

    // Queues a read; a lower priority number is served first, equal ones in order of submission. It starts
    // with the next begin() or wait at the latest: several are handed to the kernel at the cost of one.
    virtual Ticket submit(const ReadRequest& request, int priority) = 0;
    // Starts what is queued, as far as the depth allows; the rest follows by itself.
    virtual void begin() = 0;
    // Blocks until the read has ended; a cancelled one ends at once.
    virtual ReadResult wait(Ticket ticket) = 0;
    // Those of the tickets that have ended, for which wait() returns at once. While there is none it blocks,
    // or returns none when told not to.
    virtual std::vector<Ticket> wait_some(const std::vector<Ticket>& tickets, bool block) = 0;
    // True when the read had not started: it never will, and its destination is free.
    virtual bool cancel(Ticket ticket) = 0;
    // Instead of wait(): nobody wants the read any more. Its destination is free when this returns, which a
    // reader of slow storage can see to without the read's end.
    virtual void abandon(Ticket ticket) {
        cancel(ticket);
        wait(ticket);
    }
};

}  // namespace edgemoe
