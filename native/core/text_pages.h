// Memory of texts in pages; texts that begin alike share those of their beginning.
//
// The texts of a model lie in one sparse file in memory. A text has a run of the file's offsets, mapped as
// one piece for each array that kernels ask for; a strip is the part of an array that one head's tokens fill,
// slot by slot. A text that begins as another maps the other's whole pages at the start of each strip, to be
// read only, and gets a copy of what the beginning has in the page after them. A text that is taken back into
// pages that others have gets pages of its own from there on. So nobody writes to what another reads, nothing
// is copied unasked, and what a text takes is known before it does.
//
// A page lives as long as a text that has it. Where the system has no such file, and where it would not pay,
// beginnings are copied. In a forked child nothing here touches the memory, which is its parent's.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/page_file.h"

namespace edgemoe {

// Pages that a text has of another's run, by bytes of whole pages in the text.
struct PageShare {
    std::int64_t run;
    std::int64_t start_bytes;
    std::int64_t end_bytes;
};

// Whose pages a text has: its own run, other runs, and what the system keeps of mapping those.
struct PageUse {
    std::int64_t run;  // kNewRun: one that does not exist yet
    std::vector<PageShare> shares;
    std::int64_t kept_bytes;

    static constexpr std::int64_t kNewRun = -1;
};

// The memory of one text. Used by one thread at a time; what it shares is guarded by the file.
class TextPages {
  public:
    explicit TextPages(std::shared_ptr<PageFile> file);
    ~TextPages();
    TextPages(const TextPages&) = delete;
    TextPages& operator=(const TextPages&) = delete;

    // The fewest slots of so many bytes that fill whole pages.
    static std::int64_t slots_of_pages(std::int64_t slot_bytes);
    // A further array (heads, slots, slot_bytes), zeros; the slots fill whole pages. It lives as long as
    // this.
    std::uint8_t* add(std::int64_t num_heads, std::int64_t num_slots, std::int64_t slot_bytes);

    // Be what another text with the same arrays is in its first tokens.
    void begin_as(const TextPages& other, std::int64_t num_tokens);
    // All tokens from `num_tokens` on may be written again.
    void take_back(std::int64_t num_tokens);
    // Give the memory of all tokens from `num_tokens` on, none of which it has, back to the system.
    void trim(std::int64_t num_tokens);

    // Whose pages it has, what a text would have that begins as it, and what it would have if taken back.
    PageUse use() const;
    PageUse use_if_begun(std::int64_t num_tokens) const;
    PageUse use_if_taken_back(std::int64_t num_tokens) const;

    // Bytes that all texts of this process have mapped of others' runs: they are in memory once, and the
    // system counts them for each.
    static std::int64_t mapped_again_bytes();

  private:
    struct Strip {
        std::uint8_t* data;
        std::int64_t offset;  // in a run
        std::int64_t num_bytes;
        std::int64_t slot_bytes;
    };
    struct Array {
        std::uint8_t* data;
        std::int64_t num_bytes;
    };
    struct Beginning {
        std::shared_ptr<PageRun> run;
        std::int64_t end;  // token up to which it has the run, from where the one before ends
    };
    using Beginnings = std::vector<Beginning>;

    static std::int64_t end_of(const Beginnings& beginnings);
    // Bytes that the first tokens take of a strip, and in whole pages that they fill of it, or of all.
    static std::int64_t used_bytes(const Strip& strip, std::int64_t num_tokens);
    static std::int64_t whole_pages(const Strip& strip, std::int64_t num_tokens);
    std::int64_t whole_pages(std::int64_t num_tokens) const;

    std::int64_t num_mappings(const Beginnings& beginnings) const;
    bool is_shared_from(std::int64_t num_tokens) const;
    Beginnings cut(std::int64_t num_tokens) const;
    Beginnings begun(std::int64_t num_tokens) const;
    PageUse use_of(const Beginnings& beginnings, std::int64_t run) const;

    void become(Beginnings beginnings, std::shared_ptr<PageRun> run, const TextPages& source,
                std::int64_t num_tokens);
    void map_strip(const Strip& strip, const Beginnings& beginnings, const PageRun& run,
                   std::int64_t own_end) const;
    void have(Beginnings beginnings);
    void leave_run();
    void free_unshared(const PageRun& run, std::int64_t to_token) const;

    std::shared_ptr<PageFile> file_;
    std::shared_ptr<PageRun> run_;
    std::vector<Array> arrays_;
    std::vector<Strip> strips_;
    std::int64_t num_bytes_ = 0;
    Beginnings beginnings_;
};

}  // namespace edgemoe
