#include "io/packing_reader.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

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

// What a piece is read into: a huge page, or what a group of rows takes where that is more.
std::size_t buffer_bytes_of(const BlockRecords& records) {
    std::int64_t most = kPieceBytes;
    for (const BlockRecord& record : records) {
        for (const BlockSlice& slice : record.slices) {
            const std::int64_t rows = std::min(slice.rows, piece_rows(slice));
            most = std::max(most, rows * block_row_bytes(slice.format, slice.cols));
        }
    }
    return static_cast<std::size_t>(most + 2 * kDirectAlignment);
}

std::int64_t packed_bytes_of(const BlockRecord& record) {
    std::int64_t num_bytes = 0;
    for (const BlockSlice& slice : record.slices) {
        num_bytes += packed_bytes(slice.format, slice.rows, slice.cols);
    }
    return num_bytes;
}

// As many pieces as this are read at a time for each read that storage wants at a time: a piece is less than
// a record, and it takes a while until another follows one that has ended while all processors compute.
constexpr int kPiecesPerRead = 2;

// Half as many again hold what has been read and waits to be packed: so reading goes on meanwhile.
int num_buffers(int max_depth) { return max_depth + max_depth / 2; }

std::int64_t sector_begin(std::int64_t offset) { return offset / kDirectAlignment * kDirectAlignment; }

}  // namespace

PackingReader::PackingReader(ReadMethod method, std::vector<std::string> paths, BlockRecords records,
                             int max_depth, Pace pace)
    : FileReader(paths, max_depth, method != ReadMethod::kBuffered, Pace{}), records_(std::move(records)) {
    for (int file = 0; file < num_files(); ++file) stamps_.push_back(stamp_of(descriptor_of(file)));
    const std::size_t num_bytes = buffer_bytes_of(records_);
    for (int i = 0; i < num_buffers(this->max_depth()); ++i) {
        buffers_.push_back(std::make_unique<AlignedBuffer>(num_bytes));
        // Else the system would clear its pages while the speed of storage is measured.
        std::memset(buffers_.back()->data(), 0, num_bytes);
        free_.push_back(buffers_.back()->data());
    }
    slices_ = open_files(method, std::move(paths), max_depth, pace);
}

PackingReader::~PackingReader() { close(); }

std::optional<PackingReader::Stamp> PackingReader::stamp_of(int descriptor) {
    struct stat found {};
    if (::fstat(descriptor, &found) != 0) return std::nullopt;
    const timespec written = platform::time_written(found);
    return Stamp{found.st_size, written.tv_sec, written.tv_nsec};
}

bool PackingReader::has_changed(const BlockRecord& record) const {
    return std::any_of(record.slices.begin(), record.slices.end(), [this](const BlockSlice& slice) {
        return stamp_of(descriptor_of(slice.file)) != stamps_[static_cast<std::size_t>(slice.file)];
    });
}

void PackingReader::set_depth(int depth) { slices_->set_depth(kPiecesPerRead * depth); }

void PackingReader::start_queued() {
    bool is_any = read_waiting();
    // A record begins when there is a buffer for it: until then it may be cancelled.
    while (waiting_.empty() && !free_.empty()) {
        const auto ticket = take_next();
        if (!ticket) break;
        open(*ticket);
        is_any |= read_waiting();
    }
    if (is_any) slices_->begin();
}

bool PackingReader::read_waiting() {
    bool is_any = false;
    while (!waiting_.empty()) {
        // Speculation leaves one buffer, so that a demand never waits for all that has been read ahead.
        const std::size_t left = waiting_.front().priority > 0 && max_depth() > 1 ? 1 : 0;
        if (free_.size() <= left) break;
        read(waiting_.front());
        waiting_.pop_front();
        is_any = true;
    }
    return is_any;
}

const BlockRecord* PackingReader::find_record(const ReadRequest& request) const {
    const auto found = std::lower_bound(
        records_.begin(), records_.end(), request.offset,
        [](const BlockRecord& record, std::int64_t offset) { return record.offset < offset; });
    if (found == records_.end() || found->offset != request.offset) return nullptr;
    return packed_bytes_of(*found) <= request.num_bytes ? &*found : nullptr;
}

void PackingReader::open(Ticket ticket) {
    Read& read = read_of(ticket);
    const BlockRecord* const record = find_record(read.result.request);
    if (record == nullptr) {
        read.result.error = EINVAL;
        finish(read);
        return;
    }
    std::vector<Piece> pieces;
    std::uint8_t* to = read.result.request.destination;
    for (const BlockSlice& slice : record->slices) {
        const std::int64_t step = piece_rows(slice);
        for (std::int64_t row = 0; row < slice.rows; row += step) {
            const std::int64_t rows = std::min(step, slice.rows - row);
            pieces.push_back({ticket, read.priority, &slice, row, rows, to});
            to += packed_bytes(slice.format, rows, slice.cols);
        }
    }
    open_[ticket] = {record, static_cast<int>(pieces.size())};
    const auto behind = std::find_if(waiting_.begin(), waiting_.end(),
                                     [&](const Piece& piece) { return piece.priority > read.priority; });
    waiting_.insert(behind, pieces.begin(), pieces.end());
}

void PackingReader::read(Piece piece) {
    piece.buffer = free_.back();
    free_.pop_back();
    const std::int64_t begin = sector_begin(piece.begin());
    const std::int64_t end = sector_begin(piece.begin() + piece.num_bytes() + kDirectAlignment - 1);
    const ReadRequest request = {piece.slice->file, begin, end - begin, piece.buffer};
    under_way_.emplace(slices_->submit(request, piece.priority), piece);
}

std::vector<FileReader::Ticket> PackingReader::by_urgency() const {
    std::vector<Ticket> tickets;
    for (const auto& [ticket, piece] : under_way_) tickets.push_back(ticket);
    std::sort(tickets.begin(), tickets.end(), [this](Ticket a, Ticket b) {
        return std::pair{under_way_.at(a).priority, a} < std::pair{under_way_.at(b).priority, b};
    });
    return tickets;
}

void PackingReader::wait_until(Lock& lock, const std::function<bool()>& is_over) {
    for (start_queued(); !is_over(); start_queued()) {
        if (is_served_ || under_way_.empty()) {
            has_result_.wait(lock);
            continue;
        }
        is_served_ = true;
        const std::vector<Ticket> tickets = by_urgency();
        lock.unlock();
        const Ticket first = slices_->wait_some(tickets, /*block=*/true).front();
        lock.lock();
        const Piece piece = under_way_.at(first);
        lock.unlock();
        const ReadResult result = take_in(first, piece);
        lock.lock();
        is_served_ = false;
        end(first, result);
        // Whoever waits for something else must serve now.
        has_result_.notify_all();
    }
}

void PackingReader::poll() {
    if (is_served_ || under_way_.empty()) return;
    for (const Ticket ticket : slices_->wait_some(by_urgency(), /*block=*/false)) {
        end(ticket, take_in(ticket, under_way_.at(ticket)));
        // The others are left to the next wait, whose time costs nothing, while there are buffers to read
        // into.
        if (waiting_.empty()) break;
    }
    start_queued();
}

ReadResult PackingReader::take_in(Ticket ticket, const Piece& piece) {
    ReadResult result = slices_->wait(ticket);
    const std::int64_t before = piece.begin() - result.request.offset;
    // The end of a file cuts its last sector short.
    if (result.is_short && result.num_bytes >= before + piece.num_bytes()) {
        result.is_short = false;
        result.error = 0;
    }
    const BlockSlice& slice = *piece.slice;
    if (result.error == 0 &&
        pack_blocks(piece.buffer + before, piece.num_rows, slice.cols, slice.format, piece.to) >= 0) {
        result.error = EBADMSG;
    }
    return result;
}

void PackingReader::end(Ticket ticket, const ReadResult& result) {
    const Piece piece = under_way_.at(ticket);
    under_way_.erase(ticket);
    free_.push_back(piece.buffer);
    Read& read = read_of(piece.record);
    if (result.error != 0 && read.result.error == 0) {
        read.result.error = result.error;
        read.result.is_short = result.is_short;
    }
    const auto open = open_.find(piece.record);
    if (--open->second.num_pieces > 0) return;
    const BlockRecord& record = *open->second.record;
    open_.erase(open);
    // Afterwards: what changes while it is read is noticed too.
    if (read.result.error == 0 && has_changed(record)) read.result.error = ESTALE;
    const ReadRequest& request = read.result.request;
    const std::int64_t num_packed = packed_bytes_of(record);
    std::memset(request.destination + num_packed, 0,
                static_cast<std::size_t>(request.num_bytes - num_packed));
    finish(read);
}

void PackingReader::stop() { slices_->close(); }

}  // namespace edgemoe
