// Reads of experts under way: those demanded now, and those started on speculation.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <vector>

#include "experts/expert_cache.h"
#include "experts/reads.h"
#include "io/reader.h"

namespace edgemoe {

// Where a record lies.
struct RecordPlace {
    int file;
    std::int64_t offset;
};

// Every record is compared with what was written the first time it is read, each time, or never.
enum class Verify { kFirst, kAlways, kNever };

// An expert that is needed cannot be had. `result` without an error: its record is damaged.
struct LoadFailed : std::runtime_error {
    LoadFailed(int which, const ReadResult& how)
        : std::runtime_error("an expert cannot be loaded"), expert(which), result(how) {}
    int expert;
    ReadResult result;
};

// Brings experts into the cache. Used by one thread.
//
// A speculative read that fails or is damaged is forgotten: if the expert is needed it is demanded, tried
// anew, and then the error is raised.
class Loads final : public Reads {
  public:
    // Whether a record is as it was written.
    using Check = std::function<bool(int expert, const std::uint8_t* record, std::int64_t num_bytes)>;

    static constexpr int kDemand = 0;  // priority; speculation has the number of layers until it is needed
    // A demanded read that fails is tried again: a cable or a busy device may have been at fault.
    static constexpr int kDemandTries = 3;

    // Cache and reader outlive it.
    Loads(ExpertCache& cache, Reader& reader, std::vector<RecordPlace> places, Verify verify, Check is_sound);
    ~Loads() override;
    Loads(const Loads&) = delete;
    Loads& operator=(const Loads&) = delete;

    // See Reads; it starts with the next begin() or wait().
    bool start(int expert, int priority) override;
    // Starts the reads that are queued.
    void begin();
    // An expert being read on speculation is needed now: its read goes first from here on.
    void demand(int expert);
    bool cancel(int expert) override;
    // Admits what has arrived; never blocks.
    void poll();
    // Blocks until some of these experts, which are demanded, are in the cache; returns which. Throws
    // LoadFailed.
    std::vector<int> wait(const std::vector<int>& experts);
    // Drops a read on speculation that has not started; if there is none, waits for one to end.
    void make_room();
    // After an error: lets nothing write into room that is given back.
    void abandon() noexcept;

    const ExpertCache& cache() const { return cache_; }
    const Check& check() const { return check_; }
    bool contains(int expert) const override { return ticket_of(expert) != kNone; }
    std::int64_t pending_bytes() const override { return pending_bytes_; }
    std::int64_t demanded_bytes() const override { return demanded_bytes_; }
    double waited_s() const override { return waited_s_; }
    std::int64_t bytes_read() const { return bytes_read_; }

  private:
    using Ticket = Reader::Ticket;
    static constexpr Ticket kNone = -1;

    struct Read {
        Ticket ticket;
        int expert;
        int priority;
        int num_tries;
    };
    using Reads = std::vector<Read>;

    Ticket ticket_of(int expert) const { return tickets_[static_cast<std::size_t>(expert)]; }
    Reads::iterator find(Ticket ticket);
    void submit(Read read);
    Read forget(Reads::iterator read);
    // Takes in an ended read; none if it failed and was forgotten or is tried again.
    std::optional<int> arrive(Ticket ticket);
    bool is_sound(int expert);
    std::vector<Ticket> all_tickets() const;

    ExpertCache& cache_;
    Reader& reader_;
    std::vector<RecordPlace> places_;
    Verify verify_;
    Check check_;
    std::vector<std::uint8_t> is_verified_;
    Reads reads_;                  // in the order of their start
    std::vector<Ticket> tickets_;  // by expert
    bool has_queued_ = false;      // since begin()
    std::int64_t bytes_read_ = 0;
    std::int64_t pending_bytes_ = 0;
    std::int64_t demanded_bytes_ = 0;
    double waited_s_ = 0;
};

}  // namespace edgemoe
