// Lanes of two vectors in a new order, given by their numbers through both.
#pragma once

#if defined(__clang__) || __GNUC__ >= 12
#define EDGEMOE_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define EDGEMOE_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype((a) < (b)){__VA_ARGS__})
#endif
