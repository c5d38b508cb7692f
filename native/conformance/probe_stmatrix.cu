// stmatrix. Lane i points at row i of [32] rows of eight 16-bit elements.
#include "common/ptx.cuh"

#ifdef JMOE_SM90
#define JMOE_BODY(...) __VA_ARGS__
#else
#define JMOE_BODY(...)
#endif

// in: [32][COUNT] words, the registers of each lane, out: [32][8] halves; 0xffff where nothing was stored.
#define JMOE_PROBE(form, COUNT)                                                                                   \
    extern "C" __global__ void __launch_bounds__(32) probe_stmatrix_##form(const void* in, void* out) {           \
        JMOE_BODY(JMOE_SHARED(uint4, rows, [32]);                                                                 \
                  rows[threadIdx.x] = make_uint4(~0u, ~0u, ~0u, ~0u);                                             \
                  uint32_t matrices[COUNT];                                                                       \
                  for (int i = 0; i < COUNT; i++) matrices[i] =                                                   \
                      static_cast<const uint32_t*>(in)[threadIdx.x * COUNT + i];                                  \
                  __syncthreads();                                                                                \
                  ptx::stmatrix_##form(ptx::shared_address(&rows[threadIdx.x]), matrices);                        \
                  __syncthreads();                                                                                \
                  static_cast<uint4*>(out)[threadIdx.x] = rows[threadIdx.x];)                                     \
    }                                                                                                             \
    JMOE_EXPORT(probe_stmatrix_##form, 32, 1, 0)

JMOE_PROBE(x1, 1);
JMOE_PROBE(x2, 2);
JMOE_PROBE(x4, 4);
JMOE_PROBE(x1_trans, 1);
JMOE_PROBE(x2_trans, 2);
JMOE_PROBE(x4_trans, 4);
