// Worker threads that call pread(): for every kernel and file system, buffered reads included.
#pragma once

#include <thread>

#include "io/file_reader.h"

namespace edgemoe {

class ThreadReader : public FileReader {
  public:
    ThreadReader(std::vector<std::string> paths, int num_threads, bool direct, Pace pace);
    ~ThreadReader() override;

  protected:
    // Reads all of it; the mutex is not held. On any of the threads.
    virtual void read_all(Read& read) const;

  private:
    void queued() override;
    void start_queued() override;
    void wait_until(Lock& lock, const std::function<bool()>& is_over) override;
    void stop() override;

    void work();

    std::condition_variable has_work_;
    std::vector<std::thread> threads_;
};

}  // namespace edgemoe
