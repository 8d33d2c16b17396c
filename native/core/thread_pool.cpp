#include "core/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "core/relax.h"
#include "platform/processor.h"

namespace edgemoe {
namespace {

using Body = std::function<void(std::int64_t, std::int64_t)>;

// Long enough to bridge the Python between two kernels of a step, short enough not to be seen in `top`.
constexpr auto kSpinTime = std::chrono::microseconds(60);
// The longest pause that is bridged by spinning, where the pause before was no longer either, as with short
// reads: waking up would take a good part of it.
constexpr auto kLongSpinTime = std::chrono::microseconds(400);
// Pieces per thread: lets a thread that was preempted leave its share to the others.
constexpr std::int64_t kPiecesPerThread = 4;

class Pool {
  public:
    // With fewer threads than asked for, where the system allows no more.
    explicit Pool(int count) {
        workers_.reserve(static_cast<std::size_t>(count - 1));
        try {
            for (int i = 1; i < count; ++i) workers_.emplace_back([this] { work(); });
        } catch (const std::system_error&) {
        }
    }

    ~Pool() {
        {
            std::lock_guard lock(mutex_);
            is_closing_.store(true);
            generation_.fetch_add(1);
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
        take_task();  // which none of them saw
    }

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    void run(std::int64_t n, std::int64_t piece, const Body& body) {
        body_ = &body;
        n_ = n;
        piece_ = piece;
        next_.store(0, std::memory_order_relaxed);
        is_open_.store(true);
        {
            std::lock_guard lock(mutex_);
            generation_.fetch_add(1);
        }
        if (num_asleep_.load() > 0) wake_.notify_all();
        take_pieces();
        // Workers that have entered are waited for; one that is only waking up finds the loop closed.
        is_open_.store(false);
        const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
        while (num_inside_.load() != 0) {
            relax();
            // A worker without a CPU cannot finish: give it ours.
            if (std::chrono::steady_clock::now() > deadline) std::this_thread::yield();
        }
    }

    // False where no worker is free for it.
    bool run_aside(std::function<void()>& task) {
        if (aside_.load() != Aside::kNone) return false;
        aside_task_ = std::move(task);
        aside_.store(Aside::kWaiting);
        if (num_asleep_.load() < static_cast<int>(workers_.size())) return true;
        // Nobody is awake, but one that fell asleep just now may have seen it.
        Aside expected = Aside::kWaiting;
        if (!aside_.compare_exchange_strong(expected, Aside::kNone)) return true;
        task = std::move(aside_task_);
        return false;
    }

    void finish_aside() {
        while (aside_.load() != Aside::kNone) relax();
    }

  private:
    enum class Aside { kNone, kWaiting, kRunning };

    void take_task() {
        Aside expected = Aside::kWaiting;
        if (!aside_.compare_exchange_strong(expected, Aside::kRunning)) return;
        aside_task_();
        aside_.store(Aside::kNone);
    }

    void take_pieces() {
        for (;;) {
            const std::int64_t begin = next_.fetch_add(piece_, std::memory_order_relaxed);
            if (begin >= n_) return;
            (*body_)(begin, std::min(begin + piece_, n_));
        }
    }

    void work() {
        std::uint64_t seen = 0;
        bool pauses_are_short = false;
        for (;;) {
            const auto pause = await_change_from(seen, pauses_are_short ? kLongSpinTime : kSpinTime);
            if (pause > kSpinTime) pauses_are_short = pause < kLongSpinTime;
            seen = generation_.load();
            if (is_closing_.load()) return;
            // Entering before looking: the caller sees a worker inside, or the worker a closed loop.
            num_inside_.fetch_add(1);
            if (is_open_.load()) take_pieces();
            num_inside_.fetch_sub(1);
        }
    }

    // Spins, then sleeps. Returns how long it took.
    std::chrono::nanoseconds await_change_from(std::uint64_t seen, std::chrono::microseconds spin_time) {
        const auto began = std::chrono::steady_clock::now();
        auto now = began;
        while (generation_.load(std::memory_order_acquire) == seen) {
            if (now - began > spin_time) {
                std::unique_lock lock(mutex_);
                num_asleep_.fetch_add(1);
                wake_.wait(lock,
                           [&] { return generation_.load() != seen || aside_.load() == Aside::kWaiting; });
                num_asleep_.fetch_sub(1);
            }
            if (aside_.load(std::memory_order_relaxed) == Aside::kWaiting) take_task();
            relax();
            now = std::chrono::steady_clock::now();
        }
        return now - began;
    }

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<std::uint64_t> generation_{0};
    std::atomic<std::int64_t> next_{0};
    std::atomic<int> num_inside_{0};
    std::atomic<bool> is_open_{false};
    std::atomic<int> num_asleep_{0};
    std::atomic<bool> is_closing_{false};
    std::atomic<Aside> aside_{Aside::kNone};
    std::function<void()> aside_task_;
    const Body* body_ = nullptr;
    std::int64_t n_ = 0;
    std::int64_t piece_ = 1;
};

std::mutex pool_mutex;
// Never destroyed at exit: workers may not be joined while the runtime is being torn down.
Pool* pool = nullptr;
int wanted_threads = 0;

// A forked child has none of the workers, and perhaps a locked mutex: it starts with a pool of its own.
void forget_pool() {
    new (&pool_mutex) std::mutex;
    pool = nullptr;
}

Pool& pool_of_wanted_size() {
    [[maybe_unused]] static const int registered = ::pthread_atfork(nullptr, nullptr, forget_pool);
    if (wanted_threads == 0) wanted_threads = platform::usable_processors();
    if (pool == nullptr || pool->size() != wanted_threads) {
        delete pool;
        pool = nullptr;
        pool = new Pool(wanted_threads);
        wanted_threads = pool->size();
    }
    return *pool;
}

}  // namespace

int num_threads() {
    std::lock_guard lock(pool_mutex);
    if (wanted_threads == 0) wanted_threads = platform::usable_processors();
    return wanted_threads;
}

void set_num_threads(int count) {
    std::lock_guard lock(pool_mutex);
    wanted_threads = std::max(1, count);
}

void parallel_for(std::int64_t n, std::int64_t grain, const Body& body) {
    if (n <= 0) return;
    std::lock_guard lock(pool_mutex);
    grain = std::max<std::int64_t>(1, grain);
    Pool& threads = pool_of_wanted_size();
    if (threads.size() == 1 || n <= grain) {
        body(0, n);
        return;
    }
    const std::int64_t share =
        (n + threads.size() * kPiecesPerThread - 1) / (threads.size() * kPiecesPerThread);
    threads.run(n, std::max(grain, share), body);
}

void run_aside(std::function<void()> task) {
    {
        // In the middle of another thread's loop nobody is free.
        std::unique_lock lock(pool_mutex, std::try_to_lock);
        if (lock && pool != nullptr && pool->run_aside(task)) return;
    }
    task();
}

void finish_aside() {
    std::lock_guard lock(pool_mutex);
    if (pool != nullptr) pool->finish_aside();
}

}  // namespace edgemoe
