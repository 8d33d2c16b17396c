// Token mixers that keep a state of fixed size, for Python: checks shapes, releases the GIL, calls the core.

#include <optional>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/mixer_parts.h"
#include "mixers/gated_delta_net.h"
#include "mixers/short_conv.h"

namespace edgemoe::bindings {
namespace {

class BoundDeltaNet : public BoundMixer<GatedDeltaNet> {
  public:
    BoundDeltaNet(Floats1 norm, float eps, nb::object qkv, nb::object z, nb::object beta, nb::object alpha,
                  Floats1 decay, Floats1 dt_bias, Floats2 taps, Floats1 output_norm, nb::object out,
                  std::int64_t num_key_heads, std::int64_t num_value_heads, std::int64_t key_dim,
                  std::int64_t value_dim, float branch_scale)
        : BoundMixer(kName) {
        require(num_key_heads > 0 && num_value_heads > 0 && num_value_heads % num_key_heads == 0, kName,
                "value heads are not a multiple of key heads");
        require(key_dim > 0 && value_dim > 0, kName, "a head without entries");
        const std::int64_t width = size(norm, 0), inner = num_value_heads * value_dim;
        const std::int64_t channels = 2 * num_key_heads * key_dim + inner;
        mixer_.num_key_heads = num_key_heads;
        mixer_.num_value_heads = num_value_heads;
        mixer_.key_dim = key_dim;
        mixer_.value_dim = value_dim;
        mixer_.eps = eps;
        mixer_.branch_scale = branch_scale;
        mixer_.norm = parts_.vector(norm, width, "length of norm");
        mixer_.qkv = parts_.matrix(qkv, channels, width, "shape of qkv");
        mixer_.z = parts_.matrix(z, inner, width, "shape of z");
        mixer_.beta = parts_.matrix(beta, num_value_heads, width, "shape of beta");
        mixer_.alpha = parts_.matrix(alpha, num_value_heads, width, "shape of alpha");
        mixer_.decay = parts_.vector(decay, num_value_heads, "length of decay");
        mixer_.dt_bias = parts_.vector(dt_bias, num_value_heads, "length of dt_bias");
        mixer_.conv = parts_.conv(taps, channels, std::nullopt);
        mixer_.output_norm = parts_.vector(output_norm, value_dim, "length of output_norm");
        mixer_.out = parts_.matrix(out, width, inner, "shape of out");
    }

  private:
    static constexpr const char* kName = "GatedDeltaNet";
};

class BoundShortConv : public BoundMixer<ShortConv> {
  public:
    BoundShortConv(Floats1 norm, float eps, nb::object in, std::optional<Floats1> in_bias, Floats2 taps,
                   std::optional<Floats1> conv_bias, nb::object out, std::optional<Floats1> out_bias,
                   float branch_scale)
        : BoundMixer(kName) {
        const std::int64_t width = size(norm, 0);
        mixer_.eps = eps;
        mixer_.branch_scale = branch_scale;
        mixer_.norm = parts_.vector(norm, width, "length of norm");
        mixer_.in = parts_.matrix(in, 3 * width, width, "shape of in");
        mixer_.in_bias = parts_.vector(in_bias, 3 * width, "length of in_bias");
        mixer_.conv = parts_.conv(taps, width, conv_bias);
        mixer_.out = parts_.matrix(out, width, width, "shape of out");
        mixer_.out_bias = parts_.vector(out_bias, width, "length of out_bias");
    }

  private:
    static constexpr const char* kName = "ShortConv";
};

}  // namespace

void bind_mixers(nb::module_& m) {
    define_runs(
        nb::class_<BoundDeltaNet>(m, "GatedDeltaNet", "A gated delta net; see edgemoe.native.mixers.")
            .def(nb::init<Floats1, float, nb::object, nb::object, nb::object, nb::object, Floats1, Floats1,
                          Floats2, Floats1, nb::object, std::int64_t, std::int64_t, std::int64_t,
                          std::int64_t, float>(),
                 nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("qkv"), nb::arg("z"), nb::arg("beta"),
                 nb::arg("alpha"), nb::arg("decay").noconvert(), nb::arg("dt_bias").noconvert(),
                 nb::arg("taps").noconvert(), nb::arg("output_norm").noconvert(), nb::arg("out"),
                 nb::kw_only(), nb::arg("num_key_heads"), nb::arg("num_value_heads"), nb::arg("key_dim"),
                 nb::arg("value_dim"), nb::arg("branch_scale") = 1.0f, "Weights are kept, not copied."));
    define_runs(
        nb::class_<BoundShortConv>(m, "ShortConv", "A gated short convolution; see edgemoe.native.mixers.")
            .def(nb::init<Floats1, float, nb::object, std::optional<Floats1>, Floats2, std::optional<Floats1>,
                          nb::object, std::optional<Floats1>, float>(),
                 nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("in_"), nb::arg("in_bias").none(),
                 nb::arg("taps").noconvert(), nb::arg("conv_bias").none(), nb::arg("out"),
                 nb::arg("out_bias").none(), nb::kw_only(), nb::arg("branch_scale") = 1.0f,
                 "Weights are kept, not copied."));
}

}  // namespace edgemoe::bindings
