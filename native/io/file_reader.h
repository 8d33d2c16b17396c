// Reads ranges of files into memory on a few worker threads: demand before speculation, cancellable,
// around the page cache where the file system allows it, and as slowly as another device where asked to.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace edgemoe {

// Direct reads need offsets, lengths and addresses that are multiples of this.
inline constexpr std::int64_t kDirectAlignment = 4096;

struct ReadRequest {
    int file;
    std::int64_t offset;
    std::int64_t num_bytes;
    std::uint8_t* destination;  // stays valid until the ticket is done
};

// Makes reads as slow as those of a given device: each takes its turn on one line of this bandwidth, and
// arrives `latency_s` after its turn has ended. Zero bandwidth: no limit.
struct Pace {
    double bytes_per_s = 0;
    double latency_s = 0;
};

// How a request ended. Status, not exception: it crosses threads.
struct ReadResult {
    int error = 0;  // errno, 0 when all bytes arrived
    bool is_cancelled = false;
    bool is_short = false;  // the file ended before the range did
    ReadRequest request{};
};

// Thread-safe. Every submitted ticket is collected exactly once, by wait().
class FileReader {
  public:
    using Ticket = std::int64_t;

    // Opens all files. Throws std::system_error naming the path: also EINVAL where `direct` is not
    // supported by the file system.
    FileReader(std::vector<std::string> paths, int num_threads, bool direct, Pace pace = {});
    // As close().
    ~FileReader();
    FileReader(const FileReader&) = delete;
    FileReader& operator=(const FileReader&) = delete;

    // Queues a read; a lower priority number is served first, equal ones in order of submission.
    Ticket submit(const ReadRequest& request, int priority);
    // Blocks until the read has ended; a cancelled one ends at once.
    ReadResult wait(Ticket ticket);
    // One of the tickets that has ended, for which wait() returns at once. While there is none it blocks,
    // or returns -1 when told not to.
    Ticket wait_any(const std::vector<Ticket>& tickets, bool block = true);
    // Reads served at a time, 1 to the number of threads.
    void set_depth(int depth);
    // True when the read had not started: it never will, and its destination is free.
    bool cancel(Ticket ticket);
    // Drops what is queued, finishes what is being read, joins the threads. Later calls do nothing.
    void close();

    const std::string& path(int file) const { return paths_.at(static_cast<std::size_t>(file)); }
    bool is_direct() const { return is_direct_; }
    int num_files() const { return static_cast<int>(paths_.size()); }

  private:
    struct Pending {
        ReadResult result;
        int priority = 0;
        bool is_done = false;
    };
    // Ordered by (priority, ticket): the next request is the first.
    using Queue = std::map<std::pair<int, Ticket>, ReadRequest>;
    using Clock = std::chrono::steady_clock;

    void work();
    // Whether a worker may take the first request now. Under mutex_.
    bool may_start() const;
    // When a read that starts now may arrive, by the pace. Under mutex_.
    Clock::time_point take_turn(std::int64_t num_bytes);
    ReadResult read(const ReadRequest& request) const;

    std::vector<std::string> paths_;
    std::vector<int> descriptors_;
    bool is_direct_;
    Pace pace_;
    std::mutex close_mutex_;  // taken before mutex_
    std::mutex mutex_;
    std::condition_variable has_work_;
    std::condition_variable has_result_;
    Queue queue_;
    std::unordered_map<Ticket, Pending> pending_;
    Ticket next_ticket_ = 0;
    int depth_;
    int num_active_ = 0;
    Clock::time_point line_is_free_{};
    bool is_closing_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace edgemoe
