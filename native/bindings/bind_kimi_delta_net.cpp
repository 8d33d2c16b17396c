// Kimi delta attention for Python: checks shapes, releases the GIL, calls the core.

#include <nanobind/stl/string.h>
#include <optional>
#include <tuple>

#include <string>

#include "bindings/arrays.h"
#include "bindings/mixer_parts.h"
#include "mixers/kimi_delta_net.h"

namespace edgemoe::bindings {
namespace {

constexpr const char* kDoc = R"(Kimi delta attention (arXiv 2510.26692).

As the gated delta net with as many key heads as value heads H, but each of the Dk rows of S is multiplied by a
number of its own, exp(`decay` softplus(f + `dt_bias`)), or with a bound exp(`lowest_log` times the logistic
function of -`decay` (f + `dt_bias`)), where `forget` makes f (H Dk). `forget` and `gate` are two matrices each, one
after the other, the first of which may be None; what heads make, normed, is multiplied by the logistic function of
the gate. A segment is that of the gated delta net, C = 2 H Dk + H Dv.)";

class BoundKimiDeltaNet : public BoundMixer<KimiDeltaNet> {
  public:
    // The first matrix of forget and gate may be None.
    using Two = std::tuple<std::optional<GivenMatrix>, GivenMatrix>;

    BoundKimiDeltaNet(Floats1 norm, float eps, GivenMatrix q, GivenMatrix k, GivenMatrix v, const Two& forget,
                      const Two& gate, GivenMatrix beta, Floats1 decay, Floats1 dt_bias, Floats2 taps,
                      Floats1 output_norm, GivenMatrix out, std::int64_t num_heads, std::int64_t key_dim,
                      std::int64_t value_dim, float lowest_log, float branch_scale,
                      const std::string& activation)
        : BoundMixer(kName) {
        require(num_heads > 0 && key_dim > 0 && value_dim > 0, kName, "heads without entries");
        require(lowest_log <= 0, kName, "a bound above 0 of what is forgotten");
        const std::int64_t width = filled_cols(size(norm, 0)), keys = num_heads * key_dim,
                           values = num_heads * value_dim;
        mixer_.num_heads = num_heads;
        mixer_.key_dim = key_dim;
        mixer_.value_dim = value_dim;
        mixer_.eps = eps;
        mixer_.lowest_log = lowest_log;
        mixer_.branch_scale = branch_scale;
        mixer_.activation = of_one(activation, kName);
        mixer_.norm_width = size(norm, 0);
        mixer_.norm = parts_.vector(norm, mixer_.norm_width, "length of norm");
        mixer_.q = parts_.matrix(q, keys, width, "shape of q");
        mixer_.k = parts_.matrix(k, keys, width, "shape of k");
        mixer_.v = parts_.matrix(v, values, width, "shape of v");
        mixer_.forget = two(forget, keys, width, "shape of forget");
        mixer_.gate = two(gate, values, width, "shape of gate");
        mixer_.beta = parts_.matrix(beta, num_heads, width, "shape of beta");
        mixer_.decay = parts_.vector(decay, num_heads, "length of decay");
        mixer_.dt_bias = parts_.vector(dt_bias, keys, "length of dt_bias");
        mixer_.conv = parts_.conv(taps, 2 * keys + values, std::nullopt);
        mixer_.output_norm = parts_.vector(output_norm, value_dim, "length of output_norm");
        mixer_.out = parts_.matrix(out, width, filled_cols(values), "shape of out");
    }

    static constexpr const char* kName = "KimiDeltaNet";

  private:
    LowRank two(const Two& matrices, std::int64_t rows, std::int64_t cols, const char* what) {
        const auto& [first, second] = matrices;
        if (!first) return {{}, parts_.matrix(second, rows, cols, what)};
        const std::int64_t rank = matrix_of(*first).rows;
        return {parts_.matrix(*first, rank, cols, what), parts_.matrix(second, rows, rank, what)};
    }
};

const MixerBinding kBinding(BoundKimiDeltaNet::kName, [](nb::module_& mixers, const char* name) {
    using Two = BoundKimiDeltaNet::Two;
    define_runs(
        nb::class_<BoundKimiDeltaNet>(mixers, name, kDoc)
            .def(nb::init<Floats1, float, GivenMatrix, GivenMatrix, GivenMatrix, const Two&, const Two&,
                          GivenMatrix, Floats1, Floats1, Floats2, Floats1, GivenMatrix, std::int64_t,
                          std::int64_t, std::int64_t, float, float, const std::string&>(),
                 nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("q"), nb::arg("k"), nb::arg("v"),
                 nb::arg("forget"), nb::arg("gate"), nb::arg("beta"), nb::arg("decay").noconvert(),
                 nb::arg("dt_bias").noconvert(), nb::arg("taps").noconvert(),
                 nb::arg("output_norm").noconvert(), nb::arg("out"), nb::kw_only(), nb::arg("num_heads"),
                 nb::arg("key_dim"), nb::arg("value_dim"), nb::arg("lowest_log") = 0.0f,
                 nb::arg("branch_scale") = 1.0f, nb::arg("activation") = "silu", kKeptDoc)
            .def_static("working_bytes", &KimiDeltaNet::working_bytes, nb::arg("num_rows"), nb::kw_only(),
                        nb::arg("width"), nb::arg("num_heads"), nb::arg("key_dim"), nb::arg("value_dim"),
                        nb::arg("forget_rank"), nb::arg("gate_rank"), kWorkingDoc));
});

}  // namespace
}  // namespace edgemoe::bindings
