// Array argument types and shape checks shared by the bindings.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace edgemoe::bindings {

namespace nb = nanobind;

template <typename T, typename Shape>
using Array = nb::ndarray<T, Shape, nb::c_contig, nb::device::cpu>;
using Bytes = Array<const std::uint8_t, nb::ndim<1>>;
using MutableBytes = Array<std::uint8_t, nb::ndim<1>>;
using Floats1 = Array<const float, nb::ndim<1>>;
using Floats2 = Array<const float, nb::ndim<2>>;
using Floats3 = Array<const float, nb::ndim<3>>;
using MutableFloats1 = Array<float, nb::ndim<1>>;
using MutableFloats2 = Array<float, nb::ndim<2>>;
using MutableFloats3 = Array<float, nb::ndim<3>>;

// As the core counts.
template <typename A>
std::int64_t size(const A& array, std::size_t axis) {
    return static_cast<std::int64_t>(array.shape(axis));
}

// An array for a call into Python, which may keep nothing of it.
template <typename T>
nb::object view_of(const T* data, std::int64_t rows, std::int64_t cols) {
    using View = nb::ndarray<nb::numpy, const T, nb::ndim<2>>;
    const std::size_t shape[] = {static_cast<std::size_t>(rows), static_cast<std::size_t>(cols)};
    return nb::cast(View(data, 2, shape, nb::handle()), nb::rv_policy::reference);
}

// An array that Python may keep.
template <typename T>
nb::ndarray<nb::numpy, T, nb::ndim<2>> array_of(std::vector<T> values, std::int64_t rows, std::int64_t cols) {
    auto* kept = new std::vector<T>(std::move(values));
    const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    const std::size_t shape[] = {static_cast<std::size_t>(rows), static_cast<std::size_t>(cols)};
    return nb::ndarray<nb::numpy, T, nb::ndim<2>>(kept->data(), 2, shape, owner);
}

// Raises ValueError "operation: message" in Python.
inline void require(bool holds, const char* operation, const std::string& message) {
    if (!holds) throw std::invalid_argument(std::string(operation) + ": " + message);
}

inline void require_equal(std::int64_t actual, std::int64_t expected, const char* operation,
                          const char* what) {
    require(actual == expected, operation,
            std::string(what) + " is " + std::to_string(actual) + ", expected " + std::to_string(expected));
}

}  // namespace edgemoe::bindings
