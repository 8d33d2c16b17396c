// AVX-VNNI, which processors of laptops have without AVX-512: as AVX2, but one instruction for the dot
// product of a quad of columns. EDGEMOE_AVXVNNI_BY_AVX512 takes AVX-512's instruction of the same width and
// meaning, so that these kernels can be tested and timed on processors that have only that.
#ifdef EDGEMOE_AVXVNNI_BY_AVX512
#define EDGEMOE_DPBUSD_256 _mm256_dpbusd_epi32
#else
#define EDGEMOE_DPBUSD_256 _mm256_dpbusd_avx_epi32
#endif
#include "kernels/avx2.cpp"
