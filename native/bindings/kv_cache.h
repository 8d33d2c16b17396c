// Caches of keys and values as Python gives them: shared by the bindings.
#pragma once

#include "bindings/arrays.h"
#include "ops/ops.h"

namespace edgemoe::bindings {

// f16 has no C++ type: the caches are taken untyped and their dtype is looked at.
using Cache = nb::ndarray<nb::ndim<3>, nb::c_contig, nb::device::cpu>;

inline KvLayout layout_of(const Cache& cache, const char* operation) {
    const bool is_f16 =
        cache.dtype() == nb::dlpack::dtype{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
    require(is_f16 || cache.dtype() == nb::dtype<float>(), operation, "a cache is float16 or float32");
    return {size(cache, 0), size(cache, 1), size(cache, 2), is_f16};
}

inline KvLayout layout_of_both(const Cache& keys, const Cache& values, const char* operation) {
    const KvLayout layout = layout_of(keys, operation), other = layout_of(values, operation);
    require(layout.num_heads == other.num_heads && layout.num_slots == other.num_slots &&
                layout.head_dim == other.head_dim && layout.is_f16 == other.is_f16,
            operation, "keys and values differ in shape or type");
    return layout;
}

// Positions below `end` occur. Returns the reach.
inline std::int64_t require_bias(const Floats2& bias, std::int64_t num_heads, std::int64_t end,
                                 const char* operation) {
    require_equal(size(bias, 0), num_heads, operation, "number of rows of bias");
    const std::int64_t reach = (size(bias, 1) + 1) / 2;
    require(size(bias, 1) % 2 == 1 && end <= reach, operation, "bias does not reach as far as the positions");
    return reach;
}

}  // namespace edgemoe::bindings
