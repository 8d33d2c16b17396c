// Kimi delta attention for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/mixer_parts.h"
#include "mixers/kimi_delta_net.h"

namespace edgemoe::bindings {
namespace {

class BoundKimiDeltaNet {
  public:
    // The first matrix of forget and gate may be None.
    using Two = std::tuple<nb::object, nb::object>;

    BoundKimiDeltaNet(Floats1 norm, float eps, nb::object q, nb::object k, nb::object v, const Two& forget,
                      const Two& gate, nb::object beta, Floats1 decay, Floats1 dt_bias, Floats2 taps,
                      Floats1 output_norm, nb::object out, std::int64_t num_heads, std::int64_t key_dim,
                      std::int64_t value_dim, float lowest_log, float branch_scale)
        : parts_(kName), net_{} {
        require(num_heads > 0 && key_dim > 0 && value_dim > 0, kName, "heads without entries");
        require(lowest_log <= 0, kName, "a bound above 0 of what is forgotten");
        const std::int64_t width = size(norm, 0), keys = num_heads * key_dim, values = num_heads * value_dim;
        net_.num_heads = num_heads;
        net_.key_dim = key_dim;
        net_.value_dim = value_dim;
        net_.eps = eps;
        net_.lowest_log = lowest_log;
        net_.branch_scale = branch_scale;
        net_.norm = parts_.vector(norm, width, "length of norm");
        net_.q = parts_.matrix(q, keys, width, "shape of q");
        net_.k = parts_.matrix(k, keys, width, "shape of k");
        net_.v = parts_.matrix(v, values, width, "shape of v");
        net_.forget = two(forget, keys, width, "shape of forget");
        net_.gate = two(gate, values, width, "shape of gate");
        net_.beta = parts_.matrix(beta, num_heads, width, "shape of beta");
        net_.decay = parts_.vector(decay, num_heads, "length of decay");
        net_.dt_bias = parts_.vector(dt_bias, keys, "length of dt_bias");
        net_.conv = parts_.conv(taps, 2 * keys + values, std::nullopt);
        net_.output_norm = parts_.vector(output_norm, value_dim, "length of output_norm");
        net_.out = parts_.matrix(out, width, values, "shape of out");
    }

    // First row, number of rows, state, tail.
    using Segment = std::tuple<std::int64_t, std::int64_t, MutableFloats3, MutableFloats2>;

    void run(MutableFloats2 x, const std::vector<Segment>& segments, bool commits) const {
        require_equal(size(x, 1), net_.q.cols, kName, "input row length");
        std::vector<KimiDeltaNet::Segment> checked;
        for (const auto& [first_row, num_rows, state, tail] : segments) {
            require(size(state, 0) == net_.num_heads && size(state, 1) == net_.key_dim &&
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
    static constexpr const char* kName = "KimiDeltaNet";

    LowRank two(const Two& matrices, std::int64_t rows, std::int64_t cols, const char* what) {
        const auto& [first, second] = matrices;
        if (first.is_none()) return {{}, parts_.matrix(second, rows, cols, what)};
        const std::int64_t rank = nb::cast<const PackedMatrix&>(first)->rows;
        return {parts_.matrix(first, rank, cols, what), parts_.matrix(second, rows, rank, what)};
    }

    Parts parts_;
    KimiDeltaNet net_;
};

}  // namespace

void bind_kimi_delta(nb::module_& m) {
    using Two = BoundKimiDeltaNet::Two;
    nb::class_<BoundKimiDeltaNet>(m, "KimiDeltaNet", "Kimi delta attention; see edgemoe.native.mixers.")
        .def(nb::init<Floats1, float, nb::object, nb::object, nb::object, const Two&, const Two&, nb::object,
                      Floats1, Floats1, Floats2, Floats1, nb::object, std::int64_t, std::int64_t,
                      std::int64_t, float, float>(),
             nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
             nb::arg("forget"), nb::arg("gate"), nb::arg("beta"), nb::arg("decay").noconvert(),
             nb::arg("dt_bias").noconvert(), nb::arg("taps").noconvert(), nb::arg("output_norm").noconvert(),
             nb::arg("out"), nb::kw_only(), nb::arg("num_heads"), nb::arg("key_dim"), nb::arg("value_dim"),
             nb::arg("lowest_log") = 0.0f, nb::arg("branch_scale") = 1.0f, "Weights are kept, not copied.")
        .def("run", &BoundKimiDeltaNet::run, nb::arg("x").noconvert(), nb::arg("segments"),
             nb::arg("commits"),
             "Add to x (T, D) what its rows make of their texts; see edgemoe.native.mixers.");
}

}  // namespace edgemoe::bindings
