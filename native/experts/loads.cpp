#include "experts/loads.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace edgemoe {

Loads::Loads(ExpertCache& cache, Reader& reader, std::vector<RecordPlace> places, Verify verify,
             Check is_sound)
    : cache_(cache),
      reader_(reader),
      places_(std::move(places)),
      verify_(verify),
      check_(std::move(is_sound)),
      is_verified_(places_.size()),
      tickets_(places_.size(), kNone) {
    if (static_cast<int>(places_.size()) != cache.catalog().num_experts()) {
        throw std::invalid_argument("loads: as many places as experts");
    }
}

Loads::~Loads() { abandon(); }

bool Loads::start(int expert, int priority) {
    if (cache_.reserve(expert, priority == kDemand) == nullptr) return false;
    submit({kNone, expert, priority, 1});
    return true;
}

void Loads::begin() {
    if (has_queued_) reader_.begin();
    has_queued_ = false;
}

void Loads::demand(int expert) {
    const auto read = find(ticket_of(expert));
    if (read->priority == kDemand) return;
    if (reader_.cancel(read->ticket)) {
        reader_.wait(read->ticket);
        Read again = forget(read);
        again.priority = kDemand;
        submit(again);
    } else {
        read->priority = kDemand;
        demanded_bytes_ += cache_.record_num_bytes(expert);
    }
}

bool Loads::cancel(int expert) {
    const auto read = find(ticket_of(expert));
    if (!reader_.cancel(read->ticket)) return false;
    reader_.wait(read->ticket);
    forget(read);
    cache_.release(expert);
    return true;
}

void Loads::poll() {
    if (reads_.empty()) return;
    for (const Ticket ticket : reader_.wait_some(all_tickets(), /*block=*/false)) arrive(ticket);
}

std::vector<int> Loads::wait(const std::vector<int>& experts) {
    using Clock = std::chrono::steady_clock;
    const auto began = Clock::now();
    std::vector<int> arrived;
    while (arrived.empty()) {
        std::vector<Ticket> tickets;
        for (const int expert : experts) tickets.push_back(ticket_of(expert));
        for (const Ticket ticket : reader_.wait_some(tickets, /*block=*/true)) {
            if (const auto expert = arrive(ticket)) arrived.push_back(*expert);
        }
    }
    waited_s_ += std::chrono::duration<double>(Clock::now() - began).count();
    return arrived;
}

void Loads::make_room() {
    for (std::size_t i = reads_.size(); i-- > 0;) {
        if (reads_[i].priority > kDemand && cancel(reads_[i].expert)) return;
    }
    for (const Ticket ticket : reader_.wait_some(all_tickets(), /*block=*/true)) arrive(ticket);
}

void Loads::abandon() noexcept {
    while (!reads_.empty()) {
        const Read read = forget(reads_.end() - 1);
        try {
            reader_.abandon(read.ticket);
        } catch (...) {
            // The first error is the one to report.
        }
        cache_.release(read.expert);
    }
}

Loads::Reads::iterator Loads::find(Ticket ticket) {
    return std::find_if(reads_.begin(), reads_.end(),
                        [=](const Read& read) { return read.ticket == ticket; });
}

void Loads::submit(Read read) {
    const auto [file, offset] = places_[static_cast<std::size_t>(read.expert)];
    const std::int64_t num_bytes = cache_.record_num_bytes(read.expert);
    try {
        read.ticket = reader_.submit({file, offset, num_bytes, cache_.record(read.expert)}, read.priority);
    } catch (...) {
        cache_.release(read.expert);
        throw;
    }
    has_queued_ = true;
    tickets_[static_cast<std::size_t>(read.expert)] = read.ticket;
    reads_.push_back(read);
    pending_bytes_ += num_bytes;
    if (read.priority == kDemand) demanded_bytes_ += num_bytes;
}

Loads::Read Loads::forget(Reads::iterator found) {
    const Read read = *found;
    reads_.erase(found);
    tickets_[static_cast<std::size_t>(read.expert)] = kNone;
    const std::int64_t num_bytes = cache_.record_num_bytes(read.expert);
    pending_bytes_ -= num_bytes;
    if (read.priority == kDemand) demanded_bytes_ -= num_bytes;
    return read;
}

std::optional<int> Loads::arrive(Ticket ticket) {
    const ReadResult result = reader_.wait(ticket);
    Read read = forget(find(ticket));
    // A read that was cancelled, as by closing the reader, has no error and no bytes either.
    if (result.error == 0 && !result.is_cancelled && (result.is_checked || is_sound(read.expert))) {
        bytes_read_ += cache_.record_num_bytes(read.expert);
        cache_.admit(read.expert);
        return read.expert;
    }
    if (read.priority == kDemand && read.num_tries++ < kDemandTries) {
        submit(read);
        return std::nullopt;
    }
    cache_.release(read.expert);
    if (read.priority == kDemand) throw LoadFailed(read.expert, result);
    return std::nullopt;
}

bool Loads::is_sound(int expert) {
    auto& is_verified = is_verified_[static_cast<std::size_t>(expert)];
    if (verify_ == Verify::kNever || (verify_ == Verify::kFirst && is_verified)) return true;
    try {
        is_verified = check_(expert, cache_.record(expert), cache_.record_num_bytes(expert));
    } catch (...) {  // the check itself was interrupted
        cache_.release(expert);
        throw;
    }
    return is_verified;
}

std::vector<Reader::Ticket> Loads::all_tickets() const {
    std::vector<Ticket> tickets;
    for (const Read& read : reads_) tickets.push_back(read.ticket);
    return tickets;
}

}  // namespace edgemoe
