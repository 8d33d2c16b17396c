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

}  // namespace edgemoe::bindings
