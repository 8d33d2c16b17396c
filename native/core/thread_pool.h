// A pool of worker threads for loops over rows, shared by all kernels of the process.
//
// After a loop workers spin for some tens of microseconds, because a decode step issues the next loop within
// that time, or for some hundreds where the last pause was that short too. Then they sleep: an idle engine
// costs nothing and leaves the processor to others. Which thread
// runs which rows never changes a result: no kernel reduces across the boundaries of a range.
#pragma once

#include <cstdint>
#include <functional>

namespace edgemoe {

// Number of threads that share a loop, the caller included. Default: the CPUs this process may use. After the
// first loop it is the number that the system has allowed.
int num_threads();

// Takes effect at the next loop. Values below 1 count as 1.
void set_num_threads(int count);

// Calls body(begin, end) for disjoint ranges that cover [0, n), in pieces of at least `grain`, and
// returns when all are done. The body must not throw and must not call parallel_for. Loops of
// several callers run one after the other.
void parallel_for(std::int64_t n, std::int64_t grain,
                  const std::function<void(std::int64_t begin, std::int64_t end)>& body);

// Runs a short task on a worker that is awake and has nothing to do, while the caller goes on; if there is
// none, here and now. It must not throw and must not call parallel_for. One task at a time: if the one before
// is still under way, here as well.
void run_aside(std::function<void()> task);

// Returns when no task is under way: what it uses may go.
void finish_aside();

}  // namespace edgemoe
