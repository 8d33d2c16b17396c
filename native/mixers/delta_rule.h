// What delta nets have in common: a matrix a head that forgets, and that each token writes to and reads from.
// Letters: T rows of one text, Hk key heads, Dk and Dv the dimensions of keys and values.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/kernels.h"

namespace edgemoe {

// Channels of a row: queries and keys of Hk heads, then whatever follows.
struct DeltaChannels {
    std::int64_t num_channels;   // of a row
    std::int64_t num_key_heads;  // Hk
    std::int64_t key_dim;        // Dk
    Activation activation;
};

// mixed [T][num_channels] passes the activation; then queries get the length Dk^-0.5, keys 1.
void activate_channels(const DeltaChannels& channels, std::int64_t num_rows, float* mixed);

// One token of one head.
struct DeltaToken {
    const float* query;   // [Dk]
    const float* key;     // [Dk]
    const float* value;   // [Dv]
    const float* decays;  // [Dk]
    float beta;
    float* out;  // [Dv]
};

// Tokens after each other: each row of state [Dk][Dv] decays by its own factor; what the key finds in it is
// brought towards the value, by the share `beta`; the query reads.
void delta_steps(std::span<const DeltaToken> tokens, std::int64_t key_dim, std::int64_t value_dim,
                 float* state);

}  // namespace edgemoe
