#include "experts/places.h"

#include <algorithm>
#include <numeric>

namespace edgemoe {

Places::Places(std::int64_t capacity_bytes, std::vector<std::int64_t> record_sizes)
    : num_experts_(static_cast<int>(record_sizes.size())), blocks_(2 * record_sizes.size() + 1) {
    for (std::size_t i = 0; i < record_sizes.size(); ++i) blocks_[i].num_bytes = record_sizes[i];
    if (std::reduce(record_sizes.begin(), record_sizes.end()) <= capacity_bytes) {
        homes_.resize(record_sizes.size());
        std::exclusive_scan(record_sizes.begin(), record_sizes.end(), homes_.begin(), std::int64_t{0});
        return;
    }
    for (int hole = 2 * num_experts_; hole >= num_experts_; --hole) unused_.push_back(hole);
    new_hole(0, capacity_bytes);
}

bool Places::fits(int expert) const { return !homes_.empty() || find_hole(at(expert).num_bytes) != kNone; }

bool Places::put(int expert) {
    Block& record = at(expert);
    if (!homes_.empty()) {
        record.offset = homes_[static_cast<std::size_t>(expert)];
        return true;
    }
    const int hole = find_hole(record.num_bytes);
    if (hole == kNone) return false;
    record.offset = at(hole).offset;
    link(at(hole).previous, expert);
    link(expert, hole);
    at(hole).offset += record.num_bytes;
    at(hole).num_bytes -= record.num_bytes;
    if (at(hole).num_bytes == 0) remove_hole(hole);
    return true;
}

void Places::remove(int expert) {
    Block& record = at(expert);
    const std::int64_t offset = record.offset;
    record.offset = -1;
    if (!homes_.empty()) return;
    const int previous = record.previous, next = record.next, hole = new_hole(offset, record.num_bytes);
    record.previous = record.next = kNone;
    link(previous, hole);
    link(hole, next);
    if (next != kNone && is_hole(next)) merge(hole, next);
    if (previous != kNone && is_hole(previous)) merge(previous, hole);
}

std::vector<Places::Hole> Places::holes() const {
    std::vector<Hole> all;
    for (const int hole : holes_) all.push_back({at(hole).offset, at(hole).num_bytes});
    return all;
}

Places::Run Places::cheapest_run(int within, std::int64_t num_bytes, const Cost& cost_of) const {
    const auto cost_at = [&](int block) { return is_hole(block) ? 0.0 : cost_of(block); };
    double least = Run{}.cost;
    int first_of_least = kNone, behind_least = kNone;
    // From each block before it that may be the first, to the nearest behind it that makes it enough.
    std::int64_t bytes_to = 0;
    double cost_to = 0;
    for (int first = within; first != kNone; first = at(first).previous) {
        cost_to += cost_at(first);
        bytes_to += at(first).num_bytes;
        double cost = cost_to;
        std::int64_t bytes = bytes_to;
        int behind = at(within).next;
        for (; behind != kNone && bytes < num_bytes && cost < least; behind = at(behind).next) {
            cost += cost_at(behind);
            bytes += at(behind).num_bytes;
        }
        if (bytes >= num_bytes && cost < least) {
            least = cost;
            first_of_least = first;
            behind_least = behind;
        }
        if (bytes_to >= num_bytes || cost_to >= least) break;
    }
    Run run{least, {}};
    for (int block = first_of_least; block != behind_least; block = at(block).next) {
        if (!is_hole(block)) run.experts.push_back(block);
    }
    return run;
}

int Places::find_hole(std::int64_t num_bytes) const {
    int best = kNone;
    for (const int hole : holes_) {
        const Block& found = at(hole);
        if (found.num_bytes < num_bytes) continue;
        if (best == kNone || found.num_bytes < at(best).num_bytes ||
            (found.num_bytes == at(best).num_bytes && found.offset < at(best).offset)) {
            best = hole;
        }
    }
    return best;
}

int Places::new_hole(std::int64_t offset, std::int64_t num_bytes) {
    const int hole = unused_.back();
    unused_.pop_back();
    at(hole) = {num_bytes, offset};
    holes_.push_back(hole);
    return hole;
}

void Places::link(int previous, int next) {
    if (previous != kNone) at(previous).next = next;
    if (next != kNone) at(next).previous = previous;
}

void Places::merge(int before, int hole) {
    at(before).num_bytes += at(hole).num_bytes;
    remove_hole(hole);
}

void Places::remove_hole(int hole) {
    link(at(hole).previous, at(hole).next);
    std::erase(holes_, hole);
    unused_.push_back(hole);
}

}  // namespace edgemoe
