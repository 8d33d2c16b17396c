// One sparse file in memory for the texts of a model, and the runs of its offsets that they fill.
//
// The file has no name and disappears with the model. Where the system has no such file, texts get memory of
// their own. In a forked child nothing here touches the file, which is its parent's.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <mutex>
#include <set>
#include <vector>

namespace edgemoe {

// Offsets of one text: more than any takes, and few enough for a quarter of a million texts.
inline constexpr std::int64_t kRunBytes = std::int64_t{1} << 42;

// Bytes of the system's pages.
std::int64_t page_bytes();

// The file. Thread-safe.
class PageFile {
  public:
    PageFile();
    ~PageFile();
    PageFile(const PageFile&) = delete;
    PageFile& operator=(const PageFile&) = delete;

    // Whether the system has such files, so that pages can be shared.
    bool is_there() const { return descriptor_ >= 0; }
    // Bytes of its pages that are in memory.
    std::int64_t resident_bytes() const;

  private:
    friend class PageRun;
    friend class TextPages;

    bool is_of_this_process() const;
    std::unique_lock<std::mutex> lock();
    std::int64_t take_run();
    void give_run(std::int64_t offset);
    void punch(std::int64_t offset, std::int64_t num_bytes) const;
    // Maps pages at an address, in place of what is there.
    std::uint8_t* map(void* address, std::int64_t num_bytes, bool is_written, std::int64_t offset) const;
    // Maps pages to be written where addresses are free; without a file, memory that no other text can have.
    std::uint8_t* map_new(std::int64_t num_bytes, std::int64_t offset) const;

    int descriptor_ = -1;
    pid_t process_;
    std::mutex mutex_;  // of all that follows, and of the runs
    std::int64_t num_runs_ = 0;
    std::vector<std::int64_t> free_runs_;
    std::int64_t num_mappings_ = 0;  // beside one for each array
    std::int64_t most_mappings_;
};

// A run of the file's offsets: the pages that one text fills. Others may have its beginning.
class PageRun {
  public:
    explicit PageRun(PageFile& file) : file_(file), offset_(file.take_run()) {}
    ~PageRun() { file_.give_run(offset_); }
    PageRun(const PageRun&) = delete;
    PageRun& operator=(const PageRun&) = delete;

    std::int64_t offset() const { return offset_; }
    std::int64_t number() const { return offset_ / kRunBytes; }
    // Tokens of the text that others have from here; 0: none do.
    std::int64_t num_shared() const { return ends_.empty() ? 0 : *ends_.rbegin(); }

  private:
    friend class TextPages;

    PageFile& file_;
    std::int64_t offset_;
    bool has_owner_ = true;
    std::multiset<std::int64_t> ends_;  // up to which token each of the others has it
};

}  // namespace edgemoe
