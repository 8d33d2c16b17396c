// Sums of VNNI for 16 rows a vector. Included textually after avx512.h.

inline I add_dots(I sum, I w, I x) { return _mm512_dpbusd_epi32(sum, w, x); }
inline I add_lanes(I a, I b) { return _mm512_add_epi32(a, b); }

#include "kernels/vnni_sums.h"
