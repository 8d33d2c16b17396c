// A packed matrix as Python holds it, shared by the bindings.
#pragma once

#include <cstdio>
#include <string>
#include <utility>

#include "bindings/arrays.h"
#include "kernels/kernels.h"

namespace edgemoe::bindings {

inline Format format_named(const std::string& name) {
    for (int f = 0; f < kNumFormats; ++f) {
        if (name == kFormats[f].name) return static_cast<Format>(f);
    }
    throw std::invalid_argument("unknown format '" + name + "'");
}

inline Activation activation_named(const std::string& name) {
    if (name == "silu") return Activation::kSilu;
    if (name == "gelu") return Activation::kGelu;
    if (name == "gelu_tanh") return Activation::kGeluTanh;
    if (name == "relu") return Activation::kRelu;
    if (name == "relu2") return Activation::kRelu2;
    float gate_limit = 0, limit = 0, alpha = 0, raise = 0;
    if (std::sscanf(name.c_str(), "clamped_swiglu:%f:%f", &limit, &alpha) == 2) {
        return {Activation::kClampedSwiglu, limit, limit, alpha, 1};
    }
    if (std::sscanf(name.c_str(), "clamped_glu:%f:%f:%f:%f", &gate_limit, &limit, &alpha, &raise) == 4) {
        return {Activation::kClampedSwiglu, gate_limit, limit, alpha, raise};
    }
    if (std::sscanf(name.c_str(), "capped_swiglu:%f:%f", &gate_limit, &limit) == 2) {
        return {Activation::kCappedSwiglu, gate_limit, limit};
    }
    throw std::invalid_argument("unknown activation '" + name +
                                "'; known: silu, gelu, gelu_tanh, relu, relu2, clamped_swiglu:limit:alpha, "
                                "clamped_glu:gate_limit:limit:alpha:raise, capped_swiglu:gate_cap:cap");
}

// An activation of single values, without a gate.
inline Activation of_one(const std::string& name, const char* operation) {
    const Activation found = activation_named(name);
    require(!found.needs_gate(), operation, "this activation takes a gate");
    return found;
}

inline void check_shape(const char* operation, std::int64_t rows, std::int64_t cols,
                        std::int64_t block_cols = kBlock) {
    require(rows > 0, operation, "a matrix needs at least one row");
    require(cols > 0 && cols % block_cols == 0, operation,
            "row length " + std::to_string(cols) + " is not a multiple of " + std::to_string(block_cols));
}

inline void check_shape(const char* operation, std::int64_t rows, std::int64_t cols, Format format) {
    check_shape(operation, rows, cols, std::int64_t{traits(format).block_cols});
}

// A matrix as Python holds it: checked once, and then passed without looking at it again.
class PackedMatrix {
  public:
    PackedMatrix(nb::object packed, const std::string& format, std::int64_t rows, std::int64_t cols)
        : packed_(std::move(packed)) {
        const Format f = format_named(format);
        check_shape("Matrix", rows, cols, f);
        const auto bytes = nb::cast<Bytes>(packed_, false);
        require_equal(static_cast<std::int64_t>(bytes.size()), packed_bytes(f, rows, cols), "Matrix",
                      "number of packed bytes");
        matrix_ = {bytes.data(), f, rows, cols};
    }

    const Matrix& operator*() const { return matrix_; }
    const Matrix* operator->() const { return &matrix_; }
    nb::object packed() const { return packed_; }

  private:
    nb::object packed_;  // the array that holds the bytes
    Matrix matrix_;
};

// A matrix that is an argument, for whoever keeps the object itself.
using GivenMatrix = nb::handle_t<PackedMatrix>;

inline const Matrix& matrix_of(const GivenMatrix& given) { return *nb::cast<const PackedMatrix&>(given); }

}  // namespace edgemoe::bindings
