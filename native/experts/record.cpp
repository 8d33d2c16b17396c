#include "experts/record.h"

namespace edgemoe {

std::array<RecordPart, 3> RecordLayout::parts() const {
    std::int64_t offset = 0;
    const auto next = [&](Format format, std::int64_t rows, std::int64_t cols) {
        const RecordPart part = {format, rows, cols, offset, packed_bytes(format, rows, cols)};
        offset += part.num_bytes;
        return part;
    };
    const RecordPart gate = next(formats[0], has_gate ? expert_width : 0, width);
    const RecordPart up = next(formats[1], expert_width, width);
    return {gate, up, next(formats[2], width, expert_width)};
}

std::int64_t RecordLayout::num_bytes() const {
    const RecordPart last = parts().back();
    return last.offset + last.num_bytes;
}

ExpertMatrices RecordLayout::matrices(const std::uint8_t* record) const {
    const auto matrix = [&](const RecordPart& part) {
        return Matrix{record + part.offset, part.format, part.rows, part.cols};
    };
    const auto [gate, up, down] = parts();
    ExpertMatrices expert{};
    if (has_gate) expert.gate = matrix(gate);
    expert.up = matrix(up);
    expert.down = matrix(down);
    return expert;
}

}  // namespace edgemoe
