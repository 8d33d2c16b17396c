// Token mixers that keep a state of fixed size, for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/mixer_parts.h"
#include "mixers/gated_delta_net.h"
#include "mixers/short_conv.h"

namespace edgemoe::bindings {
namespace {

class BoundDeltaNet {
  public:
    BoundDeltaNet(Floats1 norm, float eps, nb::object qkv, nb::object z, nb::object beta, nb::object alpha,
                  Floats1 decay, Floats1 dt_bias, Floats2 taps, Floats1 output_norm, nb::object out,
                  std::int64_t num_key_heads, std::int64_t num_value_heads, std::int64_t key_dim,
                  std::int64_t value_dim, float branch_scale)
        : parts_(kName), net_{} {
        require(num_key_heads > 0 && num_value_heads > 0 && num_value_heads % num_key_heads == 0, kName,
                "value heads are not a multiple of key heads");
        require(key_dim > 0 && value_dim > 0, kName, "a head without entries");
        const std::int64_t width = size(norm, 0), inner = num_value_heads * value_dim;
        const std::int64_t channels = 2 * num_key_heads * key_dim + inner;
        net_.num_key_heads = num_key_heads;
        net_.num_value_heads = num_value_heads;
        net_.key_dim = key_dim;
        net_.value_dim = value_dim;
        net_.eps = eps;
        net_.branch_scale = branch_scale;
        net_.norm = parts_.vector(norm, width, "length of norm");
        net_.qkv = parts_.matrix(qkv, channels, width, "shape of qkv");
        net_.z = parts_.matrix(z, inner, width, "shape of z");
        net_.beta = parts_.matrix(beta, num_value_heads, width, "shape of beta");
        net_.alpha = parts_.matrix(alpha, num_value_heads, width, "shape of alpha");
        net_.decay = parts_.vector(decay, num_value_heads, "length of decay");
        net_.dt_bias = parts_.vector(dt_bias, num_value_heads, "length of dt_bias");
        net_.conv = parts_.conv(taps, channels, std::nullopt);
        net_.output_norm = parts_.vector(output_norm, value_dim, "length of output_norm");
        net_.out = parts_.matrix(out, width, inner, "shape of out");
    }

    // First row, number of rows, state, tail.
    using Segment = std::tuple<std::int64_t, std::int64_t, MutableFloats3, MutableFloats2>;

    void run(MutableFloats2 x, const std::vector<Segment>& segments, bool commits) const {
        require_equal(size(x, 1), net_.qkv.cols, kName, "input row length");
        std::vector<GatedDeltaNet::Segment> checked;
        for (const auto& [first_row, num_rows, state, tail] : segments) {
            require(size(state, 0) == net_.num_value_heads && size(state, 1) == net_.key_dim &&
                        size(state, 2) == net_.value_dim,
                    kName, "a state of another shape");
            require(size(tail, 0) == net_.conv.num_taps - 1 && size(tail, 1) == net_.conv.num_channels, kName,
                    "a tail of another shape");
            checked.push_back({first_row, num_rows, state.data(), tail.data()});
        }
        require_cover(checked, size(x, 0), kName);
        nb::gil_scoped_release release;
        net_.run(x.data(), size(x, 0), checked, commits);
    }

  private:
    static constexpr const char* kName = "GatedDeltaNet";

    Parts parts_;
    GatedDeltaNet net_;
};

class BoundShortConv {
  public:
    BoundShortConv(Floats1 norm, float eps, nb::object in, std::optional<Floats1> in_bias, Floats2 taps,
                   std::optional<Floats1> conv_bias, nb::object out, std::optional<Floats1> out_bias,
                   float branch_scale)
        : parts_(kName), conv_{} {
        const std::int64_t width = size(norm, 0);
        conv_.eps = eps;
        conv_.branch_scale = branch_scale;
        conv_.norm = parts_.vector(norm, width, "length of norm");
        conv_.in = parts_.matrix(in, 3 * width, width, "shape of in");
        conv_.in_bias = parts_.vector(in_bias, 3 * width, "length of in_bias");
        conv_.conv = parts_.conv(taps, width, conv_bias);
        conv_.out = parts_.matrix(out, width, width, "shape of out");
        conv_.out_bias = parts_.vector(out_bias, width, "length of out_bias");
    }

    // First row, number of rows, tail.
    using Segment = std::tuple<std::int64_t, std::int64_t, MutableFloats2>;

    void run(MutableFloats2 x, const std::vector<Segment>& segments, bool commits) const {
        require_equal(size(x, 1), conv_.in.cols, kName, "input row length");
        std::vector<ShortConv::Segment> checked;
        for (const auto& [first_row, num_rows, tail] : segments) {
            require(size(tail, 0) == conv_.conv.num_taps - 1 && size(tail, 1) == conv_.conv.num_channels,
                    kName, "a tail of another shape");
            checked.push_back({first_row, num_rows, tail.data()});
        }
        require_cover(checked, size(x, 0), kName);
        nb::gil_scoped_release release;
        conv_.run(x.data(), size(x, 0), checked, commits);
    }

  private:
    static constexpr const char* kName = "ShortConv";

    Parts parts_;
    ShortConv conv_;
};

}  // namespace

void bind_mixers(nb::module_& m) {
    constexpr const char* kRun =
        "Add to x (T, D) what its rows make of their texts; see edgemoe.native.mixers.";
    nb::class_<BoundDeltaNet>(m, "GatedDeltaNet", "A gated delta net; see edgemoe.native.mixers.")
        .def(nb::init<Floats1, float, nb::object, nb::object, nb::object, nb::object, Floats1, Floats1,
                      Floats2, Floats1, nb::object, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                      float>(),
             nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("qkv"), nb::arg("z"), nb::arg("beta"),
             nb::arg("alpha"), nb::arg("decay").noconvert(), nb::arg("dt_bias").noconvert(),
             nb::arg("taps").noconvert(), nb::arg("output_norm").noconvert(), nb::arg("out"), nb::kw_only(),
             nb::arg("num_key_heads"), nb::arg("num_value_heads"), nb::arg("key_dim"), nb::arg("value_dim"),
             nb::arg("branch_scale") = 1.0f, "Weights are kept, not copied.")
        .def("run", &BoundDeltaNet::run, nb::arg("x").noconvert(), nb::arg("segments"), nb::arg("commits"),
             kRun);
    nb::class_<BoundShortConv>(m, "ShortConv", "A gated short convolution; see edgemoe.native.mixers.")
        .def(nb::init<Floats1, float, nb::object, std::optional<Floats1>, Floats2, std::optional<Floats1>,
                      nb::object, std::optional<Floats1>, float>(),
             nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("in_"), nb::arg("in_bias").none(),
             nb::arg("taps").noconvert(), nb::arg("conv_bias").none(), nb::arg("out"),
             nb::arg("out_bias").none(), nb::kw_only(), nb::arg("branch_scale") = 1.0f,
             "Weights are kept, not copied.")
        .def("run", &BoundShortConv::run, nb::arg("x").noconvert(), nb::arg("segments"), nb::arg("commits"),
             kRun);
}

}  // namespace edgemoe::bindings
