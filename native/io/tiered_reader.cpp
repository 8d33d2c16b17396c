#include "io/tiered_reader.h"

#include <atomic>
#include <stdexcept>
#include <string>

#include "core/checksum.h"
#include "io/file_reader.h"

namespace edgemoe {

TieredReader::TieredReader(Reader& near, Reader& far, std::vector<Record> records, TierEntry* entries,
                           Forget forget)
    : near_(near), far_(far), records_(std::move(records)), entries_(entries), forget_(std::move(forget)) {
    for (const Record& record : records_) {
        numbers_.emplace(std::pair(record.file, record.offset), static_cast<int>(numbers_.size()));
    }
    if (numbers_.size() != records_.size()) throw std::invalid_argument("tier: two records at one place");
}

Reader::Ticket TieredReader::submit(const ReadRequest& request, int priority) {
    Read read;
    read.request = request;
    read.priority = priority;
    if (const auto record = find_near(request)) {
        read.is_near = true;
        read.record = *record;
    }
    read.ticket = (read.is_near ? near_ : far_).submit(request, priority);
    const Lock lock(mutex_);
    (read.is_near ? has_near_ : has_far_) = true;
    reads_.emplace(next_ticket_, read);
    return next_ticket_++;
}

void TieredReader::begin() {
    bool begins_near, begins_far;
    {
        const Lock lock(mutex_);
        begins_near = std::exchange(has_near_, false);
        begins_far = std::exchange(has_far_, false);
    }
    if (begins_far) far_.begin();
    if (begins_near) near_.begin();
}

ReadResult TieredReader::wait(Ticket ticket) {
    Read read = read_of(ticket, "wait");
    if (read.is_near && !read.result) {
        settle(ticket);
        read = read_of(ticket, "wait");
    }
    const ReadResult result = read.is_near ? *read.result : far_.wait(read.ticket);
    const Lock lock(mutex_);
    reads_.erase(ticket);
    return result;
}

std::vector<Reader::Ticket> TieredReader::wait_some(const std::vector<Ticket>& tickets, bool block) {
    if (tickets.empty()) throw std::invalid_argument("wait_some: no tickets");
    while (true) {
        std::vector<Ticket> done, near, far;
        std::unordered_map<Ticket, Ticket> of_near, of_far;  // our tickets, by those of the readers
        for (const Ticket ticket : tickets) {
            const Read read = read_of(ticket, "wait_some");
            if (read.result) {
                done.push_back(ticket);
            } else {
                (read.is_near ? near : far).push_back(read.ticket);
                (read.is_near ? of_near : of_far).emplace(read.ticket, ticket);
            }
        }
        if (!near.empty()) {
            for (const Ticket ended : near_.wait_some(near, block && done.empty())) {
                const Ticket ticket = of_near.at(ended);
                settle(ticket);
                if (read_of(ticket, "wait_some").result) done.push_back(ticket);
            }
        }
        if (!far.empty()) {
            const bool waits = block && done.empty() && near.empty();
            for (const Ticket ended : far_.wait_some(far, waits)) done.push_back(of_far.at(ended));
        }
        if (!done.empty() || !block) return done;
    }
}

bool TieredReader::cancel(Ticket ticket) {
    Read read;
    {
        const Lock lock(mutex_);
        const auto found = reads_.find(ticket);
        if (found == reads_.end() || found->second.result) return false;
        read = found->second;
    }
    return (read.is_near ? near_ : far_).cancel(read.ticket);
}

void TieredReader::abandon(Ticket ticket) {
    const Read read = read_of(ticket, "abandon");
    if (!read.result) (read.is_near ? near_ : far_).abandon(read.ticket);
    const Lock lock(mutex_);
    reads_.erase(ticket);
}

std::optional<int> TieredReader::find_near(const ReadRequest& request) const {
    const auto found = numbers_.find({request.file, request.offset});
    if (found == numbers_.end()) return std::nullopt;
    // Direct reads are of whole blocks; only what asks for less than a record has another destination.
    if (reinterpret_cast<std::uintptr_t>(request.destination) % kDirectAlignment != 0) return std::nullopt;
    const int record = found->second;
    if (records_[static_cast<std::size_t>(record)].num_bytes != request.num_bytes) return std::nullopt;
    const std::atomic_ref state(entries_[1 + record].state);
    return state.load(std::memory_order_relaxed) == kWholeInTier ? std::optional(record) : std::nullopt;
}

TieredReader::Read TieredReader::read_of(Ticket ticket, const char* operation) {
    const Lock lock(mutex_);
    const auto found = reads_.find(ticket);
    if (found == reads_.end()) {
        throw std::invalid_argument(std::string(operation) + ": unknown ticket " + std::to_string(ticket));
    }
    return found->second;
}

void TieredReader::settle(Ticket ticket) {
    const Read read = read_of(ticket, "wait");
    ReadResult result = near_.wait(read.ticket);
    result.is_checked =
        result.error == 0 && !result.is_cancelled && is_sound(read.record, read.request.destination);
    if (result.is_checked || result.is_cancelled) {
        if (result.is_checked) use(read.record);
        const Lock lock(mutex_);
        if (result.is_checked) near_bytes_ += read.request.num_bytes;
        reads_.at(ticket).result = result;
        return;
    }
    forget_(read.record);
    const Ticket far = far_.submit(read.request, read.priority);
    {
        const Lock lock(mutex_);
        Read& again = reads_.at(ticket);
        again.is_near = false;
        again.ticket = far;
    }
    far_.begin();
}

bool TieredReader::is_sound(int record, const std::uint8_t* data) const {
    const Record& expected = records_[static_cast<std::size_t>(record)];
    return checksum(data, expected.num_bytes) == expected.checksum;
}

void TieredReader::use(int record) {
    // A use that gets lost between processes does no harm.
    const std::uint32_t uses = ++std::atomic_ref(entries_[1 + record].uses);
    const double age = std::atomic_ref(entries_[0].worth).load(std::memory_order_relaxed);
    std::atomic_ref(entries_[1 + record].worth).store(uses + age, std::memory_order_relaxed);
}

}  // namespace edgemoe
