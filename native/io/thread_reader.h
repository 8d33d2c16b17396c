// Worker threads that call pread(): for every kernel and file system, buffered reads included.
#pragma once

#include <thread>

#include "io/file_reader.h"

namespace edgemoe {

class ThreadReader final : public FileReader {
  public:
    ThreadReader(std::vector<std::string> paths, int num_threads, bool direct, Pace pace);
    ~ThreadReader() override;

  private:
    void queued() override;
    void start_queued() override;
    void wait_until(Lock& lock, const std::function<bool()>& is_over) override;
    void stop() override;

    void work();
    // Reads all of it, without the mutex.
    void read_all(Read& read) const;

    std::condition_variable has_work_;
    std::vector<std::thread> threads_;
};

}  // namespace edgemoe
