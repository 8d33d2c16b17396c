#include "io/packing_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/aligned_buffer.h"
#include "kernels/exact_blocks.h"
#include "platform/files.h"

namespace edgemoe {
namespace {

// Read at a time: long enough for any storage, short enough to be packed from the processor's cache.
constexpr std::int64_t kPieceBytes = 1 << 20;

std::int64_t piece_rows(const BlockSlice& slice) {
    const std::int64_t groups = kPieceBytes / (kRowGroup * block_row_bytes(slice.format, slice.cols));
    return std::max<std::int64_t>(1, groups) * kRowGroup;
}

std::int64_t scratch_bytes_of(const BlockRecords& records) {
    std::int64_t most = 0;
    for (const BlockRecord& record : records) {
        for (const BlockSlice& slice : record.slices) {
            const std::int64_t rows = std::min(slice.rows, piece_rows(slice));
            most = std::max(most, rows * block_row_bytes(slice.format, slice.cols));
        }
    }
    return most + 2 * kDirectAlignment;
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

int PackingReader::read_slice(const BlockSlice& slice, std::uint8_t* scratch, std::uint8_t* to,
                              bool& is_short) const {
    const int descriptor = descriptor_of(slice.file);
    const std::int64_t row_bytes = block_row_bytes(slice.format, slice.cols), step = piece_rows(slice);
    for (std::int64_t row = 0; row < slice.rows; row += step) {
        const std::int64_t rows = std::min(step, slice.rows - row), offset = slice.offset + row * row_bytes;
        const int error = read_sectors(descriptor, offset, rows * row_bytes, scratch, is_short);
        if (error != 0) return error;
        const std::uint8_t* blocks = scratch + (offset - sector_begin(offset));
        if (!pack_blocks_alone(blocks, rows, slice.cols, slice.format, to)) return EBADMSG;
        to += packed_bytes(slice.format, rows, slice.cols);
    }
    // What a buffered read leaves in the page cache would count against the memory budget.
    if (!is_direct()) platform::drop_from_cache(descriptor, slice.offset, slice.rows * row_bytes);
    return 0;
}

void PackingReader::read_all(Read& read) const {
    ReadResult& result = read.result;
    const ReadRequest& request = result.request;
    std::uint8_t *to = request.destination, *const end = to + request.num_bytes;
    const auto found = std::lower_bound(
        records_.begin(), records_.end(), request.offset,
        [](const BlockRecord& record, std::int64_t offset) { return record.offset < offset; });
    if (found == records_.end() || found->offset != request.offset) {
        result.error = EINVAL;
        return;
    }
    // A thread serves one reader in its life.
    thread_local const AlignedBuffer scratch(static_cast<std::size_t>(scratch_bytes_));
    for (const BlockSlice& slice : found->slices) {
        const std::int64_t num_bytes = packed_bytes(slice.format, slice.rows, slice.cols);
        result.error = num_bytes > end - to ? EINVAL : read_slice(slice, scratch.data(), to, result.is_short);
        // Afterwards: what changes while it is read is noticed too.
        if (result.error == 0 && has_changed(slice.file)) result.error = ESTALE;
        if (result.error != 0) return;
        to += num_bytes;
    }
    std::memset(to, 0, static_cast<std::size_t>(end - to));
    read.num_done = request.num_bytes;
}

}  // namespace edgemoe
