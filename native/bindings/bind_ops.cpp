// Float operations for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>

#include <optional>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/bound_router.h"
#include "bindings/packed_matrix.h"
#include "ops/ops.h"

namespace edgemoe::bindings {
namespace {

using Ints2 = Array<std::int32_t, nb::ndim<2>>;

// Rows of x and out are as long as the weight, or filled up with zeros to whole blocks.
void check_norm(const Floats2& x, const Floats1& weight, const MutableFloats2& out, const char* name) {
    require(size(x, 1) == size(weight, 0) || size(x, 1) == filled_cols(size(weight, 0)), name,
            "the weight has another length than rows");
    require(out.shape(0) == x.shape(0) && out.shape(1) == x.shape(1), name, "out and x differ in shape");
}

void rms_norm_into(Floats2 x, Floats1 weight, float eps, MutableFloats2 out) {
    check_norm(x, weight, out, "rms_norm");
    nb::gil_scoped_release release;
    rms_norm(x.data(), size(x, 0), size(weight, 0), weight.data(), eps, out.data(), size(x, 1));
}

void layer_norm_into(Floats2 x, Floats1 weight, Floats1 bias, float eps, MutableFloats2 out) {
    check_norm(x, weight, out, "layer_norm");
    require_equal(size(bias, 0), size(weight, 0), "layer_norm", "length of bias");
    nb::gil_scoped_release release;
    layer_norm(x.data(), size(x, 0), size(weight, 0), weight.data(), bias.data(), eps, out.data(),
               size(x, 1));
}

bool are_finite(Floats2 x) {
    nb::gil_scoped_release release;
    return all_finite(x.data(), size(x, 0) * size(x, 1));
}

bool have_finite_squares(Floats2 x) {
    nb::gil_scoped_release release;
    return squares_finite(x.data(), size(x, 0), size(x, 1));
}

void choose_experts_into(Floats2 x, const PackedMatrix& matrix, std::optional<Floats1> bias,
                         const BoundRouter& router, Ints2 ids, MutableFloats2 weights,
                         MutableFloats2 choice) {
    constexpr const char* kName = "choose_experts";
    require_equal(size(x, 1), matrix->cols, kName, "input row length");
    require_equal(matrix->rows, router->num_experts, kName, "number of rows");
    if (bias) require_equal(size(*bias, 0), matrix->rows, kName, "length of bias");
    require(ids.shape(0) == x.shape(0) && weights.shape(0) == x.shape(0) && choice.shape(0) == x.shape(0) &&
                size(ids, 1) == router->top_k && size(weights, 1) == router->top_k &&
                size(choice, 1) == router->num_experts,
            kName, "outputs differ in shape");
    nb::gil_scoped_release release;
    choose_experts(x.data(), size(x, 0), *matrix, bias ? bias->data() : nullptr, *router, ids.data(),
                   weights.data(), choice.data());
}

// Makes choice scores of the logits in each row.
void choice_scores(const BoundRouter& router, MutableFloats2 logits) {
    require_equal(size(logits, 1), router->num_experts, "choice_scores", "row length");
    for (std::int64_t t = 0; t < size(logits, 0); ++t) {
        router->choice_scores(logits.data() + t * router->num_experts);
    }
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
    m.def("layer_norm_into", &layer_norm_into, nb::arg("x").noconvert(), nb::arg("weight").noconvert(),
          nb::arg("bias").noconvert(), nb::arg("eps"), nb::arg("out").noconvert());
    m.def("all_finite", &are_finite, nb::arg("x").noconvert());
    m.def("squares_finite", &have_finite_squares, nb::arg("x").noconvert());
    nb::class_<BoundRouter>(m, "Router", "The rule of one layer's router; see edgemoe.native.Router.")
        .def(nb::init<std::int64_t, std::int64_t, const std::string&, std::optional<Floats1>,
                      std::optional<Floats1>, std::int64_t, std::int64_t, bool, bool, float, bool, float,
                      float>(),
             nb::arg("num_experts"), nb::arg("top_k"), nb::arg("score"),
             nb::arg("choice_bias").noconvert().none(), nb::arg("expert_scale").noconvert().none(),
             nb::arg("num_groups"), nb::arg("kept_groups"), nb::arg("groups_by_highest"),
             nb::arg("renormalize"), nb::arg("sum_eps"), nb::arg("is_eps_minimum"), nb::arg("scale"),
             nb::arg("jitter"))
        .def("choice_scores_in_place", &choice_scores, nb::arg("logits").noconvert(),
             "Make of logits (T, E) what experts are chosen by; the highest scores are chosen.");
    m.def("choose_experts_into", &choose_experts_into, nb::arg("x").noconvert(), nb::arg("matrix"),
          nb::arg("bias").noconvert().none(), nb::arg("router"), nb::arg("ids").noconvert(),
          nb::arg("weights").noconvert(), nb::arg("choice").noconvert());
    m.def("combine_into", &combine_into, nb::arg("parts").noconvert(), nb::arg("weights").noconvert(),
          nb::arg("out").noconvert());
}

}  // namespace edgemoe::bindings
