// Experts read from files of another engine: the slices of an expert's matrices are packed as a store holds
// them while they arrive, so that a slot gets the very bytes of a store's record.
#pragma once

#include <optional>
#include <vector>

#include "io/thread_reader.h"
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

class PackingReader final : public ThreadReader {
  public:
    // A request is for a whole record, its file 0; bytes beyond the packed matrices become zeros.
    PackingReader(std::vector<std::string> paths, BlockRecords records, int num_threads, bool direct,
                  Pace pace);
    ~PackingReader() override;

  private:
    // Rows of a slice, and where they go.
    struct Piece {
        const BlockSlice* slice;
        std::int64_t first_row, num_rows;
        std::uint8_t* to;
        int error = 0;
        bool is_short = false;  // the file ended
    };

    void read_all(Read& read) override;
    // What a record is read in, to `to`.
    static std::vector<Piece> pieces_of(const BlockRecord& record, std::uint8_t* to);
    // Reads a piece and packs it; its error is EBADMSG where a weight is not finite.
    void read_piece(Piece& piece) const;

    // Whether a file is no longer what it was when it was opened. The first read of a record has nothing else
    // to be held against.
    bool has_changed(int file) const;

    // What tells two states of a file apart.
    struct Stamp {
        std::int64_t num_bytes, seconds, nanoseconds;
        bool operator==(const Stamp&) const = default;
    };
    static std::optional<Stamp> stamp_of(int descriptor);

    BlockRecords records_;
    std::int64_t scratch_bytes_;                // that one thread reads into
    std::vector<std::optional<Stamp>> stamps_;  // by file, as they were opened
};

}  // namespace edgemoe
