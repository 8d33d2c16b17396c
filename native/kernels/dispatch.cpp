// Chooses the instruction set once; EDGEMOE_ISA forces one and fails loudly.
#if defined(EDGEMOE_HAVE_AMX) && !defined(EDGEMOE_AMX_BY_AVX512)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels/kernels.h"
#include "platform/processor.h"

namespace edgemoe {
namespace {

#ifdef EDGEMOE_HAVE_AVX2
bool runs_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#endif
#ifdef EDGEMOE_HAVE_AVXVNNI
bool runs_avxvnni() {
#ifdef EDGEMOE_AVXVNNI_BY_AVX512
    return runs_avx2() && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#else
    return runs_avx2() && __builtin_cpu_supports("avxvnni");
#endif
}
#endif
#ifdef EDGEMOE_HAVE_AVX512BW
bool runs_avx512bw() {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif
#ifdef EDGEMOE_HAVE_AVX512
bool runs_avx512() { return runs_avx512bw() && __builtin_cpu_supports("avx512vnni"); }
#endif
#ifdef EDGEMOE_HAVE_AVX512VBMI
bool runs_avx512vbmi() { return runs_avx512() && __builtin_cpu_supports("avx512vbmi"); }
#endif
#ifdef EDGEMOE_AMX_BY_AVX512
bool runs_amx() { return runs_avx512vbmi(); }
#elif defined(EDGEMOE_HAVE_AMX)
bool has_amx() {
    constexpr unsigned kTilesAndInt8 = 1u << 24 | 1u << 25;
    unsigned eax, ebx, ecx, edx = 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kTilesAndInt8) == kTilesAndInt8;
}
bool runs_amx() {
    static const bool runs = runs_avx512vbmi() && has_amx() && platform::is_granted_tiles();
    return runs;
}
#endif
#ifdef EDGEMOE_HAVE_NEON
bool runs_neon() { return platform::has_dot_product(); }
#endif
#ifdef EDGEMOE_HAVE_I8MM
bool runs_i8mm() { return runs_neon() && platform::has_int8_products(); }
#endif

const Kernels* find(const std::string& name) {
    std::string names;
    for (const Kernels* kernels : available_kernels()) {
        if (name == kernels->name) return kernels;
        names += names.empty() ? kernels->name : std::string(", ") + kernels->name;
    }
    throw std::runtime_error("instruction set '" + name +
                             "' was not built or does not run on this machine; available: " + names);
}

std::atomic<const Kernels*> active{nullptr};

}  // namespace

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> found = {scalar_kernels()};
#ifdef EDGEMOE_HAVE_AVX2
    if (runs_avx2()) found.push_back(avx2_kernels());
#endif
#ifdef EDGEMOE_HAVE_AVXVNNI
    if (runs_avxvnni()) found.push_back(avxvnni_kernels());
#endif
#ifdef EDGEMOE_HAVE_AVX512BW
    if (runs_avx512bw()) found.push_back(avx512bw_kernels());
#endif
#ifdef EDGEMOE_HAVE_AVX512
    if (runs_avx512()) found.push_back(avx512_kernels());
#endif
#ifdef EDGEMOE_HAVE_AVX512VBMI
    if (runs_avx512vbmi()) found.push_back(avx512vbmi_kernels());
#endif
#ifdef EDGEMOE_HAVE_AMX
    if (runs_amx()) found.push_back(amx_kernels());
#endif
#ifdef EDGEMOE_HAVE_NEON
    if (runs_neon()) found.push_back(neon_kernels());
#endif
#ifdef EDGEMOE_HAVE_I8MM
    if (runs_i8mm()) found.push_back(i8mm_kernels());
#endif
    return found;
}

const Kernels& active_kernels() {
    const Kernels* kernels = active.load(std::memory_order_acquire);
    if (kernels == nullptr) {
        const char* forced = std::getenv("EDGEMOE_ISA");
        kernels = forced != nullptr && *forced != '\0' ? find(forced) : available_kernels().back();
        active.store(kernels, std::memory_order_release);
    }
    return *kernels;
}

void force_kernels(const char* name) { active.store(find(name), std::memory_order_release); }

}  // namespace edgemoe
