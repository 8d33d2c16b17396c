#include "core/text_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <utility>

#include "platform/memory.h"

namespace edgemoe {
namespace {

// Mapping a strip's pages takes as long as copying this many, and mappings are limited.
constexpr std::int64_t kFewestPages = 4;
// What the system keeps of a mapping, and of a page's place in a table of such.
constexpr std::int64_t kMappingBytes = 256, kPlaceBytes = 8;

std::atomic<std::int64_t> mapped_again{0};

}  // namespace

TextPages::TextPages(std::shared_ptr<PageFile> file) : file_(std::move(file)) {
    const auto lock = file_->lock();
    run_ = std::make_shared<PageRun>(*file_);
}

TextPages::~TextPages() {
    if (!file_->is_of_this_process()) return;
    const auto lock = file_->lock();
    for (const Array& array : arrays_) ::munmap(array.data, static_cast<std::size_t>(array.num_bytes));
    have({});
    leave_run();
}

std::int64_t TextPages::mapped_again_bytes() { return mapped_again; }

std::int64_t TextPages::slots_of_pages(std::int64_t slot_bytes) {
    const std::int64_t lowest_bit = slot_bytes & -slot_bytes;
    return std::max(page_bytes() / lowest_bit, std::int64_t{1});
}

std::uint8_t* TextPages::add(std::int64_t num_heads, std::int64_t num_slots, std::int64_t slot_bytes) {
    const std::int64_t strip_bytes = num_slots * slot_bytes, num_bytes = num_heads * strip_bytes;
    if (num_bytes <= 0 || strip_bytes % page_bytes() != 0)
        throw std::invalid_argument("a text's slots must fill whole pages");
    if (num_bytes > kRunBytes - num_bytes_) throw std::bad_alloc();
    std::uint8_t* data = file_->map_new(num_bytes, run_->offset() + num_bytes_);
    arrays_.push_back({data, num_bytes});
    for (std::int64_t head = 0; head < num_heads; ++head) {
        const std::int64_t start = head * strip_bytes;
        strips_.push_back({data + start, num_bytes_ + start, strip_bytes, slot_bytes});
    }
    num_bytes_ += num_bytes;
    return data;
}

void TextPages::begin_as(const TextPages& other, std::int64_t num_tokens) {
    const auto is_alike = [](const Strip& a, const Strip& b) {
        return a.num_bytes == b.num_bytes && a.slot_bytes == b.slot_bytes;
    };
    if (file_ != other.file_ ||
        !std::equal(strips_.begin(), strips_.end(), other.strips_.begin(), other.strips_.end(), is_alike))
        throw std::invalid_argument("texts with other arrays have no common beginning");
    take_back(0);
    const auto lock = file_->lock();
    file_->punch(run_->offset(), num_bytes_);
    become(other.begun(num_tokens), run_, other, num_tokens);
}

void TextPages::take_back(std::int64_t num_tokens) {
    if (!file_->is_of_this_process()) return;
    const auto lock = file_->lock();
    if (is_shared_from(num_tokens))
        become(begun(num_tokens), std::make_shared<PageRun>(*file_), *this, num_tokens);
    else if (whole_pages(end_of(beginnings_)) > whole_pages(num_tokens))
        become(cut(num_tokens), run_, *this, num_tokens);
}

void TextPages::trim(std::int64_t num_tokens) {
    const auto lock = file_->lock();
    const std::int64_t page = page_bytes();
    for (const Strip& strip : strips_) {
        const std::int64_t from = (used_bytes(strip, num_tokens) + page - 1) / page * page;
        if (file_->is_there())
            file_->punch(run_->offset() + strip.offset + from, strip.num_bytes - from);
        else if (from < strip.num_bytes)
            platform::give_back(strip.data + from, static_cast<std::size_t>(strip.num_bytes - from));
    }
}

PageUse TextPages::use() const { return use_of(beginnings_, run_->number()); }

PageUse TextPages::use_if_begun(std::int64_t num_tokens) const {
    const auto lock = file_->lock();
    return use_of(begun(num_tokens), PageUse::kNewRun);
}

PageUse TextPages::use_if_taken_back(std::int64_t num_tokens) const {
    const auto lock = file_->lock();
    if (is_shared_from(num_tokens)) return use_of(begun(num_tokens), PageUse::kNewRun);
    return use_of(cut(num_tokens), run_->number());
}

// ---- what it has of others ----

std::int64_t TextPages::end_of(const Beginnings& beginnings) {
    return beginnings.empty() ? 0 : beginnings.back().end;
}

std::int64_t TextPages::used_bytes(const Strip& strip, std::int64_t num_tokens) {
    return std::min(num_tokens, strip.num_bytes / strip.slot_bytes) * strip.slot_bytes;
}

std::int64_t TextPages::whole_pages(const Strip& strip, std::int64_t num_tokens) {
    return used_bytes(strip, num_tokens) / page_bytes() * page_bytes();
}

std::int64_t TextPages::whole_pages(std::int64_t num_tokens) const {
    std::int64_t sum = 0;
    for (const Strip& strip : strips_) sum += whole_pages(strip, num_tokens);
    return sum;
}

std::int64_t TextPages::num_mappings(const Beginnings& beginnings) const {
    const auto parts = static_cast<std::int64_t>(beginnings.size());
    return parts == 0 ? 0 : static_cast<std::int64_t>(strips_.size()) * (parts + 1);
}

// Whether others have a page that the next tokens would be written to.
bool TextPages::is_shared_from(std::int64_t num_tokens) const {
    return whole_pages(run_->num_shared()) > whole_pages(num_tokens);
}

// The beginnings as far as so many tokens.
TextPages::Beginnings TextPages::cut(std::int64_t num_tokens) const {
    Beginnings found;
    for (const Beginning& beginning : beginnings_) {
        const std::int64_t end = std::min(beginning.end, num_tokens);
        if (whole_pages(end) > whole_pages(end_of(found))) found.push_back({beginning.run, end});
    }
    return found;
}

// The beginnings of a text that begins as this one; none where all of it is better copied.
TextPages::Beginnings TextPages::begun(std::int64_t num_tokens) const {
    Beginnings found = cut(num_tokens);
    const std::int64_t shared_bytes = whole_pages(num_tokens);
    if (shared_bytes > whole_pages(end_of(found))) found.push_back({run_, num_tokens});
    const auto fewest = kFewestPages * page_bytes() * static_cast<std::int64_t>(strips_.size());
    const bool has_room = file_->num_mappings_ + num_mappings(found) <= file_->most_mappings_;
    return file_->is_there() && has_room && shared_bytes >= fewest ? found : Beginnings{};
}

PageUse TextPages::use_of(const Beginnings& beginnings, std::int64_t run) const {
    const std::int64_t places = whole_pages(end_of(beginnings)) / page_bytes();
    PageUse use{run, {}, num_mappings(beginnings) * kMappingBytes + places * kPlaceBytes};
    std::int64_t start = 0;
    for (const Beginning& beginning : beginnings) {
        const std::int64_t end = whole_pages(beginning.end);
        use.shares.push_back({beginning.run->number(), start, end});
        start = end;
    }
    return use;
}

// Have these beginnings, and in pages of `run` what else `source` has of so many tokens.
void TextPages::become(Beginnings beginnings, std::shared_ptr<PageRun> run, const TextPages& source,
                       std::int64_t num_tokens) {
    const bool is_new_run = run != run_;
    std::vector<std::uint8_t> rest;
    for (std::size_t i = 0; i < strips_.size(); ++i) {
        const Strip& strip = strips_[i];
        const std::int64_t own_from = whole_pages(strip, end_of(beginnings));
        const std::uint8_t* from = source.strips_[i].data;
        rest.assign(from + own_from, from + used_bytes(strip, num_tokens));
        // Where its own pages are mapped already.
        const std::int64_t mapped = is_new_run ? strip.num_bytes : whole_pages(strip, end_of(beginnings_));
        map_strip(strip, beginnings, *run, mapped);
        if (!rest.empty()) std::memcpy(strip.data + own_from, rest.data(), rest.size());
    }
    have(std::move(beginnings));
    if (!is_new_run) return;
    leave_run();
    run_ = std::move(run);
}

// The strip's first pages are those of beginnings, those after them up to `own_end` of `run`.
void TextPages::map_strip(const Strip& strip, const Beginnings& beginnings, const PageRun& run,
                          std::int64_t own_end) const {
    std::int64_t at = 0;
    const auto map_up_to = [&](std::int64_t end, const PageRun& from, bool is_written) {
        if (end <= at) return;
        file_->map(strip.data + at, end - at, is_written, from.offset() + strip.offset + at);
        at = end;
    };
    for (const Beginning& beginning : beginnings)
        map_up_to(whole_pages(strip, beginning.end), *beginning.run, false);
    map_up_to(own_end, run, true);
}

// Count as one that has these beginnings, and no others.
void TextPages::have(Beginnings beginnings) {
    for (const Beginning& beginning : beginnings) beginning.run->ends_.insert(beginning.end);
    mapped_again += whole_pages(end_of(beginnings)) - whole_pages(end_of(beginnings_));
    file_->num_mappings_ += num_mappings(beginnings) - num_mappings(beginnings_);
    std::swap(beginnings, beginnings_);
    for (const Beginning& beginning : beginnings) {
        PageRun& run = *beginning.run;
        run.ends_.erase(run.ends_.find(beginning.end));
        if (!run.has_owner_) free_unshared(run, beginning.end);
    }
}

// The text has no more to do with its run; others may.
void TextPages::leave_run() {
    run_->has_owner_ = false;
    free_unshared(*run_, std::numeric_limits<std::int64_t>::max());
    run_.reset();
}

// Give back what nobody has of a run up to a token; one that nobody has goes as a whole.
void TextPages::free_unshared(const PageRun& run, std::int64_t to_token) const {
    if (run.num_shared() == 0) return;
    for (const Strip& strip : strips_) {
        const std::int64_t from = whole_pages(strip, run.num_shared());
        file_->punch(run.offset() + strip.offset + from, whole_pages(strip, to_token) - from);
    }
}

}  // namespace edgemoe
