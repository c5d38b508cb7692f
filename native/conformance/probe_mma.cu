// mma.sync: every lane brings its registers of a, b and c, and writes its registers of d.
#include "common/ptx.cuh"

// in: [32][A + B + 4] words, out: [32][4] words.
#define JMOE_PROBE(shape, Number, A, B)                                                                          \
    extern "C" __global__ void __launch_bounds__(32) probe_mma_##shape(const void* in, void* out) {              \
        const uint32_t* words = static_cast<const uint32_t*>(in) + threadIdx.x * (A + B + 4);                    \
        uint32_t a[A];                                                                                           \
        uint32_t b[B];                                                                                           \
        Number d[4];                                                                                             \
        for (int i = 0; i < A; i++) a[i] = words[i];                                                             \
        for (int i = 0; i < B; i++) b[i] = words[A + i];                                                         \
        for (int i = 0; i < 4; i++) d[i] = reinterpret_cast<const Number*>(words)[A + B + i];                    \
        ptx::mma_##shape(d, a, b);                                                                               \
        for (int i = 0; i < 4; i++) static_cast<Number*>(out)[threadIdx.x * 4 + i] = d[i];                       \
    }                                                                                                            \
    JMOE_EXPORT(probe_mma_##shape, 32, 1, 0)

JMOE_PROBE(m16n8k16_bf16, float, 4, 2);
JMOE_PROBE(m16n8k16_f16, float, 4, 2);
JMOE_PROBE(m16n8k8_bf16, float, 2, 1);
JMOE_PROBE(m16n8k8_tf32, float, 4, 2);
JMOE_PROBE(m16n8k4_tf32, float, 2, 1);
JMOE_PROBE(m16n8k32_s8, int, 4, 2);
JMOE_PROBE(m16n8k16_s8, int, 2, 1);
#if defined(JMOE_EMULATOR) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890)
JMOE_PROBE(m16n8k32_e4m3, float, 4, 2);
#endif
