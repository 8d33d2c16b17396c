// What systems do differently with memory. Implemented in linux/ and in macos/.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgemoe::platform {

// Bytes of a huge page, where the system has any.
inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Advice only: without huge pages, or where the system refuses, nothing happens.
void want_huge_pages(void* data, std::size_t num_bytes);
void avoid_huge_pages(void* data, std::size_t num_bytes);

// Child processes do not get this memory.
void keep_from_children(void* data, std::size_t num_bytes);

// Whole pages of a private mapping without a file go back to the system; zeros are there afterwards.
void give_back(void* data, std::size_t num_bytes);

// Memory that nobody uses, as far as the system can say.
std::int64_t free_memory_bytes();

// Mappings that a process may have.
std::int64_t most_mappings();

// ---- a file in memory, without a name, which takes only what is written to it ----

// Returns a descriptor, or -1 where the system has no such file.
int create_memory_file(const char* name, std::int64_t num_bytes);
// Gives pages of it back to the system; zeros are there afterwards.
void punch_memory_file(int descriptor, std::int64_t offset, std::int64_t num_bytes);
// Maps pages of it where addresses are free, or at an address in place of what is there; nullptr where it
// cannot. Pages that are only read are there already, and are looked up at once.
void* map_memory_file(int descriptor, void* address, std::size_t num_bytes, bool is_written,
                      std::int64_t offset);

}  // namespace edgemoe::platform
