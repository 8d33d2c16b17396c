// Attention for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/kv_cache.h"
#include "bindings/packed_matrix.h"
#include "ops/attention_layer.h"
#include "ops/ops.h"

namespace edgemoe::bindings {
namespace {

KvLayout layout_of_both(const Cache& keys, const Cache& values, const char* operation) {
    const KvLayout layout = layout_of(keys, operation), other = layout_of(values, operation);
    require(layout.num_heads == other.num_heads && layout.num_slots == other.num_slots &&
                layout.head_dim == other.head_dim && layout.is_f16 == other.is_f16,
            operation, "keys and values differ in shape or type");
    return layout;
}

// Positions below `end` occur. Returns the reach.
std::int64_t require_bias(const Floats2& bias, std::int64_t num_heads, std::int64_t end,
                          const char* operation) {
    require_equal(size(bias, 0), num_heads, operation, "number of rows of bias");
    const std::int64_t reach = (size(bias, 1) + 1) / 2;
    require(size(bias, 1) % 2 == 1 && end <= reach, operation, "bias does not reach as far as the positions");
    return reach;
}

void store_kv_at(Cache cache, Floats3 x, std::int64_t start) {
    const KvLayout layout = layout_of(cache, "store_kv");
    require_equal(size(x, 1), layout.num_heads, "store_kv", "number of heads");
    require_equal(size(x, 2), layout.head_dim, "store_kv", "head dimension");
    require(start >= 0 && start <= layout.num_slots - size(x, 0), "store_kv", "positions outside the cache");
    nb::gil_scoped_release release;
    store_kv(cache.data(), layout, x.data(), size(x, 0), start);
}

void attention_into(Floats3 q, Cache keys, Cache values, std::int64_t start, float scale, std::int64_t window,
                    std::int64_t num_keys, std::optional<Floats2> bias, std::optional<Floats1> sinks,
                    MutableFloats3 out) {
    constexpr const char* kName = "attention";
    const KvLayout layout = layout_of_both(keys, values, kName);
    require_equal(size(q, 2), layout.head_dim, kName, "head dimension");
    require(layout.num_heads > 0 && size(q, 1) % layout.num_heads == 0, kName,
            "query heads are not a multiple of key heads");
    require(num_keys >= 0 && num_keys <= layout.num_slots, kName, "num_keys is outside the cache");
    require(start >= 0 && (num_keys > 0 || start <= layout.num_slots - size(q, 0)), kName,
            "positions outside the cache");
    require(num_keys == 0 || window == 0, kName, "window and num_keys exclude each other");
    for (std::size_t axis = 0; axis < 3; ++axis) {
        require_equal(size(out, axis), size(q, axis), kName, "an axis of out");
    }
    Attention a = {size(q, 0), size(q, 1), start, window, scale};
    a.num_keys = num_keys;
    if (sinks) {
        require_equal(size(*sinks, 0), a.num_heads, kName, "number of sinks");
        a.sinks = sinks->data();
    }
    if (bias) {
        a.bias = bias->data();
        a.bias_reach = require_bias(*bias, a.num_heads, std::max(start + a.num_tokens, num_keys), kName);
    }
    nb::gil_scoped_release release;
    attention(q.data(), keys.data(), values.data(), layout, a, out.data());
}

constexpr const char* kLayer = "AttentionLayer";

// A matrix and its bias, or none.
using Projection = std::pair<nb::object, std::optional<Floats1>>;
using Rotation = std::pair<Floats2, Floats2>;
// First row, number of rows, keys, values, first slot, cos and sin, bias.
using Segment = std::tuple<std::int64_t, std::int64_t, Cache, Cache, std::int64_t, std::optional<Rotation>,
                           std::optional<Floats2>>;

// Holds what the layer points to.
class BoundAttentionLayer {
  public:
    BoundAttentionLayer(Floats1 norm, float eps, Projection q, Projection k, std::optional<Projection> v,
                        Projection o, std::optional<std::pair<Floats1, Floats1>> qk_norms,
                        bool has_norms_of_heads, std::int64_t num_heads, std::int64_t num_kv_heads,
                        std::int64_t head_dim, float clip, float scale, std::int64_t window, bool has_gate,
                        bool normalizes_values, std::optional<Floats1> sinks,
                        std::optional<Floats1> post_norm, float branch_scale,
                        std::optional<Floats1> norm_bias)
        : layer_{} {
        require(num_kv_heads > 0 && num_heads > 0 && num_heads % num_kv_heads == 0, kLayer,
                "query heads are not a multiple of key heads");
        require(head_dim > 0 && window >= 0 && clip >= 0, kLayer,
                "head dimension, window or clip is out of range");
        const std::int64_t width = size(norm, 0), q_width = num_heads * head_dim,
                           kv_width = num_kv_heads * head_dim;
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
        layer_.norm = keep(norm, width, "length of norm");
        if (norm_bias) layer_.norm_bias = keep(*norm_bias, width, "length of norm_bias");
        layer_.q = projection(q, has_gate ? 2 * q_width : q_width, width);
        layer_.k = projection(k, kv_width, width);
        if (v) layer_.v = projection(*v, kv_width, width);
        layer_.o = projection(o, width, q_width);
        if (sinks) layer_.sinks = keep(*sinks, num_heads, "number of sinks");
        if (post_norm) layer_.post_norm = keep(*post_norm, width, "length of post_norm");
        if (!qk_norms) return;
        layer_.has_norms_of_heads = has_norms_of_heads;
        layer_.q_norm = keep(qk_norms->first, has_norms_of_heads ? head_dim : q_width, "length of q_norm");
        layer_.k_norm = keep(qk_norms->second, has_norms_of_heads ? head_dim : kv_width, "length of k_norm");
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
        const Matrix& matrix = *nb::cast<const PackedMatrix&>(object);
        require_equal(matrix.rows, rows, kLayer, "number of rows of a projection");
        require_equal(matrix.cols, cols, kLayer, "row length of a projection");
        matrices_.push_back(object);
        return {matrix, bias ? keep(*bias, rows, "length of a bias") : nullptr};
    }

    AttentionLayer::Segment check(const Segment& segment) const {
        const auto& [first_row, num_rows, keys, values, start, rotation, bias] = segment;
        const KvLayout layout = layout_of_both(keys, values, kLayer);
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

}  // namespace

void bind_attention(nb::module_& m) {
    m.def("store_kv", &store_kv_at, nb::arg("cache").noconvert(), nb::arg("new").noconvert(),
          nb::arg("start"));
    m.def("attention_into", &attention_into, nb::arg("q").noconvert(), nb::arg("keys").noconvert(),
          nb::arg("values").noconvert(), nb::arg("start"), nb::arg("scale"), nb::arg("window"),
          nb::arg("num_keys"), nb::arg("bias").none(), nb::arg("sinks").none(), nb::arg("out").noconvert());
    nb::class_<BoundAttentionLayer>(m, kLayer,
                                    "The attention half of a decoder's layer; see edgemoe.native.attention.")
        .def(nb::init<Floats1, float, Projection, Projection, std::optional<Projection>, Projection,
                      std::optional<std::pair<Floats1, Floats1>>, bool, std::int64_t, std::int64_t,
                      std::int64_t, float, float, std::int64_t, bool, bool, std::optional<Floats1>,
                      std::optional<Floats1>, float, std::optional<Floats1>>(),
             nb::arg("norm").noconvert(), nb::arg("eps"), nb::arg("q"), nb::arg("k"), nb::arg("v").none(),
             nb::arg("o"), nb::arg("qk_norms").none(), nb::kw_only(), nb::arg("has_norms_of_heads"),
             nb::arg("num_heads"), nb::arg("num_kv_heads"), nb::arg("head_dim"), nb::arg("clip") = 0.0f,
             nb::arg("scale"), nb::arg("window") = 0, nb::arg("has_gate") = false,
             nb::arg("normalizes_values") = false, nb::arg("sinks").none() = nb::none(),
             nb::arg("post_norm").none() = nb::none(), nb::arg("branch_scale") = 1.0f,
             nb::arg("norm_bias").none() = nb::none(), "Weights are kept, not copied.")
        .def("run", &BoundAttentionLayer::run, nb::arg("x").noconvert(), nb::arg("segments"),
             "Add to x (T, D) what its rows see; see edgemoe.native.attention.");
}

}  // namespace edgemoe::bindings
