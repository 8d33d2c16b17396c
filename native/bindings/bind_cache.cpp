// The expert cache and the reads that fill it, for Python; a reader may be written in Python.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <exception>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <memory>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/routed.h"
#include "core/checksum.h"
#include "experts/expert_cache.h"
#include "experts/loads.h"
#include "io/reader.h"

namespace edgemoe::bindings {
namespace {

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
    void abandon(Ticket ticket) override {
        const nb::gil_scoped_acquire acquire;
        reader_.attr("abandon")(ticket);
    }

  private:
    nb::object reader_;
};

void require_loading(const Loads& loads, int expert, const char* operation) {
    require_expert(loads.cache().catalog(), expert, operation);
    require(loads.contains(expert), operation, "expert " + std::to_string(expert) + " is not being read");
}

void require_room(const ExpertCache& cache, int expert, bool has_room, const char* operation) {
    require_expert(cache.catalog(), expert, operation);
    require(cache.has_room(expert) == has_room, operation,
            "expert " + std::to_string(expert) + (has_room ? " has no room" : " has room already"));
}

Verify verify_named(const std::string& name) {
    if (name == "first") return Verify::kFirst;
    if (name == "always") return Verify::kAlways;
    require(name == "never", "Loads", "unknown mode " + name);
    return Verify::kNever;
}

// Compares records without the interpreter. 0: not known, the first record's is taken.
struct Checksums {
    std::shared_ptr<std::vector<std::uint64_t>> sums;

    bool operator()(int expert, const std::uint8_t* record, std::int64_t num_bytes) const {
        std::uint64_t& expected = (*sums)[static_cast<std::size_t>(expert)];
        const std::uint64_t found = checksum(record, num_bytes);
        if (expected == 0) expected = found;
        return found == expected;
    }
};

void bind_memory(nb::module_& m) {
    constexpr auto kView = nb::rv_policy::reference_internal;
    const auto buffer_of = [](ExpertCache& cache, int expert) {
        return ByteView(cache.record(expert), {static_cast<std::size_t>(cache.record_num_bytes(expert))},
                        nb::handle());
    };
    nb::class_<ExpertCache>(m, "ExpertCache", R"(Records of experts in memory. Used by one thread.

Experts are numbered by layer, then by expert. `expert in cache`: it is there; `len(cache)`: how many are. ValueError
where an expert does not fit.)")
        .def(nb::init<Residency&>(), nb::keep_alive<1, 2>(), nb::arg("residency"))
        .def(
            "reserve",
            [=](ExpertCache& cache, int expert, bool is_demand) -> std::optional<ByteView> {
                require_room(cache, expert, false, "reserve");
                if (cache.reserve(expert, is_demand) == nullptr) return std::nullopt;
                return buffer_of(cache, expert);
            },
            nb::arg("expert"), nb::arg("is_demand") = true, kView,
            "The room to load an absent expert into, evicting if need be, or None where too little may "
            "leave; then `admit`\n"
            "it, or `release` it.")
        .def(
            "admit",
            [](ExpertCache& cache, int expert) {
                require_room(cache, expert, true, "admit");
                cache.admit(expert);
            },
            nb::arg("expert"), "What was loaded into its room is the expert.")
        .def(
            "release",
            [](ExpertCache& cache, int expert) {
                require_room(cache, expert, true, "release");
                cache.release(expert);
            },
            nb::arg("expert"), "Give back its room.")
        .def(
            "record",
            [=](ExpertCache& cache, int expert) {
                require_expert(cache.catalog(), expert, "record");
                require(cache.contains(expert), "record",
                        "expert " + std::to_string(expert) + " is not in the cache");
                return buffer_of(cache, expert);
            },
            nb::arg("expert"), kView, "The record of an expert that is there.")
        .def(
            "__contains__",
            [](const ExpertCache& cache, int expert) {
                require_expert(cache.catalog(), expert, "in");
                return cache.contains(expert);
            },
            nb::arg("expert"), "Whether it is there.")
        .def(
            "__len__", [](ExpertCache& cache) { return cache.residency().num_resident(); },
            "How many are there.")
        .def_prop_ro("holds_all", &ExpertCache::holds_all, "Whether there is room for every expert.");
}

void bind_loads(nb::module_& m) {
    nb::class_<PythonReader, Reader>(
        m, "PythonReader", "A reader written in Python, with the methods of edgemoe.native.FileReader.")
        .def(nb::init<nb::object>(), nb::arg("reader"));
    nb::class_<Loads, Reads>(
        m, "Loads", R"(Brings experts from their (file, offset) `places` into the cache. Used by one thread.

`verify` is first, always or never. `checksums` are those of the records as they were written (xxh3_64), by expert, 0
where a first read has to say. `expert in loads`: it is being read. LoadFailed: storage failed repeatedly, or the record
is damaged; ValueError where an expert does not fit.)")
        .def(
            "__init__",
            [](Loads* self, ExpertCache& cache, Reader& reader,
               const std::vector<std::tuple<int, std::int64_t>>& places, const std::string& verify,
               std::vector<std::uint64_t> checksums) {
                require_equal(static_cast<std::int64_t>(checksums.size()), cache.catalog().num_experts(),
                              "Loads", "number of checksums");
                std::vector<RecordPlace> all;
                for (const auto& [file, offset] : places) all.push_back({file, offset});
                new (self)
                    Loads(cache, reader, std::move(all), verify_named(verify),
                          Checksums{std::make_shared<std::vector<std::uint64_t>>(std::move(checksums))});
            },
            nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::arg("cache"), nb::arg("reader"),
            nb::arg("places"), nb::arg("verify"), nb::arg("checksums"))
        .def_prop_ro(
            "checksums", [](const Loads& loads) { return *loads.check().target<Checksums>()->sums; },
            "What is known of them by now, by expert.")
        .def(
            "start",
            [](Loads& loads, int expert, int priority) {
                require_room(loads.cache(), expert, false, "start");
                return loads.start(expert, priority);
            },
            nb::arg("expert"), nb::arg("priority") = Loads::kDemand,
            "Queue the read of an absent expert until `begin`; False if there is no room. Priority 0 is for "
            "those needed now;\n"
            "speculation has the number of layers until it is needed.")
        .def("begin", &Loads::begin, "Start what is queued.")
        .def(
            "demand",
            [](Loads& loads, int expert) {
                require_loading(loads, expert, "demand");
                return loads.demand(expert);
            },
            nb::arg("expert"), "What is being read on speculation is needed now.")
        .def(
            "cancel",
            [](Loads& loads, int expert) {
                require_loading(loads, expert, "cancel");
                return loads.cancel(expert);
            },
            nb::arg("expert"), "Drop a read that has not started; True if so.")
        .def("poll", &Loads::poll, "Admit what has arrived.")
        .def(
            "wait",
            [](Loads& loads, const std::vector<int>& experts) {
                for (const int expert : experts) require_loading(loads, expert, "wait");
                return loads.wait(experts);
            },
            nb::arg("experts"), nb::call_guard<nb::gil_scoped_release>(),
            "Block until some of these are in the cache; returns which.")
        .def("make_room", &Loads::make_room, nb::call_guard<nb::gil_scoped_release>(),
             "Drop a read on speculation that has not started, or wait for one to end.")
        .def(
            "__contains__",
            [](const Loads& loads, int expert) {
                require_expert(loads.cache().catalog(), expert, "in");
                return loads.contains(expert);
            },
            nb::arg("expert"), "Whether it is being read.")
        .def_prop_ro("bytes_read", &Loads::bytes_read, "Bytes read so far.")
        .def_prop_ro("pending_bytes", &Loads::pending_bytes, "Bytes under way.")
        .def_prop_ro("demanded_bytes", &Loads::demanded_bytes, "Of these, those that are needed now.")
        .def_prop_ro("waited_s", &Loads::waited_s, "Seconds spent waiting so far.");
    m.attr("DEMAND_TRIES") = Loads::kDemandTries;
    static nb::object failed = nb::steal(PyErr_NewExceptionWithDoc(
        "edgemoe._native.LoadFailed",
        "(expert, reason): storage failed repeatedly; where the reason is None the record is damaged.",
        nullptr, nullptr));
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

void bind_cache(nb::module_& m) {
    bind_memory(m);
    bind_loads(m);
}

}  // namespace edgemoe::bindings
