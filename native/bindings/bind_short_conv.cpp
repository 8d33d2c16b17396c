// A gated short convolution for Python: checks shapes, releases the GIL, calls the core.

#include <optional>

#include "bindings/arrays.h"
#include "bindings/mixer_parts.h"
#include "mixers/short_conv.h"

namespace edgemoe::bindings {
namespace {

constexpr const char* kDoc = R"(A gated short convolution (LFM2).

`in_` (3 D, D) makes a gate, another gate and values of the rows after `norm` (D,); values times the first gate
pass the convolution of `taps` (K, D), and what comes out times the second gate passes `out` (D, D), and is added
to x times `branch_scale`. Biases may be None. A segment is (first row, number of rows, None, tail (K - 1, D)).)";

class BoundShortConv : public BoundMixer<ShortConv> {
  public:
    BoundShortConv(Floats1 norm, float eps, GivenMatrix in, std::optional<Floats1> in_bias, Floats2 taps,
                   std::optional<Floats1> conv_bias, GivenMatrix out, std::optional<Floats1> out_bias,
                   float branch_scale)
        : BoundMixer(kName) {
        const std::int64_t width = filled_cols(size(norm, 0));
        mixer_.eps = eps;
        mixer_.branch_scale = branch_scale;
        mixer_.norm_width = size(norm, 0);
        mixer_.norm = parts_.vector(norm, mixer_.norm_width, "length of norm");
        mixer_.in = parts_.matrix(in, 3 * width, width, "shape of in");
        mixer_.in_bias = parts_.vector(in_bias, 3 * width, "length of in_bias");
        mixer_.conv = parts_.conv(taps, width, conv_bias);
        mixer_.out = parts_.matrix(out, width, width, "shape of out");
        mixer_.out_bias = parts_.vector(out_bias, width, "length of out_bias");
    }

    static constexpr const char* kName = "ShortConv";
};

const MixerBinding kBinding(BoundShortConv::kName, [](nb::module_& mixers, const char* name) {
    define_runs(nb::class_<BoundShortConv>(mixers, name, kDoc)
                    .def(nb::init<Floats1, float, GivenMatrix, std::optional<Floats1>, Floats2,
                                  std::optional<Floats1>, GivenMatrix, std::optional<Floats1>, float>(),
                         nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("in_"),
                         nb::arg("in_bias").none(), nb::arg("taps").noconvert(), nb::arg("conv_bias").none(),
                         nb::arg("out"), nb::arg("out_bias").none(), nb::kw_only(),
                         nb::arg("branch_scale") = 1.0f, kKeptDoc)
                    .def_static("working_bytes", &ShortConv::working_bytes, nb::arg("num_rows"),
                                nb::kw_only(), nb::arg("width"), kWorkingDoc));
});

}  // namespace
}  // namespace edgemoe::bindings
