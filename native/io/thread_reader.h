// Worker threads that call pread(): for every kernel and file system, buffered reads included.
#pragma once

#include <deque>
#include <thread>

#include "io/file_reader.h"

namespace edgemoe {

class ThreadReader : public FileReader {
  public:
    ThreadReader(std::vector<std::string> paths, int num_threads, bool direct, Pace pace);
    ~ThreadReader() override;

  protected:
    // Reads all of it; the mutex is not held. On any of the threads.
    virtual void read_all(Read& read);
    // Calls run(0) to run(count - 1), on this thread and on those that have nothing else to do, and returns
    // when all of them have ended. Within read_all().
    void share(int count, const std::function<void(int)>& run);

  private:
    void queued() override;
    void start_queued() override;
    void wait_until(Lock& lock, const std::function<bool()>& is_over) override;
    void stop() override;

    // Parts of a read; on the stack of the thread whose read it is.
    struct Parts {
        const std::function<void(int)>& run;
        int count;
        int num_begun = 0, num_done = 0;
    };

    void work();
    // Does one part of the first read that has any to begin; `lock` is given up meanwhile.
    void do_part(Lock& lock);

    std::condition_variable has_work_, parts_done_;
    std::deque<Parts*> open_;  // reads with parts that are not begun
    std::vector<std::thread> threads_;
};

}  // namespace edgemoe
