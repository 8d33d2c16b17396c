// The expert cache, its reads and the layers that run from it, for Python. A layer runs without the GIL and
// takes it for what is written in Python: readers, checks, reading ahead, observers.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/packed_matrix.h"
#include "bindings/routed.h"
#include "experts/arena.h"
#include "experts/expert_cache.h"
#include "experts/loads.h"
#include "experts/stream.h"
#include "io/reader.h"

namespace edgemoe::bindings {
namespace {

using Experts = std::vector<int>;
using ByteView = nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>;

// A view of memory that outlives it.
nb::object view_of(std::uint8_t* data, std::int64_t num_bytes) {
    return nb::cast(ByteView(data, {static_cast<std::size_t>(num_bytes)}, nb::handle()),
                    nb::rv_policy::reference);
}

// A reader written in Python.
class PythonReader : public Reader {
  public:
    explicit PythonReader(nb::object reader) : reader_(std::move(reader)) {}

    Ticket submit(const ReadRequest& request, int priority) override {
        const nb::gil_scoped_acquire acquire;
        const nb::object out = view_of(request.destination, request.num_bytes);
        return nb::cast<Ticket>(reader_.attr("submit")(request.file, request.offset, out, priority));
    }
    void begin() override {
        const nb::gil_scoped_acquire acquire;
        reader_.attr("begin")();
    }
    ReadResult wait(Ticket ticket) override {
        const nb::gil_scoped_acquire acquire;
        ReadResult result;
        try {
            reader_.attr("wait")(ticket);
        } catch (nb::python_error& error) {
            if (!error.matches(PyExc_OSError)) throw;
            result.error = nb::cast<int>(error.value().attr("errno"));
        }
        return result;
    }
    std::vector<Ticket> wait_some(const std::vector<Ticket>& tickets, bool block) override {
        const nb::gil_scoped_acquire acquire;
        return nb::cast<std::vector<Ticket>>(reader_.attr("wait_some")(tickets, block));
    }
    bool cancel(Ticket ticket) override {
        const nb::gil_scoped_acquire acquire;
        return nb::cast<bool>(reader_.attr("cancel")(ticket));
    }

  private:
    nb::object reader_;
};

// Speculation as it is written in Python, and what it is shown of the layer that runs.
class PythonAhead : public Ahead {
  public:
    PythonAhead(nb::object speculation, nb::object x, nb::object ids, nb::object weights)
        : speculation_(std::move(speculation)),
          x_(std::move(x)),
          ids_(std::move(ids)),
          weights_(std::move(weights)) {}

    Experts settle(int position, std::int64_t num_tokens, const Experts& chosen) override {
        const nb::gil_scoped_acquire acquire;
        Experts preloaded;
        const nb::object useful = speculation_.attr("settle")(position, num_tokens, chosen);
        for (const nb::handle expert : useful) preloaded.push_back(nb::cast<int>(expert));
        return preloaded;
    }
    void start(int position) override {
        const nb::gil_scoped_acquire acquire;
        speculation_.attr("start")(position, x_, ids_, weights_);
    }

  private:
    nb::object speculation_, x_, ids_, weights_;
};

Verify verify_named(const std::string& name) {
    if (name == "first") return Verify::kFirst;
    if (name == "always") return Verify::kAlways;
    require(name == "never", "Loads", "unknown mode " + name);
    return Verify::kNever;
}

Loads::Check check_of(nb::callable is_sound) {
    return [is_sound](int expert, const std::uint8_t* record, std::int64_t num_bytes) {
        const nb::gil_scoped_acquire acquire;
        return nb::cast<bool>(is_sound(expert, view_of(const_cast<std::uint8_t*>(record), num_bytes)));
    };
}

// Format of the gate or none, of up and of down; D and F.
using LayoutTuple =
    std::tuple<std::optional<std::string>, std::string, std::string, std::int64_t, std::int64_t>;

RecordLayout layout_of(const LayoutTuple& given) {
    const auto& [gate, up, down, width, expert_width] = given;
    check_shape("ExpertStream", expert_width, width);
    check_shape("ExpertStream", width, expert_width);
    const Format format_up = format_named(up);
    return {gate.has_value(),
            {gate ? format_named(*gate) : format_up, format_up, format_named(down)},
            width,
            expert_width};
}

std::int64_t needed_bytes(const RecordLayout& layout) {
    const auto [gate, up, down] = layout.formats;
    const std::int64_t width = layout.width, inner = layout.expert_width;
    return (layout.has_gate ? packed_bytes(gate, inner, width) : 0) + packed_bytes(up, inner, width) +
           packed_bytes(down, width, inner);
}

using LayerTuple = std::tuple<std::string, const PackedMatrix*>;

void check_signals() {
    const nb::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

void new_stream(ExpertStream* self, UseStatistics& statistics, ExpertCache& cache, Loads& loads,
                const std::vector<LayoutTuple>& layouts, const std::vector<LayerTuple>& layers,
                bool swaps_layers) {
    constexpr const char* kName = "ExpertStream";
    const Catalog& catalog = cache.catalog();
    require_equal(static_cast<std::int64_t>(layouts.size()), catalog.num_experts(), kName,
                  "number of layouts");
    require_equal(static_cast<std::int64_t>(layers.size()), catalog.num_layers(), kName, "number of layers");
    std::vector<RecordLayout> records;
    for (const LayoutTuple& given : layouts) {
        records.push_back(layout_of(given));
        const int expert = static_cast<int>(records.size()) - 1;
        require(needed_bytes(records.back()) <= cache.record_num_bytes(expert), kName,
                "the record of expert " + std::to_string(expert) + " is too small");
    }
    std::vector<ExpertStream::Layer> heads;
    for (const auto& [activation, head] : layers) {
        heads.push_back({activation_named(activation), head != nullptr ? &**head : nullptr});
        const int position = static_cast<int>(heads.size()) - 1;
        if (head == nullptr) continue;
        require_equal((*head)->rows, catalog.first(position + 1) - catalog.first(position), kName,
                      "number of rows of a head");
        require(
            records[static_cast<std::size_t>(catalog.first(position))].width + (*head)->rows < (*head)->cols,
            kName, "a head has too few columns");
    }
    new (self) ExpertStream(statistics, cache, loads, std::move(records), std::move(heads),
                            {swaps_layers, check_signals});
}

void run(ExpertStream& stream, int position, nb::object x, nb::object ids, nb::object weights,
         MutableFloats2 out, nb::object ahead, nb::object observe) {
    constexpr const char* kName = "run";
    const auto states = nb::cast<Floats2>(x, false);
    const auto chosen = nb::cast<Ids>(ids, false);
    const auto shares = nb::cast<Floats2>(weights, false);
    require(position >= 0 && position < stream.catalog().num_layers(), kName, "no layer at this position");
    const int first = stream.catalog().first(position);
    const std::int64_t num_experts = stream.catalog().first(position + 1) - first;
    const Routed routed = routed_of(states, chosen, shares, num_experts, kName);
    require(routed.num_tokens > 0 && routed.top_k > 0, kName, "no tokens");
    require_equal(routed.width, stream.width(position), kName, "input row length");
    require_equal(static_cast<std::int64_t>(out.shape(0)), routed.num_tokens, kName, "number of output rows");
    require_equal(static_cast<std::int64_t>(out.shape(1)), routed.width, kName, "output row length");
    std::optional<PythonAhead> adapter;
    if (!ahead.is_none()) adapter.emplace(std::move(ahead), std::move(x), std::move(ids), std::move(weights));
    std::function<void(const LayerEvent&)> observer;
    if (!observe.is_none()) {
        observer = [&observe](const LayerEvent& event) {
            const nb::gil_scoped_acquire acquire;
            observe(event.hits, event.misses, event.preloaded);
        };
    }
    const nb::gil_scoped_release release;
    stream.run(position, routed, out.data(), adapter ? &*adapter : nullptr, observer);
}

void bind_cache(nb::module_& m) {
    constexpr auto kView = nb::rv_policy::reference_internal;
    nb::class_<SlotArena>(m, "SlotArena")
        .def(nb::init<std::int64_t, const std::vector<std::int64_t>&>(), nb::arg("capacity_bytes"),
             nb::arg("record_sizes"))
        .def("take", &SlotArena::take, nb::arg("num_bytes"))
        .def("give", &SlotArena::give, nb::arg("slot"))
        .def(
            "buffer",
            [](SlotArena& arena, int slot, std::int64_t num_bytes) {
                require(slot >= 0 && slot < arena.num_slots(), "buffer", "no such slot");
                return ByteView(arena.data(slot), {static_cast<std::size_t>(num_bytes)}, nb::handle());
            },
            nb::arg("slot"), nb::arg("num_bytes"), kView)
        .def("slot_num_bytes", &SlotArena::slot_num_bytes, nb::arg("num_bytes"))
        .def_prop_ro("touched_bytes", &SlotArena::touched_bytes);
    const auto buffer_of = [](ExpertCache& cache, int expert) {
        return ByteView(cache.record(expert), {static_cast<std::size_t>(cache.record_num_bytes(expert))},
                        nb::handle());
    };
    nb::class_<ExpertCache>(m, "ExpertCache")
        .def(nb::init<Residency&, SlotArena&, std::vector<std::int64_t>>(), nb::keep_alive<1, 2>(),
             nb::keep_alive<1, 3>(), nb::arg("residency"), nb::arg("arena"), nb::arg("record_sizes"))
        .def(
            "reserve",
            [=](ExpertCache& cache, int expert, bool is_demand) -> std::optional<ByteView> {
                require_expert(cache.catalog(), expert, "reserve");
                if (cache.reserve(expert, is_demand) == nullptr) return std::nullopt;
                return buffer_of(cache, expert);
            },
            nb::arg("expert"), nb::arg("is_demand") = true, kView)
        .def(
            "admit",
            [](ExpertCache& cache, int expert) {
                require_expert(cache.catalog(), expert, "admit");
                cache.admit(expert);
            },
            nb::arg("expert"))
        .def(
            "release",
            [](ExpertCache& cache, int expert) {
                require_expert(cache.catalog(), expert, "release");
                cache.release(expert);
            },
            nb::arg("expert"))
        .def(
            "record",
            [=](ExpertCache& cache, int expert) {
                require_expert(cache.catalog(), expert, "record");
                require(cache.contains(expert), "record",
                        "expert " + std::to_string(expert) + " is not in the cache");
                return buffer_of(cache, expert);
            },
            nb::arg("expert"), kView)
        .def("__contains__", &ExpertCache::contains, nb::arg("expert"))
        .def("__len__", [](ExpertCache& cache) { return cache.residency().num_resident(); })
        .def_prop_ro("holds_all", &ExpertCache::holds_all);
}

void bind_loads(nb::module_& m) {
    nb::class_<PythonReader, Reader>(m, "PythonReader").def(nb::init<nb::object>(), nb::arg("reader"));
    nb::class_<Loads>(m, "Loads")
        .def(
            "__init__",
            [](Loads* self, ExpertCache& cache, Reader& reader,
               const std::vector<std::tuple<int, std::int64_t>>& places, const std::string& verify,
               nb::callable is_sound) {
                std::vector<RecordPlace> all;
                for (const auto& [file, offset] : places) all.push_back({file, offset});
                new (self)
                    Loads(cache, reader, std::move(all), verify_named(verify), check_of(std::move(is_sound)));
            },
            nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::arg("cache"), nb::arg("reader"),
            nb::arg("places"), nb::arg("verify"), nb::arg("is_sound"))
        .def("start", &Loads::start, nb::arg("expert"), nb::arg("priority") = Loads::kDemand)
        .def("begin", &Loads::begin)
        .def("demand", &Loads::demand, nb::arg("expert"))
        .def("cancel", &Loads::cancel, nb::arg("expert"))
        .def("poll", &Loads::poll)
        .def("wait", &Loads::wait, nb::arg("experts"), nb::call_guard<nb::gil_scoped_release>())
        .def("make_room", &Loads::make_room, nb::call_guard<nb::gil_scoped_release>())
        .def("__contains__", &Loads::contains, nb::arg("expert"))
        .def_prop_ro("bytes_read", &Loads::bytes_read)
        .def_prop_ro("pending_bytes", &Loads::pending_bytes)
        .def_prop_ro("demanded_bytes", &Loads::demanded_bytes)
        .def_prop_ro("waited_s", &Loads::waited_s);
    m.attr("DEMAND_TRIES") = Loads::kDemandTries;
    static nb::object failed = nb::steal(PyErr_NewException("edgemoe._native.LoadFailed", nullptr, nullptr));
    m.attr("LoadFailed") = failed;
    nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
        try {
            std::rethrow_exception(thrown);
        } catch (const LoadFailed& error) {
            const bool is_damaged = error.result.error == 0;
            const nb::object text = is_damaged ? nb::none() : nb::object(nb::cast(what_failed(error.result)));
            PyErr_SetObject(failed.ptr(), nb::make_tuple(error.expert, text).ptr());
        }
    });
}

}  // namespace

void bind_streaming(nb::module_& m) {
    bind_cache(m);
    bind_loads(m);
    nb::class_<ExpertStream>(m, "ExpertStream")
        .def("__init__", &new_stream, nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(),
             nb::keep_alive<1, 6>(), nb::arg("statistics"), nb::arg("cache"), nb::arg("loads"),
             nb::arg("layouts"), nb::arg("layers"), nb::arg("swaps_layers"))
        .def("run", &run, nb::arg("position"), nb::arg("x"), nb::arg("expert_ids"), nb::arg("weights"),
             nb::arg("out").noconvert(), nb::arg("ahead").none(), nb::arg("observe").none())
        .def_prop_ro("num_hits", &ExpertStream::num_hits)
        .def_prop_ro("num_misses", &ExpertStream::num_misses);
}

}  // namespace edgemoe::bindings
