#include "io/thread_reader.h"

#include <cerrno>
#include <system_error>

#include "platform/files.h"

namespace edgemoe {

ThreadReader::ThreadReader(std::vector<std::string> paths, int num_threads, bool direct, Pace pace)
    : FileReader(std::move(paths), num_threads, direct, pace) {
    try {
        threads_.reserve(static_cast<std::size_t>(max_depth()));
        for (int i = 0; i < max_depth(); ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
        if (!threads_.empty()) return;  // fewer than wanted are slower, no more
        throw std::system_error(error.code(), "no thread to read with");
    }
}

ThreadReader::~ThreadReader() { close(); }

void ThreadReader::queued() { start_queued(); }

void ThreadReader::start_queued() { has_work_.notify_one(); }

void ThreadReader::wait_until(Lock& lock, const std::function<bool()>& is_over) {
    has_result_.wait(lock, is_over);
}

void ThreadReader::stop() {
    has_work_.notify_all();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
}

void ThreadReader::work() {
    for (;;) {
        Lock lock = hold();
        std::optional<Ticket> ticket;
        has_work_.wait(lock, [&] { return is_closing() || (ticket = take_next()).has_value(); });
        if (!ticket) return;
        Read& read = read_of(*ticket);
        if (may_start()) has_work_.notify_one();
        lock.unlock();
        read_all(read);
        std::this_thread::sleep_until(read.arrival);
        lock.lock();
        finish(read);
        lock.unlock();
        has_work_.notify_one();
    }
}

void ThreadReader::read_all(Read& read) const {
    const ReadRequest& request = read.result.request;
    const int descriptor = descriptor_of(read);
    ssize_t got;
    do {
        got = platform::read_at(descriptor, request.destination + read.num_done,
                                static_cast<std::size_t>(request.num_bytes - read.num_done),
                                request.offset + read.num_done);
    } while (!advance(read, got < 0 ? -errno : got));
    // What a buffered read leaves in the page cache would count against the memory budget.
    if (!is_direct()) platform::drop_from_cache(descriptor, request.offset, request.num_bytes);
}

}  // namespace edgemoe
