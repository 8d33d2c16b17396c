#include "io/packing_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/aligned_buffer.h"
#include "kernels/exact_blocks.h"
#include "platform/files.h"
#include "platform/memory.h"

namespace edgemoe {
namespace {

// Read at a time, with the sectors around it: a huge page, to which storage writes faster than to many small
// ones.
constexpr std::int64_t kPieceBytes = static_cast<std::int64_t>(platform::kHugePage) - 2 * kDirectAlignment;

std::int64_t piece_rows(const BlockSlice& slice) {
    const std::int64_t groups = kPieceBytes / (kRowGroup * block_row_bytes(slice.format, slice.cols));
    return std::max<std::int64_t>(1, groups) * kRowGroup;
}

// What a thread reads into: a huge page, or what a group of rows takes where that is more.
std::int64_t scratch_bytes_of(const BlockRecords& records) {
    std::int64_t most = kPieceBytes;
    for (const BlockRecord& record : records) {
        for (const BlockSlice& slice : record.slices) {
            const std::int64_t rows = std::min(slice.rows, piece_rows(slice));
            most = std::max(most, rows * block_row_bytes(slice.format, slice.cols));
        }
    }
    return most + 2 * kDirectAlignment;
}

std::int64_t packed_bytes_of(const BlockRecord& record) {
    std::int64_t num_bytes = 0;
    for (const BlockSlice& slice : record.slices) {
        num_bytes += packed_bytes(slice.format, slice.rows, slice.cols);
    }
    return num_bytes;
}

std::int64_t sector_begin(std::int64_t offset) { return offset / kDirectAlignment * kDirectAlignment; }

// Reads `num_bytes` at `offset`, and what lies around them in their sectors, to `to`; returns an errno, or 0.
int read_sectors(int descriptor, std::int64_t offset, std::int64_t num_bytes, std::uint8_t* to,
                 bool& is_short) {
    const std::int64_t begin = sector_begin(offset), needed = offset + num_bytes;
    const std::int64_t end = sector_begin(needed + kDirectAlignment - 1);
    for (std::int64_t at = begin; at < needed;) {
        const ssize_t got =
            platform::read_at(descriptor, to + (at - begin), static_cast<std::size_t>(end - at), at);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got < 0) return errno;
        if (at + got >= needed) return 0;
        // Direct reads go on at a whole sector; less than one is the end of the file.
        const std::int64_t next = sector_begin(at + got);
        if (next == at) {
            is_short = true;
            return EIO;
        }
        at = next;
    }
    return 0;
}

}  // namespace

PackingReader::PackingReader(std::vector<std::string> paths, BlockRecords records, int num_threads,
                             bool direct, Pace pace)
    : ThreadReader(std::move(paths), num_threads, direct, pace),
      records_(std::move(records)),
      scratch_bytes_(scratch_bytes_of(records_)) {
    for (int file = 0; file < num_files(); ++file) stamps_.push_back(stamp_of(descriptor_of(file)));
}

PackingReader::~PackingReader() { close(); }

std::optional<PackingReader::Stamp> PackingReader::stamp_of(int descriptor) {
    struct stat found {};
    if (::fstat(descriptor, &found) != 0) return std::nullopt;
    const timespec written = platform::time_written(found);
    return Stamp{found.st_size, written.tv_sec, written.tv_nsec};
}

bool PackingReader::has_changed(int file) const {
    return stamp_of(descriptor_of(file)) != stamps_[static_cast<std::size_t>(file)];
}

std::vector<PackingReader::Piece> PackingReader::pieces_of(const BlockRecord& record, std::uint8_t* to) {
    std::vector<Piece> pieces;
    for (const BlockSlice& slice : record.slices) {
        const std::int64_t step = piece_rows(slice);
        for (std::int64_t row = 0; row < slice.rows; row += step) {
            const std::int64_t rows = std::min(step, slice.rows - row);
            pieces.push_back({&slice, row, rows, to});
            to += packed_bytes(slice.format, rows, slice.cols);
        }
    }
    return pieces;
}

void PackingReader::read_piece(Piece& piece) const {
    // A thread serves one reader in its life.
    thread_local const AlignedBuffer scratch(static_cast<std::size_t>(scratch_bytes_));
    const BlockSlice& slice = *piece.slice;
    const int descriptor = descriptor_of(slice.file);
    const std::int64_t row_bytes = block_row_bytes(slice.format, slice.cols);
    const std::int64_t offset = slice.offset + piece.first_row * row_bytes;
    const std::int64_t num_bytes = piece.num_rows * row_bytes;
    piece.error = read_sectors(descriptor, offset, num_bytes, scratch.data(), piece.is_short);
    if (piece.error != 0) return;
    const std::uint8_t* blocks = scratch.data() + (offset - sector_begin(offset));
    if (!pack_blocks_alone(blocks, piece.num_rows, slice.cols, slice.format, piece.to)) {
        piece.error = EBADMSG;
    }
    // What a buffered read leaves in the page cache would count against the memory budget.
    if (!is_direct()) platform::drop_from_cache(descriptor, offset, num_bytes);
}

void PackingReader::read_all(Read& read) {
    ReadResult& result = read.result;
    const ReadRequest& request = result.request;
    const auto found = std::lower_bound(
        records_.begin(), records_.end(), request.offset,
        [](const BlockRecord& record, std::int64_t offset) { return record.offset < offset; });
    if (found == records_.end() || found->offset != request.offset ||
        packed_bytes_of(*found) > request.num_bytes) {
        result.error = EINVAL;
        return;
    }
    // They lie at several places: read at once, storage is as fast as for one of the whole size.
    std::vector<Piece> pieces = pieces_of(*found, request.destination);
    share(static_cast<int>(pieces.size()),
          [&](int number) { read_piece(pieces[static_cast<std::size_t>(number)]); });
    for (const Piece& piece : pieces) {
        // Afterwards: what changes while it is read is noticed too.
        result.error = piece.error == 0 && has_changed(piece.slice->file) ? ESTALE : piece.error;
        result.is_short = piece.is_short;
        if (result.error != 0) return;
    }
    const std::int64_t num_packed = packed_bytes_of(*found);
    std::memset(request.destination + num_packed, 0,
                static_cast<std::size_t>(request.num_bytes - num_packed));
    read.num_done = request.num_bytes;
}

}  // namespace edgemoe
