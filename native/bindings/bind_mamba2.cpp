// Mamba-2 for Python: checks shapes, releases the GIL, calls the core.

#include <nanobind/stl/string.h>
#include <optional>

#include <string>

#include "bindings/arrays.h"
#include "bindings/mixer_parts.h"
#include "mixers/mamba2.h"

namespace edgemoe::bindings {
namespace {

constexpr const char* kDoc = R"(A Mamba-2 layer's mixer (arXiv 2405.21060).

Letters: H heads of P entries, I = H P, in G groups, with states of length N; C = I + 2 G N. `z` (I, D) gates;
`mixed` (C, D) makes values and, for each group, what they are written along and what is read along; `steps` (H, D)
says how far a token goes; `in_bias` (I + C + H,) is added to all three. What is mixed passes the convolution of
`taps` (K, C) and `conv_bias`, then `activation`. With dt = softplus(steps + `dt_bias`), kept between the limits, a head's
state S (N, P) is multiplied by exp(`decay` dt), and dt times the values is added along what they are written
along. What is read of it, plus `skip` (H,) times the values, is multiplied by silu(z), normed group by group with
`output_norm` (I,), passes `out` (D, I rounded up to 32), and with `out_bias` is added to x, times `branch_scale`. Biases may be
None. A segment is (first row, number of rows, state (H, N, P), tail (K - 1, C)).)";

class BoundMamba2 : public BoundMixer<Mamba2> {
  public:
    BoundMamba2(Floats1 norm, float eps, GivenMatrix z, GivenMatrix mixed, GivenMatrix steps,
                std::optional<Floats1> in_bias, Floats1 decay, Floats1 dt_bias, Floats1 skip, Floats2 taps,
                std::optional<Floats1> conv_bias, Floats1 output_norm, GivenMatrix out,
                std::optional<Floats1> out_bias, std::int64_t num_heads, std::int64_t head_dim,
                std::int64_t num_groups, std::int64_t state_dim, float step_low, float step_high,
                float branch_scale, const std::string& activation)
        : BoundMixer(kName) {
        require(num_groups > 0 && num_heads > 0 && num_heads % num_groups == 0, kName,
                "heads are not a multiple of groups");
        require(head_dim > 0 && state_dim > 0, kName, "a head without entries");
        require(step_low <= step_high, kName, "a step's limits are the wrong way round");
        const std::int64_t width = filled_cols(size(norm, 0)), inner = num_heads * head_dim;
        const std::int64_t channels = inner + 2 * num_groups * state_dim;
        mixer_.num_heads = num_heads;
        mixer_.head_dim = head_dim;
        mixer_.num_groups = num_groups;
        mixer_.state_dim = state_dim;
        mixer_.eps = eps;
        mixer_.step_low = step_low;
        mixer_.step_high = step_high;
        mixer_.branch_scale = branch_scale;
        mixer_.activation = of_one(activation, kName);
        mixer_.norm_width = size(norm, 0);
        mixer_.norm = parts_.vector(norm, mixer_.norm_width, "length of norm");
        mixer_.z = parts_.matrix(z, inner, width, "shape of z");
        mixer_.mixed = parts_.matrix(mixed, channels, width, "shape of mixed");
        mixer_.steps = parts_.matrix(steps, num_heads, width, "shape of steps");
        mixer_.in_bias = parts_.vector(in_bias, inner + channels + num_heads, "length of in_bias");
        mixer_.decay = parts_.vector(decay, num_heads, "length of decay");
        mixer_.dt_bias = parts_.vector(dt_bias, num_heads, "length of dt_bias");
        mixer_.skip = parts_.vector(skip, num_heads, "length of skip");
        mixer_.conv = parts_.conv(taps, channels, conv_bias);
        mixer_.output_norm = parts_.vector(output_norm, inner, "length of output_norm");
        mixer_.out = parts_.matrix(out, width, filled_cols(inner), "shape of out");
        mixer_.out_bias = parts_.vector(out_bias, width, "length of out_bias");
    }

    static constexpr const char* kName = "Mamba2";
};

const MixerBinding kBinding(BoundMamba2::kName, [](nb::module_& mixers, const char* name) {
    define_runs(
        nb::class_<BoundMamba2>(mixers, name, kDoc)
            .def(nb::init<Floats1, float, GivenMatrix, GivenMatrix, GivenMatrix, std::optional<Floats1>,
                          Floats1, Floats1, Floats1, Floats2, std::optional<Floats1>, Floats1, GivenMatrix,
                          std::optional<Floats1>, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                          float, float, float, const std::string&>(),
                 nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("z"), nb::arg("mixed"),
                 nb::arg("steps"), nb::arg("in_bias").none(), nb::arg("decay").noconvert(),
                 nb::arg("dt_bias").noconvert(), nb::arg("skip").noconvert(), nb::arg("taps").noconvert(),
                 nb::arg("conv_bias").none(), nb::arg("output_norm").noconvert(), nb::arg("out"),
                 nb::arg("out_bias").none(), nb::kw_only(), nb::arg("num_heads"), nb::arg("head_dim"),
                 nb::arg("num_groups"), nb::arg("state_dim"), nb::arg("step_low"), nb::arg("step_high"),
                 nb::arg("branch_scale") = 1.0f, nb::arg("activation") = "silu", kKeptDoc)
            .def_static("working_bytes", &Mamba2::working_bytes, nb::arg("num_rows"), nb::kw_only(),
                        nb::arg("width"), nb::arg("num_heads"), nb::arg("head_dim"), nb::arg("num_groups"),
                        nb::arg("state_dim"), kWorkingDoc));
});

}  // namespace
}  // namespace edgemoe::bindings
