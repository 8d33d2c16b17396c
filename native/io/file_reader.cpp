#include "io/file_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace edgemoe {
namespace {

int open_or_throw(const std::string& path, bool direct) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (descriptor < 0) throw std::system_error(errno, std::generic_category(), path);
    return descriptor;
}

}  // namespace

FileReader::FileReader(std::vector<std::string> paths, int num_threads, bool direct, Pace pace)
    : paths_(std::move(paths)), is_direct_(direct), pace_(pace), depth_(std::max(1, num_threads)) {
    try {
        for (const auto& path : paths_) descriptors_.push_back(open_or_throw(path, direct));
        for (int i = 0; i < depth_; ++i) threads_.emplace_back([this] { work(); });
    } catch (...) {
        close();
        throw;
    }
}

FileReader::~FileReader() { close(); }

void FileReader::close() {
    // A second caller returns when the first has joined the threads.
    std::lock_guard closing(close_mutex_);
    {
        std::lock_guard lock(mutex_);
        is_closing_ = true;
        for (const auto& [key, request] : queue_) {
            Pending& pending = pending_.at(key.second);
            pending.is_done = pending.result.is_cancelled = true;
        }
        queue_.clear();
    }
    has_work_.notify_all();
    has_result_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
    for (const int descriptor : descriptors_) ::close(descriptor);
    descriptors_.clear();
}

FileReader::Ticket FileReader::submit(const ReadRequest& request, int priority) {
    Ticket ticket;
    {
        std::lock_guard lock(mutex_);
        if (is_closing_) throw std::runtime_error("the reader is closed");
        ticket = next_ticket_++;
        Pending& pending = pending_[ticket];
        pending.result.request = request;
        pending.priority = priority;
        queue_.emplace(std::pair{priority, ticket}, request);
    }
    has_work_.notify_one();
    return ticket;
}

ReadResult FileReader::wait(Ticket ticket) {
    std::unique_lock lock(mutex_);
    const auto found = pending_.find(ticket);
    if (found == pending_.end())
        throw std::invalid_argument("wait: unknown ticket " + std::to_string(ticket));
    has_result_.wait(lock, [&] { return pending_.at(ticket).is_done; });
    const ReadResult result = pending_.at(ticket).result;
    pending_.erase(ticket);
    return result;
}

FileReader::Ticket FileReader::wait_any(const std::vector<Ticket>& tickets, bool block) {
    std::unique_lock lock(mutex_);
    for (const Ticket ticket : tickets) {
        if (!pending_.contains(ticket)) {
            throw std::invalid_argument("wait_any: unknown ticket " + std::to_string(ticket));
        }
    }
    if (tickets.empty()) throw std::invalid_argument("wait_any: no tickets");
    Ticket ended = -1;
    const auto find_ended = [&] {
        const auto done = std::find_if(tickets.begin(), tickets.end(),
                                       [&](Ticket ticket) { return pending_.at(ticket).is_done; });
        if (done == tickets.end()) return false;
        ended = *done;
        return true;
    };
    if (block) {
        has_result_.wait(lock, find_ended);
    } else {
        find_ended();
    }
    return ended;
}

void FileReader::set_depth(int depth) {
    {
        std::lock_guard lock(mutex_);
        depth_ = std::clamp(depth, 1, static_cast<int>(threads_.size()));
    }
    has_work_.notify_all();
}

bool FileReader::cancel(Ticket ticket) {
    {
        std::lock_guard lock(mutex_);
        const auto found = pending_.find(ticket);
        if (found == pending_.end() || queue_.erase({found->second.priority, ticket}) == 0) return false;
        found->second.is_done = found->second.result.is_cancelled = true;
    }
    has_result_.notify_all();
    return true;
}

bool FileReader::may_start() const {
    if (queue_.empty()) return false;
    // Speculation leaves one place free, so that a demand never waits for a whole read of something else.
    const bool is_speculative = queue_.begin()->first.first > 0;
    return num_active_ < (is_speculative ? std::max(1, depth_ - 1) : depth_);
}

FileReader::Clock::time_point FileReader::take_turn(std::int64_t num_bytes) {
    const auto now = Clock::now();
    if (pace_.bytes_per_s <= 0 && pace_.latency_s <= 0) return now;
    const auto seconds = [](double s) {
        return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
    };
    line_is_free_ = std::max(now, line_is_free_);
    if (pace_.bytes_per_s > 0) {
        line_is_free_ += seconds(static_cast<double>(num_bytes) / pace_.bytes_per_s);
    }
    return line_is_free_ + seconds(pace_.latency_s);
}

void FileReader::work() {
    for (;;) {
        std::unique_lock lock(mutex_);
        has_work_.wait(lock, [&] { return is_closing_ || may_start(); });
        if (is_closing_) return;
        const auto next = queue_.begin();
        const Ticket ticket = next->first.second;
        const ReadRequest request = next->second;
        queue_.erase(next);
        ++num_active_;
        const auto arrival = take_turn(request.num_bytes);
        lock.unlock();
        const ReadResult result = read(request);
        std::this_thread::sleep_until(arrival);
        lock.lock();
        Pending& pending = pending_.at(ticket);
        pending.result = result;
        pending.is_done = true;
        --num_active_;
        lock.unlock();
        has_result_.notify_all();
        has_work_.notify_one();
    }
}

ReadResult FileReader::read(const ReadRequest& request) const {
    ReadResult result;
    result.request = request;
    const int descriptor = descriptors_[static_cast<std::size_t>(request.file)];
    std::int64_t done = 0;
    while (done < request.num_bytes) {
        const ssize_t got =
            ::pread(descriptor, request.destination + done,
                    static_cast<std::size_t>(request.num_bytes - done), request.offset + done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            result.error = errno;
            break;
        }
        const std::int64_t before = done;
        done += got;
        // After a short direct read only whole sectors may be asked for again.
        if (is_direct_ && done < request.num_bytes) done -= done % kDirectAlignment;
        // Less than a sector is all there is at the end of a file that is no multiple of one.
        if (done == before) {
            result.error = EIO;
            result.is_short = true;
            break;
        }
    }
    // What a buffered read leaves in the page cache would count against the memory budget.
    if (!is_direct_) ::posix_fadvise(descriptor, request.offset, request.num_bytes, POSIX_FADV_DONTNEED);
    return result;
}

}  // namespace edgemoe
