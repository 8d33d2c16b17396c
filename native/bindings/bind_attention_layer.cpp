// A layer's attention for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/kv_cache.h"
#include "bindings/mixer_binding.h"
#include "bindings/packed_matrix.h"
#include "ops/attention_layer.h"

namespace edgemoe::bindings {
namespace {

constexpr const char* kLayer = "AttentionLayer";

constexpr const char* kDoc = R"(The attention half of a decoder's layer.

Letters: H query heads, G key/value heads, C head dimension, V that of values (`value_dim`, or C), S slots of a
cache. `q`, `k`, `v` and `o` are pairs of a matrix and its bias or None: from D to H C, G C and G V, and from H V,
filled up with zeros to a multiple of 32, to D; `norm` (D,), if any, is applied to what the first three get, by the mean square, or with `norm_bias` (D,) by mean
and variance. Values are multiplied by `value_scale`. With `has_gate` the rows of q
are, head by head, C of the query and C of a gate, by whose logistic function the head's result is multiplied. Where
`v` is None the values are the keys as projected; `normalizes_values` divides each of their heads by its root mean
square. `qk_norms` are None or two weights, for queries and keys: of (C,) for each head with `has_norms_of_heads`,
else of (H C,) and (G C,) for all heads together. Values beyond `clip` are cut unless it is 0; `scale`, `window` and
`sinks` are as edgemoe.native.attention takes them. What comes out passes the norm `post_norm` (D,), if any, and is
added to x times `branch_scale`.)";

constexpr const char* kRunDoc = R"(Add to x (T, D) what its rows see.

A segment holds the rows of one text: a tuple (first row, number of rows, keys, values, start, rotation, bias). Its
rows stand from slot `start` on of its caches (G, S, C) and (G, S, V), where their own keys and values are written first;
`rotation` is None or cos and sin (rows, R) of the angles by which pairs (i, R + i) of every head of queries and
keys are rotated; `bias` is None or as edgemoe.native.attention takes it. Segments follow each other and cover all
rows.

Raises:
    ValueError: shapes do not fit.
    OverflowError: a float16 cache cannot hold a key or a value.)";

// A matrix and its bias, or none.
using Projection = std::pair<GivenMatrix, std::optional<Floats1>>;
using Rotation = std::pair<Floats2, Floats2>;
// First row, number of rows, keys, values, first slot, cos and sin, bias.
using Segment = std::tuple<std::int64_t, std::int64_t, Cache, Cache, std::int64_t, std::optional<Rotation>,
                           std::optional<Floats2>>;

// Holds what the layer points to.
class BoundAttentionLayer {
  public:
    BoundAttentionLayer(std::optional<Floats1> norm, float eps, Projection q, Projection k,
                        std::optional<Projection> v, Projection o,
                        std::optional<std::pair<Floats1, Floats1>> qk_norms, bool has_norms_of_heads,
                        std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t head_dim, float clip,
                        float scale, std::int64_t window, bool has_gate, bool normalizes_values,
                        std::optional<Floats1> sinks, std::optional<Floats1> post_norm, float branch_scale,
                        std::optional<Floats1> norm_bias, std::optional<std::int64_t> value_dim,
                        float value_scale)
        : layer_{} {
        require(num_kv_heads > 0 && num_heads > 0 && num_heads % num_kv_heads == 0, kLayer,
                "query heads are not a multiple of key heads");
        require(head_dim > 0 && window >= 0 && clip >= 0, kLayer,
                "head dimension, window or clip is out of range");
        const std::int64_t width = matrix_of(q.first).cols, q_width = num_heads * head_dim,
                           k_width = num_kv_heads * head_dim, of_value = value_dim.value_or(head_dim);
        require(of_value > 0 && (of_value == head_dim || (v && !has_gate)), kLayer,
                "values of another dimension have a matrix of their own and no gates");
        layer_.num_heads = num_heads;
        layer_.num_kv_heads = num_kv_heads;
        layer_.head_dim = head_dim;
        layer_.scale = scale;
        layer_.window = window;
        layer_.clip = clip;
        layer_.eps = eps;
        layer_.has_gate = has_gate;
        layer_.normalizes_values = normalizes_values;
        layer_.branch_scale = branch_scale;
        layer_.value_dim = of_value;
        layer_.value_scale = value_scale;
        layer_.norm_width = norm ? size(*norm, 0) : post_norm ? size(*post_norm, 0) : width;
        require_equal(filled_cols(layer_.norm_width), width, kLayer, "length of norm, filled up");
        if (norm) layer_.norm = keep(*norm, layer_.norm_width, "length of norm");
        if (norm_bias) layer_.norm_bias = keep(*norm_bias, layer_.norm_width, "length of norm_bias");
        layer_.q = projection(q, has_gate ? 2 * q_width : q_width, width);
        layer_.k = projection(k, k_width, width);
        if (v) layer_.v = projection(*v, num_kv_heads * of_value, width);
        layer_.o = projection(o, width, filled_cols(num_heads * of_value));
        if (sinks) layer_.sinks = keep(*sinks, num_heads, "number of sinks");
        if (post_norm) layer_.post_norm = keep(*post_norm, layer_.norm_width, "length of post_norm");
        if (!qk_norms) return;
        layer_.has_norms_of_heads = has_norms_of_heads;
        layer_.q_norm = keep(qk_norms->first, has_norms_of_heads ? head_dim : q_width, "length of q_norm");
        layer_.k_norm = keep(qk_norms->second, has_norms_of_heads ? head_dim : k_width, "length of k_norm");
    }

    void run(MutableFloats2 x, const std::vector<Segment>& segments) const {
        require_equal(size(x, 1), layer_.q.matrix.cols, kLayer, "input row length");
        std::vector<AttentionLayer::Segment> checked;
        checked.reserve(segments.size());
        std::int64_t row = 0;
        for (const Segment& segment : segments) {
            checked.push_back(check(segment));
            require_equal(checked.back().first_row, row, kLayer, "first row of a segment");
            row += checked.back().num_rows;
        }
        require_equal(row, size(x, 0), kLayer, "number of rows in segments");
        nb::gil_scoped_release release;
        layer_.run(x.data(), row, checked);
    }

  private:
    const float* keep(const Floats1& values, std::int64_t length, const char* what) {
        require_equal(size(values, 0), length, kLayer, what);
        vectors_.push_back(values);
        return values.data();
    }

    AttentionLayer::Projection projection(const Projection& given, std::int64_t rows, std::int64_t cols) {
        const auto& [object, bias] = given;
        const Matrix& matrix = matrix_of(object);
        require_equal(matrix.rows, rows, kLayer, "number of rows of a projection");
        require_equal(matrix.cols, cols, kLayer, "row length of a projection");
        matrices_.push_back(nb::borrow(object));
        return {matrix, bias ? keep(*bias, rows, "length of a bias") : nullptr};
    }

    AttentionLayer::Segment check(const Segment& segment) const {
        const auto& [first_row, num_rows, keys, values, start, rotation, bias] = segment;
        const KvLayout layout = layout_of(keys, kLayer), other = layout_of(values, kLayer);
        require(layout.num_heads == other.num_heads && layout.num_slots == other.num_slots &&
                    layout.is_f16 == other.is_f16 &&
                    layout.head_dim - other.head_dim == layer_.head_dim - layer_.value_dim,
                kLayer, "keys and values differ in shape or type");
        require(num_rows > 0, kLayer, "a segment without rows");
        require_equal(layout.num_heads, layer_.num_kv_heads, kLayer, "number of heads in the cache");
        require_equal(layout.head_dim, layer_.head_dim, kLayer, "head dimension in the cache");
        require(start >= 0 && start <= layout.num_slots - num_rows, kLayer, "positions outside the cache");
        AttentionLayer::Segment checked = {first_row, num_rows, start, keys.data(), values.data(), layout, {},
                                           {},        {},       {},    {}};
        if (rotation) {
            const auto& [cos, sin] = *rotation;
            require(size(cos, 0) == num_rows && size(sin, 0) == num_rows && size(cos, 1) == size(sin, 1),
                    kLayer, "cos and sin differ in shape, or have not a row for each token");
            checked.num_pairs = size(cos, 1);
            require(2 * checked.num_pairs <= layer_.head_dim, kLayer,
                    "more rotated dimensions than the head has");
            checked.cos = cos.data();
            checked.sin = sin.data();
        }
        if (bias) {
            checked.bias = bias->data();
            checked.bias_reach = require_bias(*bias, layer_.num_heads, start + num_rows, kLayer);
        }
        return checked;
    }

    std::vector<Floats1> vectors_;
    std::vector<nb::object> matrices_;
    AttentionLayer layer_;
};

const MixerBinding kBinding(kLayer, [](nb::module_& mixers, const char* name) {
    nb::class_<BoundAttentionLayer>(mixers, name, kDoc)
        .def(nb::init<std::optional<Floats1>, float, Projection, Projection, std::optional<Projection>,
                      Projection, std::optional<std::pair<Floats1, Floats1>>, bool, std::int64_t,
                      std::int64_t, std::int64_t, float, float, std::int64_t, bool, bool,
                      std::optional<Floats1>, std::optional<Floats1>, float, std::optional<Floats1>,
                      std::optional<std::int64_t>, float>(),
             nb::arg("norm").noconvert().none(), nb::arg("eps"), nb::arg("q"), nb::arg("k"),
             nb::arg("v").none(), nb::arg("o"), nb::arg("qk_norms").none(), nb::kw_only(),
             nb::arg("has_norms_of_heads"), nb::arg("num_heads"), nb::arg("num_kv_heads"),
             nb::arg("head_dim"), nb::arg("clip") = 0.0f, nb::arg("scale"), nb::arg("window") = 0,
             nb::arg("has_gate") = false, nb::arg("normalizes_values") = false,
             nb::arg("sinks").none() = nb::none(), nb::arg("post_norm").none() = nb::none(),
             nb::arg("branch_scale") = 1.0f, nb::arg("norm_bias").none() = nb::none(),
             nb::arg("value_dim").none() = nb::none(), nb::arg("value_scale") = 1.0f, kKeptDoc)
        .def_static("working_bytes", &AttentionLayer::working_bytes, nb::arg("num_rows"), nb::arg("num_keys"),
                    nb::kw_only(), nb::arg("width"), nb::arg("num_heads"), nb::arg("num_kv_heads"),
                    nb::arg("head_dim"), nb::arg("value_dim"), nb::arg("has_gate"), kWorkingOfKeysDoc)
        .def("run", &BoundAttentionLayer::run, nb::arg("x").noconvert(), nb::arg("segments"), kRunDoc);
});

}  // namespace
}  // namespace edgemoe::bindings
