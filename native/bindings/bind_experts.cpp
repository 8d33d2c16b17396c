// Eviction and forecasts for Python. Calls are too short to release the GIL for, but for products.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>
#include <nanobind/trampoline.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/packed_matrix.h"
#include "bindings/routed.h"
#include "experts/gate.h"
#include "experts/policies.h"
#include "experts/residency.h"
#include "experts/use_statistics.h"

namespace edgemoe::bindings {
namespace {

using Experts = std::vector<int>;

// A policy written in Python.
struct PythonPolicy : EvictionPolicy {
    NB_TRAMPOLINE(EvictionPolicy, 1);

    std::vector<double> worth(const UseStatistics& statistics, const Experts& candidates) const override {
        NB_OVERRIDE_PURE(worth, statistics, candidates);
    }
};

void require_experts(const Catalog& catalog, const Experts& experts, const char* operation) {
    for (const int expert : experts) require_expert(catalog, expert, operation);
}

Experts observe(UseStatistics& statistics, int position, Ids ids) {
    constexpr const char* kName = "observe";
    const Catalog& catalog = statistics.catalog();
    require_position(catalog, position, kName);
    require(ids.shape(0) > 0, kName, "no tokens");
    require_ids(ids, catalog.first(position + 1) - catalog.first(position), kName);
    return statistics.observe(position, ids.data(), static_cast<std::int64_t>(ids.shape(0)),
                              static_cast<std::int64_t>(ids.shape(1)));
}

void expect(UseStatistics& statistics, int position, Floats1 uses) {
    const Catalog& catalog = statistics.catalog();
    require_position(catalog, position, "expect");
    require_equal(static_cast<std::int64_t>(uses.size()),
                  catalog.first(position + 1) - catalog.first(position), "expect", "number of uses");
    statistics.expect(position, uses.data());
}

// What the router saw and chose, checked against the head that multiplies it.
Routed routed_for_head(const Floats2& x, const Ids& ids, const Floats2& weights, std::int64_t num_experts,
                       const PackedMatrix& head, const char* operation) {
    const Routed routed = routed_of(x, ids, weights, num_experts, operation);
    require(routed.width + num_experts < head->cols, operation, "the head has too few columns");
    return routed;
}

void expect_from(UseStatistics& statistics, int position, Floats2 x, Ids ids, Floats2 weights,
                 const PackedMatrix& head) {
    constexpr const char* kName = "expect_from";
    const Catalog& catalog = statistics.catalog();
    require_position(catalog, position, kName);
    const std::int64_t num_experts = catalog.first(position + 1) - catalog.first(position);
    require_equal(head->rows, num_experts, kName, "number of rows of the head");
    require(x.shape(0) > 0, kName, "no tokens");
    const Routed routed = routed_for_head(x, ids, weights, num_experts, head, kName);
    nb::gil_scoped_release release;
    expect_next_use(statistics, position, routed, *head);
}

std::vector<int> layers_until(const UseStatistics& statistics, const Experts& experts) {
    require_experts(statistics.catalog(), experts, "layers_until");
    std::vector<int> layers;
    for (const int expert : experts) layers.push_back(statistics.layers_until(expert));
    return layers;
}

std::vector<double> worth(const EvictionPolicy& policy, const UseStatistics& statistics,
                          const Experts& candidates) {
    require_experts(statistics.catalog(), candidates, "worth");
    return policy.worth(statistics, candidates);
}

template <typename T, typename Value>
nb::ndarray<nb::numpy, T, nb::ndim<1>> view(std::vector<Value>& values) {
    static_assert(sizeof(T) == sizeof(Value));
    return {values.data(), {values.size()}, nb::handle()};
}

}  // namespace

void bind_experts(nb::module_& m) {
    constexpr auto kView = nb::rv_policy::reference_internal;
    nb::class_<UseStatistics>(m, "UseStatistics")
        .def(
            "__init__",
            [](UseStatistics* self, std::vector<std::int64_t> num_bytes, Experts positions, int first_step,
               double half_life_tokens) {
                new (self)
                    UseStatistics({std::move(num_bytes), std::move(positions), first_step}, half_life_tokens);
            },
            nb::arg("num_bytes"), nb::arg("positions"), nb::arg("first_step"), nb::arg("half_life_tokens"))
        .def("observe", &observe, nb::arg("position"), nb::arg("expert_ids").noconvert())
        .def("expect", &expect, nb::arg("position"), nb::arg("uses").noconvert())
        .def("expect_from", &expect_from, nb::arg("position"), nb::arg("x").noconvert(),
             nb::arg("expert_ids").noconvert(), nb::arg("weights").noconvert(), nb::arg("head"))
        .def("layers_until", &layers_until, nb::arg("experts"))
        .def("is_over", &UseStatistics::is_over, nb::arg("position"))
        .def("num_over", &UseStatistics::num_over)
        .def_prop_ro("clock", &UseStatistics::clock)
        .def_prop_ro(
            "frequency", [](UseStatistics& s) { return view<double>(s.frequency()); }, kView)
        .def_prop_ro("expected", [](UseStatistics& s) { return view<double>(s.expected()); }, kView);
    nb::class_<EvictionPolicy, PythonPolicy>(m, "EvictionPolicy")
        .def(nb::init<bool>(), nb::arg("depends_on_layer"))
        .def("worth", &worth, nb::arg("statistics"), nb::arg("candidates"));
    m.def("make_policy", &make_policy, nb::arg("name"));
    nb::class_<Residency>(m, "Residency")
        .def(nb::init<const UseStatistics&, const EvictionPolicy&, std::int64_t, double>(),
             nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::arg("statistics"), nb::arg("policy"),
             nb::arg("capacity_bytes"), nb::arg("floor_share"))
        .def(
            "take",
            [](Residency& r, int expert, bool is_demand) {
                require_expert(r.catalog(), expert, "take");
                return r.take(expert, is_demand);
            },
            nb::arg("expert"), nb::arg("is_demand"))
        .def(
            "drop",
            [](Residency& r, int expert) {
                require_expert(r.catalog(), expert, "drop");
                r.drop(expert);
            },
            nb::arg("expert"))
        .def(
            "admit",
            [](Residency& r, int expert) {
                require_expert(r.catalog(), expert, "admit");
                r.admit(expert);
            },
            nb::arg("expert"))
        .def(
            "missing",
            [](const Residency& r, const Experts& experts) {
                require_experts(r.catalog(), experts, "missing");
                return r.missing(experts);
            },
            nb::arg("experts"))
        .def(
            "pin",
            [](Residency& r, const Experts& experts) {
                require_experts(r.catalog(), experts, "pin");
                r.pin(experts, true);
            },
            nb::arg("experts"))
        .def(
            "unpin",
            [](Residency& r, const Experts& experts) {
                require_experts(r.catalog(), experts, "unpin");
                r.pin(experts, false);
            },
            nb::arg("experts"))
        .def("unpin_all", &Residency::unpin_all)
        .def(
            "reserve",
            [](Residency& r, const Experts& experts, bool is_reserved) {
                require_experts(r.catalog(), experts, "reserve");
                r.reserve(experts, is_reserved);
            },
            nb::arg("experts"), nb::arg("is_reserved"))
        .def_prop_ro("capacity_bytes", &Residency::capacity_bytes)
        .def_prop_ro("used_bytes", &Residency::used_bytes)
        .def_prop_ro("is_resident", [](Residency& r) { return view<bool>(r.residents()); }, kView);
}

}  // namespace edgemoe::bindings
