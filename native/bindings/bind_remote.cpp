// Storage that is far, and what of it is near, for Python.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "io/tiered_reader.h"
#include "platform/files.h"

namespace edgemoe::bindings {
namespace {

void punch_hole_in(int descriptor, std::int64_t offset, std::int64_t num_bytes) {
    const int error = platform::punch_hole(descriptor, offset, num_bytes);
    if (error != 0) raise_os_error(error, std::strerror(error), "");
}

// File, offset, bytes and checksum.
using TierRecordTuple = std::tuple<int, std::int64_t, std::int64_t, std::uint64_t>;

void new_tiered_reader(TieredReader* self, Reader& near, Reader& far,
                       const std::vector<TierRecordTuple>& given, MutableBytes table,
                       nb::typed<nb::callable, void(int)> forget) {
    require_equal(static_cast<std::int64_t>(table.size()),
                  static_cast<std::int64_t>((1 + given.size()) * sizeof(TierEntry)), "TieredReader",
                  "bytes of the table");
    std::vector<TieredReader::Record> records;
    for (const auto& [file, offset, num_bytes, sum] : given)
        records.push_back({file, offset, num_bytes, sum});
    new (self) TieredReader(near, far, std::move(records), reinterpret_cast<TierEntry*>(table.data()),
                            [forget = std::move(forget)](int record) {
                                const nb::gil_scoped_acquire acquire;
                                forget(record);
                            });
}

void wait_tiered(TieredReader& reader, std::int64_t ticket) {
    ReadResult result;
    {
        const nb::gil_scoped_release release;
        result = reader.wait(ticket);
    }
    if (result.error != 0) raise_os_error(result.error, what_failed(result), "");
}

}  // namespace

void bind_remote(nb::module_& m) {
    m.def("punch_hole", &punch_hole_in, nb::arg("descriptor"), nb::arg("offset"), nb::arg("num_bytes"));
    const auto submit = [](TieredReader& reader, int file, std::int64_t offset, MutableBytes out,
                           int priority) {
        return reader.submit({file, offset, static_cast<std::int64_t>(out.size()), out.data()}, priority);
    };
    constexpr auto kReleased = nb::call_guard<nb::gil_scoped_release>();
    nb::class_<TieredReader, Reader>(
        m, "TieredReader",
        "A local copy that has some records, before far storage that has all; see\n"
        "edgemoe.native.TieredReader. Thread-safe.")
        .def("__init__", &new_tiered_reader, nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(),
             nb::keep_alive<1, 5>(), nb::arg("near"), nb::arg("far"), nb::arg("records"),
             nb::arg("table").noconvert(), nb::arg("forget"))
        .def("submit", submit, nb::arg("file"), nb::arg("offset"), nb::arg("out").noconvert(),
             nb::arg("priority"), "Queue a read; lower priorities go first. Returns a ticket.")
        .def("begin", &TieredReader::begin, kReleased, "Start what is queued.")
        .def("wait", &wait_tiered, nb::arg("ticket"), "Block until the read has ended. OSError: it failed.")
        .def("wait_some", &TieredReader::wait_some, nb::arg("tickets"), nb::arg("block"), kReleased,
             "Those of the tickets that have ended; while there is none, block or return none.")
        .def("cancel", &TieredReader::cancel, nb::arg("ticket"), kReleased,
             "Drop a read that has not started; True if so.")
        .def("abandon", &TieredReader::abandon, nb::arg("ticket"), kReleased,
             "Nobody wants the read any more; its destination is free afterwards.")
        .def_prop_ro("near_bytes", &TieredReader::near_bytes,
                     "Bytes of sound records that the copy has given.");
}

}  // namespace edgemoe::bindings
