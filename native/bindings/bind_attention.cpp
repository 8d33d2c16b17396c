// Attention for Python: checks shapes, releases the GIL, calls the core.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/kv_cache.h"
#include "ops/ops.h"

namespace edgemoe::bindings {
namespace {

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
    for (std::size_t axis = 0; axis < 2; ++axis) {
        require_equal(size(out, axis), size(q, axis), kName, "an axis of out");
    }
    require(size(out, 2) > 0 && size(out, 2) <= layout.head_dim, kName,
            "more entries of a value than there are");
    Attention a = {size(q, 0), size(q, 1), start, window, scale};
    a.value_dim = size(out, 2);
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

}  // namespace

void bind_attention(nb::module_& m) {
    m.def("store_kv", &store_kv_at, nb::arg("cache").noconvert(), nb::arg("new").noconvert(),
          nb::arg("start"));
    m.def("attention_into", &attention_into, nb::arg("q").noconvert(), nb::arg("keys").noconvert(),
          nb::arg("values").noconvert(), nb::arg("start"), nb::arg("scale"), nb::arg("window"),
          nb::arg("num_keys"), nb::arg("bias").none(), nb::arg("sinks").none(), nb::arg("out").noconvert());
}

}  // namespace edgemoe::bindings
