// A gated delta net for Python: checks shapes, releases the GIL, calls the core.

#include <nanobind/stl/string.h>
#include <optional>

#include <string>

#include "bindings/arrays.h"
#include "bindings/mixer_parts.h"
#include "mixers/gated_delta_net.h"

namespace edgemoe::bindings {
namespace {

constexpr const char* kDoc = R"(A gated delta net (arXiv 2412.06464).

Letters: Hk key heads, Hv value heads, Dk and Dv their dimensions, C = 2 Hk Dk + Hv Dv. `qkv` (C, D) makes
queries, keys and values of the rows after `norm` (D,); `z` (Hv Dv, D) gates, `beta` and `alpha` (Hv, D) say how
much is written and kept. `taps` (K, C), the last for the token itself; then `activation`, and queries and keys get length
Dk^-0.5 and 1. A head's state S (Dk, Dv) is multiplied by exp(`decay` softplus(alpha + `dt_bias`)); the logistic
function of beta times (v - S k) is added to it along k; S q, normed by `output_norm` (Dv,) and times silu(z),
passes `out` (D, Hv Dv rounded up to 32) and is added to x, times `branch_scale`. Value head h belongs to key head h Hk / Hv,
rounded down. A segment is (first row, number of rows, state (Hv, Dk, Dv), tail (K - 1, C)).)";

class BoundDeltaNet : public BoundMixer<GatedDeltaNet> {
  public:
    BoundDeltaNet(Floats1 norm, float eps, GivenMatrix qkv, GivenMatrix z, GivenMatrix beta,
                  GivenMatrix alpha, Floats1 decay, Floats1 dt_bias, Floats2 taps, Floats1 output_norm,
                  GivenMatrix out, std::int64_t num_key_heads, std::int64_t num_value_heads,
                  std::int64_t key_dim, std::int64_t value_dim, float branch_scale,
                  const std::string& activation)
        : BoundMixer(kName) {
        require(num_key_heads > 0 && num_value_heads > 0 && num_value_heads % num_key_heads == 0, kName,
                "value heads are not a multiple of key heads");
        require(key_dim > 0 && value_dim > 0, kName, "a head without entries");
        const std::int64_t width = filled_cols(size(norm, 0)), inner = num_value_heads * value_dim;
        const std::int64_t channels = 2 * num_key_heads * key_dim + inner;
        mixer_.num_key_heads = num_key_heads;
        mixer_.num_value_heads = num_value_heads;
        mixer_.key_dim = key_dim;
        mixer_.value_dim = value_dim;
        mixer_.eps = eps;
        mixer_.branch_scale = branch_scale;
        mixer_.activation = of_one(activation, kName);
        mixer_.norm_width = size(norm, 0);
        mixer_.norm = parts_.vector(norm, mixer_.norm_width, "length of norm");
        mixer_.qkv = parts_.matrix(qkv, channels, width, "shape of qkv");
        mixer_.z = parts_.matrix(z, inner, width, "shape of z");
        mixer_.beta = parts_.matrix(beta, num_value_heads, width, "shape of beta");
        mixer_.alpha = parts_.matrix(alpha, num_value_heads, width, "shape of alpha");
        mixer_.decay = parts_.vector(decay, num_value_heads, "length of decay");
        mixer_.dt_bias = parts_.vector(dt_bias, num_value_heads, "length of dt_bias");
        mixer_.conv = parts_.conv(taps, channels, std::nullopt);
        mixer_.output_norm = parts_.vector(output_norm, value_dim, "length of output_norm");
        mixer_.out = parts_.matrix(out, width, filled_cols(inner), "shape of out");
    }

    static constexpr const char* kName = "GatedDeltaNet";
};

const MixerBinding kBinding(BoundDeltaNet::kName, [](nb::module_& mixers, const char* name) {
    define_runs(
        nb::class_<BoundDeltaNet>(mixers, name, kDoc)
            .def(nb::init<Floats1, float, GivenMatrix, GivenMatrix, GivenMatrix, GivenMatrix, Floats1,
                          Floats1, Floats2, Floats1, GivenMatrix, std::int64_t, std::int64_t, std::int64_t,
                          std::int64_t, float, const std::string&>(),
                 nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("qkv"), nb::arg("z"), nb::arg("beta"),
                 nb::arg("alpha"), nb::arg("decay").noconvert(), nb::arg("dt_bias").noconvert(),
                 nb::arg("taps").noconvert(), nb::arg("output_norm").noconvert(), nb::arg("out"),
                 nb::kw_only(), nb::arg("num_key_heads"), nb::arg("num_value_heads"), nb::arg("key_dim"),
                 nb::arg("value_dim"), nb::arg("branch_scale") = 1.0f, nb::arg("activation") = "silu",
                 kKeptDoc)
            .def_static("working_bytes", &GatedDeltaNet::working_bytes, nb::arg("num_rows"), nb::kw_only(),
                        nb::arg("width"), nb::arg("num_key_heads"), nb::arg("num_value_heads"),
                        nb::arg("key_dim"), nb::arg("value_dim"), kWorkingDoc));
});

}  // namespace
}  // namespace edgemoe::bindings
