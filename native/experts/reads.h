// Reads of experts under way, as far as those who read ahead see them.
#pragma once

#include <cstdint>

namespace edgemoe {

// Experts by their number in the catalog. Used by one thread.
class Reads {
  public:
    virtual ~Reads() = default;

    // Queues the read of an absent expert; false if there is no room for it. Priority 0 is for those needed
    // now; speculation has the number of layers until it is needed.
    virtual bool start(int expert, int priority) = 0;
    // Drops a read that has not started; true if so.
    virtual bool cancel(int expert) = 0;
    virtual bool contains(int expert) const = 0;
    virtual std::int64_t pending_bytes() const = 0;
    // Of these, what is needed now.
    virtual std::int64_t demanded_bytes() const = 0;
    // Spent waiting for reads so far.
    virtual double waited_s() const = 0;
};

}  // namespace edgemoe
