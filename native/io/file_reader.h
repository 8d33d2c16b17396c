// Reads ranges of files into memory while others compute: demand before speculation, cancellable, around the
// page cache where the file system allows it, and as slowly as another device where asked to.
//
// FileReader keeps the requests and decides which goes next; how they are read is up to RingReader (io_uring)
// and ThreadReader (worker threads).
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "io/reader.h"

namespace edgemoe {

// Direct reads need offsets, lengths and addresses that are multiples of this.
inline constexpr std::int64_t kDirectAlignment = 4096;

// Makes reads as slow as those of a given device: each takes its turn on one line of this bandwidth, and
// arrives `latency_s` after its turn has ended. Zero bandwidth: no limit.
struct Pace {
    double bytes_per_s = 0;
    double latency_s = 0;
};

class FileReader : public Reader {
  public:
    ~FileReader() override;
    FileReader(const FileReader&) = delete;
    FileReader& operator=(const FileReader&) = delete;

    Ticket submit(const ReadRequest& request, int priority) override;
    void begin() override;
    ReadResult wait(Ticket ticket) override;
    std::vector<Ticket> wait_some(const std::vector<Ticket>& tickets, bool block = true) override;
    bool cancel(Ticket ticket) override;
    // Reads served at a time, 1 to the `max_depth` of opening.
    virtual void set_depth(int depth);
    // Drops what is queued, finishes what is being read, closes the files. Later calls do nothing.
    void close();

    const std::string& path(int file) const { return paths_.at(static_cast<std::size_t>(file)); }
    bool is_direct() const { return is_direct_; }
    int num_files() const { return static_cast<int>(paths_.size()); }

  protected:
    using Clock = std::chrono::steady_clock;
    using Lock = std::unique_lock<std::mutex>;

    // A request on its way, and how much of it has been read.
    struct Read {
        ReadResult result;
        int priority = 0;
        std::int64_t num_done = 0;
        Clock::time_point arrival{};  // not before, by the pace
        bool is_done = false;
    };

    // Opens all files; throws as open_files(). Classes that derive from this call close() in their
    // destructors.
    FileReader(std::vector<std::string> paths, int max_depth, bool direct, Pace pace);

    // What to read next, counted as started from here on; none while the queue is empty or the depth is
    // reached. The Read stays where it is until it is finished.
    std::optional<Ticket> take_next();
    Read& read_of(Ticket ticket) { return reads_.at(ticket); }
    int descriptor_of(const Read& read) const { return descriptor_of(read.result.request.file); }
    int descriptor_of(int file) const { return descriptors_[static_cast<std::size_t>(file)]; }
    // Takes in what one call for the rest of a read has returned: bytes, or an errno below zero. False if
    // the rest is to be asked for again.
    bool advance(Read& read, std::int64_t returned) const;
    void finish(Read& read);
    // Whether take_next() has something to give.
    bool may_start() const;
    // Whether more is queued than may be read at a time. What was queued since begin() is no backlog.
    bool has_backlog() const { return num_started_ > 0 && !queue_.empty(); }
    bool is_closing() const { return is_closing_; }
    int max_depth() const { return max_depth_; }
    // Waits awake at first: another thread that hands reads to the kernel is soon done.
    Lock hold();
    // Notified under the mutex when a read has ended or is cancelled.
    std::condition_variable has_result_;

    // All of these are called under the mutex, `lock` holds it, and they may give it up while they wait.
    // A read was queued.
    virtual void queued() {}
    // Starts what may be started.
    virtual void start_queued() = 0;
    // Blocks until is_over() holds. Where another thread's cancel() brings that about, it may be noticed
    // only when the next read that was started ends.
    virtual void wait_until(Lock& lock, const std::function<bool()>& is_over) = 0;
    // Notes what has ended, without blocking.
    virtual void poll() {}
    // Nothing is queued or started any more: lets threads go. The mutex is not held.
    virtual void stop() = 0;

  private:
    // Ordered by (priority, ticket): the next request is the first.
    using Queue = std::map<std::pair<int, Ticket>, Read*>;

    // When a read that starts now may arrive, by the pace.
    Clock::time_point take_turn(std::int64_t num_bytes);

    std::vector<std::string> paths_;
    std::vector<int> descriptors_;
    bool is_direct_;
    Pace pace_;
    std::mutex close_mutex_;  // taken before mutex_
    std::mutex mutex_;
    Queue queue_;
    std::unordered_map<Ticket, Read> reads_;
    Ticket next_ticket_ = 0;
    int max_depth_;
    int depth_;
    int num_started_ = 0;
    Clock::time_point line_is_free_{};
    bool is_closing_ = false;
};

// Around the page cache by io_uring or on worker threads, or through it, on threads as well.
enum class ReadMethod { kRing, kDirect, kBuffered };

// By io_uring; throws as open_files().
std::unique_ptr<FileReader> open_by_ring(std::vector<std::string> paths, int max_depth, Pace pace);

// Throws std::system_error naming the file that cannot be opened (with EINVAL where its file system takes no
// direct reads), or "io_uring" where the system has or allows none.
std::unique_ptr<FileReader> open_files(ReadMethod method, std::vector<std::string> paths, int max_depth,
                                       Pace pace = {});

}  // namespace edgemoe
