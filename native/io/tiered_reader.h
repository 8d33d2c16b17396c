// A near reader that has some of the records, before a far one that has them all.
//
// Which records are near says a table that other threads and processes change at any moment. It is a hint:
// what the near reader brings is compared with its checksum, and read from afar if it is not what it should
// be. Near reads end soon, so that as long as there are any, they are what is waited for.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "io/reader.h"

namespace edgemoe {

// One row of the table, as src/edgemoe/store/remote/tier_index.py lays it out in a file that is mapped.
struct TierEntry {
    std::uint32_t state;
    std::uint32_t uses;
    double worth;  // at its last use: its uses, and the age of the table then
};
inline constexpr std::uint32_t kWholeInTier = 2;

class TieredReader final : public Reader {
  public:
    struct Record {
        int file;
        std::int64_t offset;
        std::int64_t num_bytes;
        std::uint64_t checksum;
    };
    // Told of a record that is not what the table says.
    using Forget = std::function<void(int record)>;

    // `entries` has a row for the age, then one for each record. All but the records outlive it.
    TieredReader(Reader& near, Reader& far, std::vector<Record> records, TierEntry* entries, Forget forget);

    Ticket submit(const ReadRequest& request, int priority) override;
    void begin() override;
    ReadResult wait(Ticket ticket) override;
    std::vector<Ticket> wait_some(const std::vector<Ticket>& tickets, bool block) override;
    bool cancel(Ticket ticket) override;
    void abandon(Ticket ticket) override;

    // Bytes of sound records so far.
    std::int64_t near_bytes() const { return near_bytes_; }

  private:
    struct Read {
        ReadRequest request{};
        int priority = 0;
        int record = 0;  // of those that are read near
        bool is_near = false;
        Ticket ticket = 0;                 // of the reader that has it
        std::optional<ReadResult> result;  // once a near read has ended
    };
    using Lock = std::unique_lock<std::mutex>;

    // The number of the record that a request is for, if it is believed to be near.
    std::optional<int> find_near(const ReadRequest& request) const;
    Read read_of(Ticket ticket, const char* operation);
    // Takes in a near read that has ended: it has a result then, or is read from afar.
    void settle(Ticket ticket);
    bool is_sound(int record, const std::uint8_t* data) const;
    void use(int record);

    Reader& near_;
    Reader& far_;
    std::vector<Record> records_;
    std::map<std::pair<int, std::int64_t>, int> numbers_;  // by file and offset
    TierEntry* entries_;
    Forget forget_;
    std::mutex mutex_;  // of what follows; never held while a reader is asked for anything
    std::unordered_map<Ticket, Read> reads_;
    Ticket next_ticket_ = 0;
    bool has_near_ = false, has_far_ = false;  // queued since begin()
    std::int64_t near_bytes_ = 0;
};

}  // namespace edgemoe
