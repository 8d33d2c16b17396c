// Float operations for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>

#include <optional>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/packed_matrix.h"
#include "ops/ops.h"

namespace edgemoe::bindings {
namespace {

using Ints2 = Array<std::int32_t, nb::ndim<2>>;

void rms_norm_into(Floats2 x, Floats1 weight, float eps, MutableFloats2 out) {
    require_equal(size(weight, 0), size(x, 1), "rms_norm", "length of weight");
    require(out.shape(0) == x.shape(0) && out.shape(1) == x.shape(1), "rms_norm",
            "out and x differ in shape");
    nb::gil_scoped_release release;
    rms_norm(x.data(), size(x, 0), size(x, 1), weight.data(), eps, out.data());
}

void choose_experts_into(Floats2 x, const PackedMatrix& router, std::optional<Floats1> bias,
                         bool softmax_first, bool renormalize, Ints2 ids, MutableFloats2 weights) {
    constexpr const char* kName = "choose_experts";
    require_equal(size(x, 1), router->cols, kName, "input row length");
    if (bias) require_equal(size(*bias, 0), router->rows, kName, "length of bias");
    require(size(ids, 1) >= 1 && size(ids, 1) <= router->rows, kName,
            "top_k is outside 1..number of experts");
    require(ids.shape(0) == x.shape(0) && weights.shape(0) == x.shape(0) && weights.shape(1) == ids.shape(1),
            kName, "outputs differ in shape");
    nb::gil_scoped_release release;
    choose_experts(x.data(), size(x, 0), *router, bias ? bias->data() : nullptr, size(ids, 1), softmax_first,
                   renormalize, ids.data(), weights.data());
}

void combine_into(Floats2 parts, Floats2 weights, MutableFloats2 out) {
    require(size(parts, 0) == size(weights, 0) * size(weights, 1), "combine",
            "as many parts as weights are needed");
    require(out.shape(0) == weights.shape(0) && out.shape(1) == parts.shape(1), "combine",
            "out has the wrong shape");
    nb::gil_scoped_release release;
    combine(parts.data(), nullptr, weights.data(), size(weights, 0), size(weights, 1), size(parts, 1),
            out.data());
}

}  // namespace

void bind_ops(nb::module_& m) {
    m.def("rms_norm_into", &rms_norm_into, nb::arg("x").noconvert(), nb::arg("weight").noconvert(),
          nb::arg("eps"), nb::arg("out").noconvert());
    m.def("choose_experts_into", &choose_experts_into, nb::arg("x").noconvert(), nb::arg("router"),
          nb::arg("bias").noconvert().none(), nb::arg("softmax_first"), nb::arg("renormalize"),
          nb::arg("ids").noconvert(), nb::arg("weights").noconvert());
    m.def("combine_into", &combine_into, nb::arg("parts").noconvert(), nb::arg("weights").noconvert(),
          nb::arg("out").noconvert());
}

}  // namespace edgemoe::bindings
