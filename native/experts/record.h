// How the matrices of an expert lie in its record, one behind the other: gate (or none) and up [F][D], down
// [D][F]. The only place that knows; Python asks it too.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/expert_ffn.h"

namespace edgemoe {

// One matrix of a record.
struct RecordPart {
    Format format;
    std::int64_t rows, cols;
    std::int64_t offset, num_bytes;
};

struct RecordLayout {
    bool has_gate;
    std::array<Format, 3> formats;  // of gate, up, down
    std::int64_t width;
    std::int64_t expert_width;

    // Gate, up, down; a gate that is not there takes no bytes.
    std::array<RecordPart, 3> parts() const;
    // Without the padding that a store adds.
    std::int64_t num_bytes() const;
    ExpertMatrices matrices(const std::uint8_t* record) const;
    // Of an expert that has any, see expert_ffn.
    std::int64_t num_biases() const { return (has_gate ? 2 : 1) * expert_width + width; }
};

}  // namespace edgemoe
