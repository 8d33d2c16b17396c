// What the bindings of token mixers with a state of fixed size share.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <iterator>
#include <optional>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/mixer_binding.h"
#include "bindings/packed_matrix.h"
#include "mixers/causal_conv.h"
#include "mixers/recurrent.h"

namespace edgemoe::bindings {

// Keeps alive what a mixer points to, and checks its sizes.
class Parts {
  public:
    explicit Parts(const char* name) : name_(name) {}

    const char* name() const { return name_; }

    const float* vector(const Floats1& values, std::int64_t length, const char* what) {
        require_equal(size(values, 0), length, name_, what);
        vectors_.push_back(values);
        return values.data();
    }

    const float* vector(const std::optional<Floats1>& values, std::int64_t length, const char* what) {
        return values ? vector(*values, length, what) : nullptr;
    }

    Matrix matrix(const GivenMatrix& given, std::int64_t rows, std::int64_t cols, const char* what) {
        const Matrix& found = matrix_of(given);
        require_equal(found.rows, rows, name_, what);
        require_equal(found.cols, cols, name_, what);
        objects_.push_back(nb::borrow(given));
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

// A mixer that Python gives its weights and then runs.
template <typename Mixer>
class BoundMixer {
  public:
    // First row, number of rows, state (H, rows, columns) or None, tail (K - 1, C).
    using Segment = std::tuple<std::int64_t, std::int64_t, std::optional<MutableFloats3>, MutableFloats2>;

    // What a segment's rows make is written to its record, where it has one; none: no segment has.
    using Records = std::vector<std::optional<MutableFloats1>>;

    void run(MutableFloats2 x, const std::vector<Segment>& segments, bool commits,
             const Records& records) const {
        require_equal(size(x, 1), mixer_.width(), parts_.name(), "input row length");
        std::vector<RecurrentSegment> checked;
        std::int64_t row = 0;
        for (const auto& [first_row, num_rows, state, tail] : segments) {
            require_equal(first_row, row, parts_.name(), "first row of a segment");
            require(num_rows > 0, parts_.name(), "a segment without rows");
            row += num_rows;
            checked.push_back({first_row, num_rows, checked_state(state), checked_tail(tail)});
        }
        require_equal(row, size(x, 0), parts_.name(), "number of rows in segments");
        set_records(records, checked);
        nb::gil_scoped_release release;
        mixer_.run(x.data(), row, checked, commits);
    }

    std::int64_t record_width() const { return mixer_.record_width(); }

    void replay(Floats1 record, std::int64_t num_recorded, std::int64_t num_rows,
                std::optional<MutableFloats3> state, MutableFloats2 tail) const {
        require_equal(size(record, 0), num_recorded * record_width(), parts_.name(), "length of a record");
        require(num_rows > 0 && num_rows <= num_recorded, parts_.name(),
                "more rows than were recorded, or none");
        const RecurrentSegment text = {0, num_rows, checked_state(state), checked_tail(tail)};
        nb::gil_scoped_release release;
        mixer_.replay(record.data(), num_recorded, text);
    }

  protected:
    explicit BoundMixer(const char* name) : parts_(name), mixer_{} {}

    Parts parts_;
    Mixer mixer_;

  private:
    float* checked_state(const std::optional<MutableFloats3>& state) const {
        const StateShape shape = mixer_.state_shape();
        require(state.has_value() == (shape.num_heads > 0), parts_.name(),
                "a state where there is none, or none");
        if (!state) return nullptr;
        require(size(*state, 0) == shape.num_heads && size(*state, 1) == shape.num_rows &&
                    size(*state, 2) == shape.num_cols,
                parts_.name(), "a state of another shape");
        return state->data();
    }

    void set_records(const Records& records, std::vector<RecurrentSegment>& segments) const {
        if (records.empty()) return;
        require_equal(std::ssize(records), std::ssize(segments), parts_.name(), "number of records");
        for (std::size_t i = 0; i < records.size(); ++i) {
            if (!records[i]) continue;
            require_equal(size(*records[i], 0), segments[i].num_rows * record_width(), parts_.name(),
                          "length of a record");
            segments[i].record = records[i]->data();
        }
    }

    float* checked_tail(const MutableFloats2& tail) const {
        require(size(tail, 0) == mixer_.conv.num_taps - 1 && size(tail, 1) == mixer_.conv.num_channels,
                parts_.name(), "a tail of another shape");
        return tail.data();
    }
};

inline constexpr const char* kRunDoc = R"(Add to x (T, D) what its rows make of their texts.

A segment is (first row, number of rows, state or None, tail) of one text; segments follow each other and cover
all rows. The texts' states and tails are moved on; with `commits` false they stay as they are, and x gets the
same bits. `records` has an array (rows times record_width,) or None for each segment: a text with one stays as
it is too, and what its rows made is written there, for `replay`.

Raises:
    ValueError: shapes do not fit.)";

inline constexpr const char* kReplayDoc =
    R"(Move a text on by the first `num_rows` of the `num_recorded` rows of a record, as `run` would have.

Raises:
    ValueError: shapes do not fit.)";

inline constexpr const char* kWorkingDoc =
    "Most bytes that `run` takes at a time for so many rows, whatever the formats of the matrices.";

// Adds what every mixer can do to its class.
template <typename Bound>
void define_runs(nb::class_<Bound>& bound) {
    bound
        .def("run", &Bound::run, nb::arg("x").noconvert(), nb::arg("segments"), nb::arg("commits"),
             nb::arg("records") = typename Bound::Records(), kRunDoc)
        .def_prop_ro("record_width", &Bound::record_width, "Floats of a record for each row.")
        .def("replay", &Bound::replay, nb::arg("record").noconvert(), nb::arg("num_recorded"),
             nb::arg("num_rows"), nb::arg("state").none(), nb::arg("tail").noconvert(), kReplayDoc);
}

}  // namespace edgemoe::bindings
