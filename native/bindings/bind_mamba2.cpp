// Mamba-2 for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/mixer_parts.h"
#include "mixers/mamba2.h"

namespace edgemoe::bindings {
namespace {

class BoundMamba2 {
  public:
    BoundMamba2(Floats1 norm, float eps, nb::object z, nb::object mixed, nb::object steps,
                std::optional<Floats1> in_bias, Floats1 decay, Floats1 dt_bias, Floats1 skip, Floats2 taps,
                std::optional<Floats1> conv_bias, Floats1 output_norm, nb::object out,
                std::optional<Floats1> out_bias, std::int64_t num_heads, std::int64_t head_dim,
                std::int64_t num_groups, std::int64_t state_dim, float step_low, float step_high,
                float branch_scale)
        : parts_(kName), mamba_{} {
        require(num_groups > 0 && num_heads > 0 && num_heads % num_groups == 0, kName,
                "heads are not a multiple of groups");
        require(head_dim > 0 && state_dim > 0, kName, "a head without entries");
        require(step_low <= step_high, kName, "a step's limits are the wrong way round");
        const std::int64_t width = size(norm, 0), inner = num_heads * head_dim;
        const std::int64_t channels = inner + 2 * num_groups * state_dim;
        mamba_.num_heads = num_heads;
        mamba_.head_dim = head_dim;
        mamba_.num_groups = num_groups;
        mamba_.state_dim = state_dim;
        mamba_.eps = eps;
        mamba_.step_low = step_low;
        mamba_.step_high = step_high;
        mamba_.branch_scale = branch_scale;
        mamba_.norm = parts_.vector(norm, width, "length of norm");
        mamba_.z = parts_.matrix(z, inner, width, "shape of z");
        mamba_.mixed = parts_.matrix(mixed, channels, width, "shape of mixed");
        mamba_.steps = parts_.matrix(steps, num_heads, width, "shape of steps");
        mamba_.in_bias = parts_.vector(in_bias, inner + channels + num_heads, "length of in_bias");
        mamba_.decay = parts_.vector(decay, num_heads, "length of decay");
        mamba_.dt_bias = parts_.vector(dt_bias, num_heads, "length of dt_bias");
        mamba_.skip = parts_.vector(skip, num_heads, "length of skip");
        mamba_.conv = parts_.conv(taps, channels, conv_bias);
        mamba_.output_norm = parts_.vector(output_norm, inner, "length of output_norm");
        mamba_.out = parts_.matrix(out, width, inner, "shape of out");
        mamba_.out_bias = parts_.vector(out_bias, width, "length of out_bias");
    }

    // First row, number of rows, state, tail.
    using Segment = std::tuple<std::int64_t, std::int64_t, MutableFloats3, MutableFloats2>;

    void run(MutableFloats2 x, const std::vector<Segment>& segments, bool commits) const {
        require_equal(size(x, 1), mamba_.z.cols, kName, "input row length");
        std::vector<Mamba2::Segment> checked;
        for (const auto& [first_row, num_rows, state, tail] : segments) {
            require(size(state, 0) == mamba_.num_heads && size(state, 1) == mamba_.state_dim &&
                        size(state, 2) == mamba_.head_dim,
                    kName, "a state of another shape");
            require(size(tail, 0) == mamba_.conv.num_taps - 1 && size(tail, 1) == mamba_.conv.num_channels,
                    kName, "a tail of another shape");
            checked.push_back({first_row, num_rows, state.data(), tail.data()});
        }
        require_cover(checked, size(x, 0), kName);
        nb::gil_scoped_release release;
        mamba_.run(x.data(), size(x, 0), checked, commits);
    }

  private:
    static constexpr const char* kName = "Mamba2";

    Parts parts_;
    Mamba2 mamba_;
};

}  // namespace

void bind_mamba2(nb::module_& m) {
    nb::class_<BoundMamba2>(m, "Mamba2", "A Mamba-2 layer's mixer; see edgemoe.native.mixers.")
        .def(nb::init<Floats1, float, nb::object, nb::object, nb::object, std::optional<Floats1>, Floats1,
                      Floats1, Floats1, Floats2, std::optional<Floats1>, Floats1, nb::object,
                      std::optional<Floats1>, std::int64_t, std::int64_t, std::int64_t, std::int64_t, float,
                      float, float>(),
             nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("z"), nb::arg("mixed"), nb::arg("steps"),
             nb::arg("in_bias").none(), nb::arg("decay").noconvert(), nb::arg("dt_bias").noconvert(),
             nb::arg("skip").noconvert(), nb::arg("taps").noconvert(), nb::arg("conv_bias").none(),
             nb::arg("output_norm").noconvert(), nb::arg("out"), nb::arg("out_bias").none(), nb::kw_only(),
             nb::arg("num_heads"), nb::arg("head_dim"), nb::arg("num_groups"), nb::arg("state_dim"),
             nb::arg("step_low"), nb::arg("step_high"), nb::arg("branch_scale") = 1.0f,
             "Weights are kept, not copied.")
        .def("run", &BoundMamba2::run, nb::arg("x").noconvert(), nb::arg("segments"), nb::arg("commits"),
             "Add to x (T, D) what its rows make of their texts; see edgemoe.native.mixers.");
}

}  // namespace edgemoe::bindings
