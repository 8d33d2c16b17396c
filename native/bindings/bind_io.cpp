// Readers and buffers for Python. Failures become OSError(errno, text, path).
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <system_error>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/packed_matrix.h"
#include "core/aligned_buffer.h"
#include "core/read_memory.h"
#include "io/file_reader.h"
#include "io/packing_reader.h"
#include "kernels/exact_blocks.h"

namespace edgemoe::bindings {

// Paths are bytes: in which letters Python shows them is up to its locale.
void raise_os_error(int error, const std::string& text, const std::string& path) {
    const nb::object name = nb::steal(PyUnicode_DecodeFSDefaultAndSize(path.data(), std::ssize(path)));
    const nb::object kind = nb::module_::import_("builtins").attr("OSError");
    const nb::object exception = path.empty() ? kind(error, text) : kind(error, text, name);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
    throw nb::python_error();
}

namespace {

const std::map<std::string, ReadMethod> kMethods = {
    {"ring", ReadMethod::kRing}, {"direct", ReadMethod::kDirect}, {"buffered", ReadMethod::kBuffered}};

nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>> aligned_empty(std::size_t num_bytes) {
    auto* buffer = new AlignedBuffer(num_bytes);
    nb::capsule owner(buffer, [](void* p) noexcept { delete static_cast<AlignedBuffer*>(p); });
    return {buffer->data(), {num_bytes}, owner};
}

[[noreturn]] void raise_system_error(const std::system_error& error) {
    const int code = error.code().value();
    const std::string what = error.what();
    raise_os_error(code, std::strerror(code), what.substr(0, what.rfind(": ")));
}

ReadMethod method_named(const std::string& name) {
    const auto found = kMethods.find(name);
    require(found != kMethods.end(), "open_files", "no method " + name);
    return found->second;
}

std::vector<std::string> paths_of(const std::vector<nb::bytes>& names) {
    std::vector<std::string> paths;
    for (const nb::bytes& name : names) paths.emplace_back(name.c_str(), name.size());
    return paths;
}

std::unique_ptr<FileReader> open_files_of(const std::string& method, const std::vector<nb::bytes>& names,
                                          int max_depth, double bytes_per_s, double latency_s) {
    try {
        return open_files(method_named(method), paths_of(names), max_depth, {bytes_per_s, latency_s});
    } catch (const std::system_error& error) {
        raise_system_error(error);
    }
}

// File, offset, format, rows, columns.
using SliceTuple = std::tuple<int, std::int64_t, std::string, std::int64_t, std::int64_t>;

using RecordTuple = std::tuple<std::int64_t, std::vector<SliceTuple>>;

BlockRecords records_of(const std::vector<RecordTuple>& given, std::size_t num_files) {
    constexpr const char* kName = "open_block_files";
    BlockRecords records;
    for (const auto& [place, slices] : given) {
        require(records.empty() || records.back().offset < place, kName, "records are not in their order");
        records.push_back({place, {}});
        for (const auto& [file, offset, format, rows, cols] : slices) {
            const Format f = format_named(format);
            require(file >= 0 && static_cast<std::size_t>(file) < num_files, kName, "no such file");
            require(offset >= 0, kName, "negative offset");
            require(packs_rows(f), kName, "format " + format + " has no rows of GGUF");
            check_shape(kName, rows, cols, f);
            records.back().slices.push_back({file, offset, f, rows, cols});
        }
    }
    return records;
}

std::unique_ptr<FileReader> open_block_files(const std::string& method, const std::vector<nb::bytes>& names,
                                             const std::vector<RecordTuple>& records, int max_depth,
                                             double bytes_per_s, double latency_s) {
    BlockRecords checked = records_of(records, names.size());
    try {
        return std::make_unique<PackingReader>(method_named(method), paths_of(names), std::move(checked),
                                               max_depth, Pace{bytes_per_s, latency_s});
    } catch (const std::system_error& error) {
        raise_system_error(error);
    }
}

std::int64_t submit(FileReader& reader, int file, std::int64_t offset, MutableBytes out, int priority) {
    const auto num_bytes = static_cast<std::int64_t>(out.size());
    require(file >= 0 && file < reader.num_files(), "submit", "no file number " + std::to_string(file));
    require(offset >= 0, "submit", "negative offset");
    if (reader.is_direct()) {
        const auto address = reinterpret_cast<std::uintptr_t>(out.data());
        require(offset % kDirectAlignment == 0 && num_bytes % kDirectAlignment == 0 &&
                    address % kDirectAlignment == 0,
                "submit", "offset, length and address of a direct read must be multiples of 4096");
    }
    return reader.submit({file, offset, num_bytes, out.data()}, priority);
}

std::uint64_t read_memory_of(Array<const std::uint64_t, nb::ndim<1>> words) {
    nb::gil_scoped_release release;
    return read_memory(words.data(), static_cast<std::int64_t>(words.size()));
}

void wait(FileReader& reader, std::int64_t ticket) {
    ReadResult result;
    {
        nb::gil_scoped_release release;
        result = reader.wait(ticket);
    }
    if (result.error == 0) return;
    const ReadRequest& r = result.request;
    raise_os_error(result.error,
                   what_failed(result) + " while reading " + std::to_string(r.num_bytes) +
                       " bytes at offset " + std::to_string(r.offset),
                   reader.path(r.file));
}

}  // namespace

void bind_io(nb::module_& m) {
    m.attr("DIRECT_ALIGNMENT") = kDirectAlignment;
    m.def("aligned_empty", &aligned_empty, nb::arg("num_bytes"));
    m.def("read_memory", &read_memory_of, nb::arg("words").noconvert());
    m.def("open_files", &open_files_of, nb::arg("method"), nb::arg("paths"), nb::arg("max_depth"),
          nb::arg("bytes_per_s"), nb::arg("latency_s"));
    m.def("open_block_files", &open_block_files, nb::arg("method"), nb::arg("paths"), nb::arg("records"),
          nb::arg("max_depth"), nb::arg("bytes_per_s"), nb::arg("latency_s"));
    nb::class_<Reader>(m, "Reader",
                       "Whatever reads records: files, a tier before far storage, or PythonReader.");
    nb::class_<FileReader, Reader>(
        m, "FileReader", "Reads of files, queued by priority; see edgemoe.native.FileReader. Thread-safe.")
        .def("submit", &submit, nb::arg("file"), nb::arg("offset"), nb::arg("out").noconvert(),
             nb::arg("priority"),
             "Queue a read into `out`, which must stay until it has ended; lower priorities go first. "
             "Returns a ticket.")
        .def("begin", &FileReader::begin, "Start what is queued.")
        .def("wait", &wait, nb::arg("ticket"), "Block until the read has ended. OSError: it failed.")
        .def("wait_some", &FileReader::wait_some, nb::arg("tickets"), nb::arg("block"),
             nb::call_guard<nb::gil_scoped_release>(),
             "Those of the tickets that have ended; while there is none, block or return none.")
        .def("set_depth", &FileReader::set_depth, nb::arg("depth"),
             "Reads served at a time, from 1 to what it was opened with.")
        .def("cancel", &FileReader::cancel, nb::arg("ticket"),
             "Drop a read that has not started; True if so.")
        .def("close", &FileReader::close, nb::call_guard<nb::gil_scoped_release>(),
             "Drop what is queued, finish what is being read, close the files. Later calls do nothing.");
}

}  // namespace edgemoe::bindings
