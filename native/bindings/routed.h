// What a router saw and chose, and experts of a catalog, as Python gives them: shared by the bindings.
#pragma once

#include <algorithm>
#include <string>

#include "bindings/arrays.h"
#include "experts/gate.h"
#include "experts/use_statistics.h"

namespace edgemoe::bindings {

using Ids = Array<const std::int32_t, nb::ndim<2>>;

inline void require_position(const Catalog& catalog, int position, const char* operation) {
    require(position >= 0 && position < catalog.num_layers(), operation,
            "no layer at position " + std::to_string(position));
}

inline void require_expert(const Catalog& catalog, int expert, const char* operation) {
    require(expert >= 0 && expert < catalog.num_experts(), operation,
            "no expert number " + std::to_string(expert));
}

inline void require_ids(const Ids& ids, std::int64_t num_experts, const char* operation) {
    const auto is_inside = [=](std::int32_t id) { return id >= 0 && id < num_experts; };
    require(std::all_of(ids.data(), ids.data() + ids.size(), is_inside), operation,
            "an expert is outside its layer");
}

inline Routed routed_of(const Floats2& x, const Ids& ids, const Floats2& weights, std::int64_t num_experts,
                        const char* operation) {
    const auto tokens = static_cast<std::int64_t>(x.shape(0)), width = static_cast<std::int64_t>(x.shape(1));
    require_equal(static_cast<std::int64_t>(ids.shape(0)), tokens, operation, "number of rows of ids");
    require(weights.shape(0) == ids.shape(0) && weights.shape(1) == ids.shape(1), operation,
            "weights and ids differ in shape");
    require_ids(ids, num_experts, operation);
    return {x.data(), ids.data(), weights.data(), tokens, width, static_cast<std::int64_t>(ids.shape(1))};
}

}  // namespace edgemoe::bindings
