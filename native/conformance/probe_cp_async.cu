// cp.async: thread i copies source_bytes[i] bytes of its BYTES and zero-fills the rest.
#include "common/ptx.cuh"

// in: [32] words of source_bytes, then [32][16] bytes of data. out: [32][16] bytes, 0xee where nothing was written.
#define JMOE_PROBE(BYTES)                                                                                       \
    extern "C" __global__ void __launch_bounds__(32) probe_cp_async_##BYTES(const void* in, void* out) {        \
        JMOE_SHARED(uint4, pieces, [32]);                                                                       \
        pieces[threadIdx.x] = make_uint4(0xeeeeeeee, 0xeeeeeeee, 0xeeeeeeee, 0xeeeeeeee);                       \
        const int source_bytes = static_cast<const int*>(in)[threadIdx.x];                                      \
        const uint4* source = static_cast<const uint4*>(in) + 8 + threadIdx.x;                                  \
        ptx::cp_async<BYTES>(ptx::shared_address(&pieces[threadIdx.x]), source, source_bytes);                  \
        ptx::cp_async_commit_group();                                                                           \
        ptx::cp_async_wait_group<0>();                                                                          \
        static_cast<uint4*>(out)[threadIdx.x] = pieces[threadIdx.x];                                            \
    }                                                                                                           \
    JMOE_EXPORT(probe_cp_async_##BYTES, 32, 1, 0)

JMOE_PROBE(4);
JMOE_PROBE(8);
JMOE_PROBE(16);
