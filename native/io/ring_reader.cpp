#include "io/ring_reader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "core/thread_pool.h"

namespace edgemoe {
namespace {

// Reads that end within this time are waited for by spinning: to sleep and be woken would take as long again.
// Where they take longer on average, as those of large experts do, the thread sleeps.
constexpr std::chrono::nanoseconds kSpinTime = std::chrono::microseconds(300);
// Waits over which that average runs.
constexpr int kRecentWaits = 8;

}  // namespace

RingReader::RingReader(std::vector<std::string> paths, int max_depth, Pace pace)
    : FileReader(std::move(paths), max_depth, true, pace), ring_(this->max_depth()) {
    try {
        helper_ = std::thread([this] { help(); });
    } catch (const std::system_error&) {
        // No more threads are allowed: what is queued then starts when somebody waits.
    }
}

RingReader::~RingReader() { close(); }

void RingReader::begin() {
    run_aside([this] { FileReader::begin(); });
}

void RingReader::start_queued() {
    bool is_any = false;
    while (const auto ticket = take_next()) {
        add(*ticket, read_of(*ticket));
        is_any = true;
    }
    if (is_any) ring_.submit();
    if (has_backlog() && !is_watched_) needs_help_.notify_one();
}

void RingReader::add(Ticket ticket, const Read& read) {
    const ReadRequest& request = read.result.request;
    ring_.add(descriptor_of(read), request.offset + read.num_done, request.num_bytes - read.num_done,
              request.destination + read.num_done, ticket);
}

std::int64_t RingReader::read_here(const Read& read) const {
    const ReadRequest& request = read.result.request;
    const ssize_t got =
        ::pread(descriptor_of(read), request.destination + read.num_done,
                static_cast<std::size_t>(request.num_bytes - read.num_done), request.offset + read.num_done);
    return got < 0 ? -errno : got;
}

void RingReader::poll() {
    // Completions are left to the thread that waits for them; it would block forever.
    if (is_watched_) return;
    bool is_any = false, is_continued = false;
    const auto end = [&](Ticket ticket) {
        finish(read_of(ticket));
        is_any = true;
    };
    if (!early_.empty()) {
        const auto now = Clock::now();
        std::erase_if(early_, [&](Ticket ticket) {
            if (read_of(ticket).arrival > now) return false;
            end(ticket);
            return true;
        });
    }
    ring_.collect([&](Ticket ticket, std::int64_t returned) {
        Read& read = read_of(ticket);
        // The kernel needed a thread for it, and no more are allowed (pids.max).
        if (returned == -ECANCELED) returned = read_here(read);
        if (!advance(read, returned)) {
            add(ticket, read);
            is_continued = true;
        } else if (read.arrival > Clock::now()) {
            early_.push_back(ticket);
        } else {
            end(ticket);
        }
    });
    if (is_continued) ring_.submit();
    if (is_any) start_queued();
}

void RingReader::wait_until(Lock& lock, const std::function<bool()>& is_over) {
    for (poll(); !is_over(); poll()) {
        if (is_watched_) {
            has_result_.wait(lock);
        } else {
            watch(lock);
        }
    }
    if (has_backlog() && !is_watched_) needs_help_.notify_one();
}

void RingReader::watch(Lock& lock) {
    is_watched_ = true;
    if (early_.empty()) {
        const auto began = Clock::now();
        const auto deadline = began + (mean_wait_ < kSpinTime ? kSpinTime : std::chrono::nanoseconds(0));
        lock.unlock();
        while (!ring_.has_ended() && Clock::now() < deadline) continue;
        if (!ring_.has_ended()) ring_.wait();
        const auto took = Clock::now() - began;
        lock.lock();
        mean_wait_ += (took - mean_wait_) / kRecentWaits;
    } else {
        const auto first = std::min_element(early_.begin(), early_.end(), [&](Ticket a, Ticket b) {
            return read_of(a).arrival < read_of(b).arrival;
        });
        const auto arrival = read_of(*first).arrival;
        lock.unlock();
        // Sleep ends late by a good part of a short read's time.
        if (arrival - Clock::now() > kSpinTime) std::this_thread::sleep_until(arrival);
        while (Clock::now() < arrival) continue;
        lock.lock();
    }
    is_watched_ = false;
    // Whoever waits for something else must watch now.
    has_result_.notify_all();
}

void RingReader::help() {
    Lock lock = hold();
    for (;;) {
        needs_help_.wait(lock, [&] { return is_closing() || (has_backlog() && !is_watched_); });
        if (is_closing()) return;
        watch(lock);
        poll();
    }
}

void RingReader::stop() {
    finish_aside();
    needs_help_.notify_all();
    if (helper_.joinable()) helper_.join();
}

std::unique_ptr<FileReader> open_by_ring(std::vector<std::string> paths, int max_depth, Pace pace) {
    return std::make_unique<RingReader>(std::move(paths), max_depth, pace);
}

}  // namespace edgemoe
