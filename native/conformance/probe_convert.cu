// Conversions and approximate functions, one value per thread. bits: raw 16- or 32-bit patterns.
#include "common/ptx.cuh"

#define JMOE_PROBE(name, In, Out, expression)                                                                       \
    extern "C" __global__ void __launch_bounds__(256) probe_##name(const void* in, void* out, int count) {          \
        const int i = blockIdx.x * 256 + threadIdx.x;                                                               \
        if (i < count) {                                                                                            \
            const In value = static_cast<const In*>(in)[i];                                                         \
            static_cast<Out*>(out)[i] = expression;                                                                 \
        }                                                                                                           \
    }                                                                                                               \
    JMOE_EXPORT(probe_##name, 256, 256, 0)

JMOE_PROBE(f16_to_f32, uint16_t, float, ptx::f16_to_f32(value));
JMOE_PROBE(f32_to_f16, float, uint16_t, ptx::f32_to_f16(value));
JMOE_PROBE(bf16_to_f32, uint16_t, float, ptx::bf16_to_f32(value));
JMOE_PROBE(f32_to_bf16, float, uint16_t, ptx::f32_to_bf16(value));
JMOE_PROBE(f32_to_f16x2, float2, uint32_t, ptx::f32_to_f16x2(value.x, value.y));
JMOE_PROBE(f32_to_bf16x2, float2, uint32_t, ptx::f32_to_bf16x2(value.x, value.y));
JMOE_PROBE(f16x2_to_f32, uint32_t, float2, ptx::f16x2_to_f32(value));
JMOE_PROBE(bf16x2_to_f32, uint32_t, float2, ptx::bf16x2_to_f32(value));
JMOE_PROBE(f32_to_tf32, float, uint32_t, ptx::f32_to_tf32(value));
JMOE_PROBE(exp2_approx, float, float, ptx::exp2_approx(value));
JMOE_PROBE(rcp_approx, float, float, ptx::rcp_approx(value));
JMOE_PROBE(tanh_approx, float, float, ptx::tanh_approx(value));
