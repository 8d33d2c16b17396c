// Experts read from files of another engine: the slices of an expert's matrices are packed as a store holds
// them, so that a slot gets the very bytes of a store's record.
//
// Another reader brings the slices into buffers of its own, in pieces. The thread that waits for a record
// packs what has come, on all threads: while it waits it has nothing else to do, and no thread that packs
// takes the processor from those that compute.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/aligned_buffer.h"
#include "io/file_reader.h"
#include "kernels/layout.h"

namespace edgemoe {

// Rows of GGUF blocks that lie one behind the other, [N][M] of a format's block type.
struct BlockSlice {
    int file;
    std::int64_t offset;
    Format format;
    std::int64_t rows, cols;
};

// A record of a file that is nowhere: its offset there, and the matrices that lie one behind the other in it,
// packed.
struct BlockRecord {
    std::int64_t offset;
    std::vector<BlockSlice> slices;
};
// In the order of their offsets.
using BlockRecords = std::vector<BlockRecord>;

class PackingReader final : public FileReader {
  public:
    // A request is for a whole record, its file 0; bytes beyond the packed matrices become zeros. As many
    // pieces as `max_depth` are read at a time, into one and a half times as many buffers of a huge page, or
    // of 16 rows where these take more. Throws as open_files().
    PackingReader(ReadMethod method, std::vector<std::string> paths, BlockRecords records, int max_depth,
                  Pace pace);
    ~PackingReader() override;

    // Twice as many pieces, up to the most there may be.
    void set_depth(int depth) override;

  private:
    // Rows of a slice, and where they go.
    struct Piece {
        Ticket record;
        int priority;
        const BlockSlice* slice;
        std::int64_t first_row, num_rows;
        std::uint8_t* to;
        std::uint8_t* buffer = nullptr;  // that it is read into

        std::int64_t row_bytes() const { return block_row_bytes(slice->format, slice->cols); }
        // Where its blocks lie in their file.
        std::int64_t begin() const { return slice->offset + first_row * row_bytes(); }
        std::int64_t num_bytes() const { return num_rows * row_bytes(); }
    };
    // A record under way.
    struct Open {
        const BlockRecord* record;
        int num_pieces;  // that have not ended
    };

    void start_queued() override;
    void wait_until(Lock& lock, const std::function<bool()>& is_over) override;
    void poll() override;
    void stop() override;

    // What a request asks for; nullptr where there is no such record.
    const BlockRecord* find_record(const ReadRequest& request) const;
    // Cuts a record into pieces, which wait for buffers behind those that are as urgent.
    void open(Ticket ticket);
    // Has pieces read that wait, as far as there are buffers; says whether there were any.
    bool read_waiting();
    void read(Piece piece);
    // Pieces under way, those of the lowest priority number first, then in the order of their start.
    std::vector<Ticket> by_urgency() const;
    // Packs a piece that has been read. Its error is EBADMSG where a weight is not finite. The mutex need not
    // be held.
    ReadResult take_in(Ticket ticket, const Piece& piece);
    // A piece was taken in: its buffer is free, and a record whose last it was has ended.
    void end(Ticket ticket, const ReadResult& result);

    // Whether a file of a record is no longer what it was when it was opened. The first read of a record has
    // nothing else to be held against.
    bool has_changed(const BlockRecord& record) const;

    // What tells two states of a file apart.
    struct Stamp {
        std::int64_t num_bytes, seconds, nanoseconds;
        bool operator==(const Stamp&) const = default;
    };
    static std::optional<Stamp> stamp_of(int descriptor);

    BlockRecords records_;
    std::vector<std::optional<Stamp>> stamps_;  // by file, as they were opened
    std::vector<std::unique_ptr<AlignedBuffer>> buffers_;
    // Opens the files for itself: ours only tell whether they have changed. Gone before the buffers that it
    // reads into.
    std::unique_ptr<FileReader> slices_;
    std::unordered_map<Ticket, Open> open_;
    std::deque<Piece> waiting_;                    // for buffers, in the order of their priorities
    std::unordered_map<Ticket, Piece> under_way_;  // by their tickets of slices_
    std::vector<std::uint8_t*> free_;              // buffers
    bool is_served_ = false;                       // a thread takes in pieces; the others wait for it
};

}  // namespace edgemoe
