#include "io/file_reader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <system_error>

#include "core/relax.h"
#include "io/thread_reader.h"
#include "platform/files.h"

namespace edgemoe {
namespace {

// Before a thread sleeps for the mutex: some tens of microseconds.
constexpr int kTriesAwake = 1000;

int open_or_throw(const std::string& path, bool direct) {
    const int descriptor = platform::open_to_read(path.c_str(), direct);
    if (descriptor < 0) throw std::system_error(errno, std::generic_category(), path);
    return descriptor;
}

void close_all(std::vector<int>& descriptors) {
    for (const int descriptor : descriptors) ::close(descriptor);
    descriptors.clear();
}

}  // namespace

std::string what_failed(const ReadResult& result) {
    if (result.is_short) return "unexpected end of file";
    if (result.error == EBADMSG) return "weights that are not finite";
    if (result.error == ESTALE) return "the file has changed since it was opened";
    return std::strerror(result.error);
}

FileReader::FileReader(std::vector<std::string> paths, int max_depth, bool direct, Pace pace)
    : paths_(std::move(paths)),
      is_direct_(direct),
      pace_(pace),
      max_depth_(std::max(1, max_depth)),
      depth_(max_depth_) {
    try {
        for (const auto& path : paths_) descriptors_.push_back(open_or_throw(path, direct));
    } catch (...) {
        close_all(descriptors_);
        throw;
    }
}

FileReader::Lock FileReader::hold() {
    Lock lock(mutex_, std::try_to_lock);
    for (int i = 0; i < kTriesAwake && !lock; ++i) {
        relax();
        (void)lock.try_lock();
    }
    if (!lock) lock.lock();
    return lock;
}

FileReader::~FileReader() { close_all(descriptors_); }

void FileReader::close() {
    // A second caller returns when the first has finished.
    std::lock_guard closing(close_mutex_);
    {
        Lock lock = hold();
        is_closing_ = true;
        for (const auto& [key, read] : queue_) read->is_done = read->result.is_cancelled = true;
        queue_.clear();
        has_result_.notify_all();
        if (num_started_ > 0) wait_until(lock, [&] { return num_started_ == 0; });
    }
    stop();
    close_all(descriptors_);
}

FileReader::Ticket FileReader::submit(const ReadRequest& request, int priority) {
    Lock lock = hold();
    if (is_closing_) throw std::runtime_error("the reader is closed");
    const Ticket ticket = next_ticket_++;
    Read& read = reads_[ticket];
    read.result.request = request;
    read.priority = priority;
    queue_.emplace(std::pair{priority, ticket}, &read);
    queued();
    return ticket;
}

void FileReader::begin() {
    Lock lock = hold();
    start_queued();
}

ReadResult FileReader::wait(Ticket ticket) {
    Lock lock = hold();
    const auto found = reads_.find(ticket);
    if (found == reads_.end()) throw std::invalid_argument("wait: unknown ticket " + std::to_string(ticket));
    // References into the map outlive every change but their own removal.
    const Read& read = found->second;
    if (!read.is_done) {
        start_queued();
        wait_until(lock, [&] { return read.is_done; });
    }
    const ReadResult result = read.result;
    reads_.erase(ticket);
    return result;
}

std::vector<FileReader::Ticket> FileReader::wait_some(const std::vector<Ticket>& tickets, bool block) {
    Lock lock = hold();
    for (const Ticket ticket : tickets) {
        if (!reads_.contains(ticket)) {
            throw std::invalid_argument("wait_some: unknown ticket " + std::to_string(ticket));
        }
    }
    if (tickets.empty()) throw std::invalid_argument("wait_some: no tickets");
    std::vector<Ticket> ended;
    const auto find_ended = [&] {
        std::copy_if(tickets.begin(), tickets.end(), std::back_inserter(ended),
                     [&](Ticket ticket) { return reads_.at(ticket).is_done; });
        return !ended.empty();
    };
    start_queued();
    if (block) {
        wait_until(lock, find_ended);
    } else {
        poll();
        find_ended();
    }
    return ended;
}

void FileReader::set_depth(int depth) {
    Lock lock = hold();
    depth_ = std::clamp(depth, 1, max_depth_);
    start_queued();
}

bool FileReader::cancel(Ticket ticket) {
    Lock lock = hold();
    const auto found = reads_.find(ticket);
    if (found == reads_.end() || queue_.erase({found->second.priority, ticket}) == 0) return false;
    found->second.is_done = found->second.result.is_cancelled = true;
    has_result_.notify_all();
    return true;
}

std::optional<FileReader::Ticket> FileReader::take_next() {
    if (!may_start()) return std::nullopt;
    const auto next = queue_.begin();
    const Ticket ticket = next->first.second;
    Read& read = *next->second;
    queue_.erase(next);
    ++num_started_;
    read.arrival = take_turn(read.result.request.num_bytes);
    return ticket;
}

bool FileReader::may_start() const {
    if (queue_.empty()) return false;
    // Speculation leaves one place free, so that a demand never waits for a whole read of something else.
    const bool is_speculative = queue_.begin()->first.first > 0;
    return num_started_ < (is_speculative ? std::max(1, depth_ - 1) : depth_);
}

FileReader::Clock::time_point FileReader::take_turn(std::int64_t num_bytes) {
    if (pace_.bytes_per_s <= 0 && pace_.latency_s <= 0) return {};
    const auto seconds = [](double s) {
        return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
    };
    line_is_free_ = std::max(Clock::now(), line_is_free_);
    if (pace_.bytes_per_s > 0) {
        line_is_free_ += seconds(static_cast<double>(num_bytes) / pace_.bytes_per_s);
    }
    return line_is_free_ + seconds(pace_.latency_s);
}

bool FileReader::advance(Read& read, std::int64_t returned) const {
    ReadResult& result = read.result;
    if (returned == -EINTR || returned == -EAGAIN) return false;
    if (returned < 0) {
        result.error = static_cast<int>(-returned);
        return true;
    }
    const std::int64_t num_bytes = result.request.num_bytes, before = read.num_done;
    read.num_done += returned;
    result.num_bytes = read.num_done;
    // After a short direct read only whole sectors may be asked for again.
    if (is_direct_ && read.num_done < num_bytes) read.num_done -= read.num_done % kDirectAlignment;
    // Less than a sector is all there is at the end of a file that is no multiple of one.
    if (read.num_done == before && num_bytes > before) {
        result.error = EIO;
        result.is_short = true;
    }
    return result.error != 0 || read.num_done == num_bytes;
}

void FileReader::finish(Read& read) {
    read.is_done = true;
    --num_started_;
    has_result_.notify_all();
}

std::unique_ptr<FileReader> open_files(ReadMethod method, std::vector<std::string> paths, int max_depth,
                                       Pace pace) {
    if (method == ReadMethod::kRing) return open_by_ring(std::move(paths), max_depth, pace);
    const bool is_direct = method == ReadMethod::kDirect;
    return std::make_unique<ThreadReader>(std::move(paths), max_depth, is_direct, pace);
}

}  // namespace edgemoe
