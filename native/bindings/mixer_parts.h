// What the bindings of token mixers with a state of fixed size share.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/packed_matrix.h"
#include "mixers/causal_conv.h"

namespace edgemoe::bindings {

// Keeps alive what a mixer points to, and checks its sizes.
class Parts {
  public:
    explicit Parts(const char* name) : name_(name) {}

    const float* vector(const Floats1& values, std::int64_t length, const char* what) {
        require_equal(size(values, 0), length, name_, what);
        vectors_.push_back(values);
        return values.data();
    }

    const float* vector(const std::optional<Floats1>& values, std::int64_t length, const char* what) {
        return values ? vector(*values, length, what) : nullptr;
    }

    Matrix matrix(const nb::object& object, std::int64_t rows, std::int64_t cols, const char* what) {
        const Matrix& found = *nb::cast<const PackedMatrix&>(object);
        require_equal(found.rows, rows, name_, what);
        require_equal(found.cols, cols, name_, what);
        objects_.push_back(object);
        return found;
    }

    CausalConv conv(const Floats2& taps, std::int64_t channels, const std::optional<Floats1>& bias) {
        require(size(taps, 0) > 0, name_, "a convolution without taps");
        require_equal(size(taps, 1), channels, name_, "channels of the convolution");
        arrays_.push_back(taps);
        return {channels, size(taps, 0), taps.data(), vector(bias, channels, "length of the bias")};
    }

  private:
    const char* name_;
    std::vector<Floats1> vectors_;
    std::vector<Floats2> arrays_;
    std::vector<nb::object> objects_;
};

// Segments follow each other and cover all rows of x.
template <typename Segments>
void require_cover(const Segments& segments, std::int64_t num_rows, const char* name) {
    std::int64_t row = 0;
    for (const auto& segment : segments) {
        require_equal(segment.first_row, row, name, "first row of a segment");
        require(segment.num_rows > 0, name, "a segment without rows");
        row += segment.num_rows;
    }
    require_equal(row, num_rows, name, "number of rows in segments");
}

}  // namespace edgemoe::bindings
