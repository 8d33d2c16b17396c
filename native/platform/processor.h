// What systems say of processors. Implemented in linux/ and in macos/.
#pragma once

namespace edgemoe::platform {

// Logical processors that this process may use.
int usable_processors();

// Of 64-bit ARM; false elsewhere.
bool has_dot_product();    // FEAT_DotProd
bool has_int8_products();  // FEAT_I8MM

// Asks for the state that AMX's tiles have in each thread; whether this process may use them.
bool is_granted_tiles();

}  // namespace edgemoe::platform
