// ldmatrix. Lane i points at row i of [32] rows of eight 16-bit elements.
#include "common/ptx.cuh"

// in: [32][8] halves, out: [32][COUNT] words, the registers of each lane.
#define JMOE_PROBE(form, COUNT)                                                                                  \
    extern "C" __global__ void __launch_bounds__(32) probe_ldmatrix_##form(const void* in, void* out) {          \
        JMOE_SHARED(uint4, rows, [32]);                                                                          \
        rows[threadIdx.x] = static_cast<const uint4*>(in)[threadIdx.x];                                          \
        __syncthreads();                                                                                         \
        uint32_t matrices[COUNT];                                                                                \
        ptx::ldmatrix_##form(matrices, ptx::shared_address(&rows[threadIdx.x]));                                 \
        for (int i = 0; i < COUNT; i++) static_cast<uint32_t*>(out)[threadIdx.x * COUNT + i] = matrices[i];      \
    }                                                                                                            \
    JMOE_EXPORT(probe_ldmatrix_##form, 32, 1, 0)

JMOE_PROBE(x1, 1);
JMOE_PROBE(x2, 2);
JMOE_PROBE(x4, 4);
JMOE_PROBE(x1_trans, 1);
JMOE_PROBE(x2_trans, 2);
JMOE_PROBE(x4_trans, 4);
