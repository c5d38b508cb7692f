// wgmma: the image is copied to shared memory at a 1024-byte boundary; descriptors are given as for an image at address
// 0.
#include "common/ptx.cuh"

#ifdef JMOE_SM90
#define JMOE_BODY(...) __VA_ARGS__

// multiply(d, base) issues one wgmma; base is what the image's address adds to a descriptor.
template <int N, class Number, class Multiply>
__device__ __forceinline__ void probe(const void* image, int image_bytes, const void* accumulators, void* out,
                                      Multiply multiply) {
    JMOE_DYNAMIC_SHARED(shared);
    for (int i = threadIdx.x; i < image_bytes / 16; i += 128) {
        reinterpret_cast<uint4*>(shared)[i] = static_cast<const uint4*>(image)[i];
    }
    ptx::fence_proxy_async();
    __syncthreads();
    Number d[N / 2];
    const int first = threadIdx.x * (N / 2);
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        d[i] = accumulators == nullptr ? 0 : static_cast<const Number*>(accumulators)[first + i];
    }
    ptx::wgmma_fence();
    multiply(d, static_cast<uint64_t>(ptx::shared_address(shared) >> 4));
    ptx::wgmma_commit_group();
    ptx::wgmma_wait_group<0>();
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        static_cast<Number*>(out)[first + i] = d[i];
    }
}
#else
#define JMOE_BODY(...)
#endif

// in: the image; accumulators: [128][N / 2], or null: d is not read; out: [128][N / 2].
#define JMOE_PROBE_SHARED(name, N, Number, ...)                                                                  \
    extern "C" __global__ void __launch_bounds__(128, 1)                                                         \
        probe_wgmma_##name(const void* in, void* out, const void* accumulators, int image_bytes,                 \
                           unsigned long long a_descriptor, unsigned long long b_descriptor) {                   \
        JMOE_BODY(probe<N, Number>(in, image_bytes, accumulators, out, [&](Number(&d)[N / 2], uint64_t base) {   \
            ptx::__VA_ARGS__(d, a_descriptor + base, b_descriptor + base, accumulators != nullptr);              \
        });)                                                                                                     \
    }                                                                                                            \
    JMOE_EXPORT(probe_wgmma_##name, 128, 1, 0)

// registers: [128][4] words of a.
#define JMOE_PROBE_REGISTERS(name, N, Number, ...)                                                               \
    extern "C" __global__ void __launch_bounds__(128, 1)                                                         \
        probe_wgmma_##name(const void* in, void* out, const void* accumulators, int image_bytes,                 \
                           const uint4* registers, unsigned long long b_descriptor) {                            \
        JMOE_BODY(const uint4 own = registers[threadIdx.x];                                                      \
                  const uint32_t a[4] = {own.x, own.y, own.z, own.w};                                            \
                  probe<N, Number>(in, image_bytes, accumulators, out, [&](Number(&d)[N / 2], uint64_t base) {   \
                      ptx::__VA_ARGS__(d, a, b_descriptor + base, accumulators != nullptr);                      \
                  });)                                                                                           \
    }                                                                                                            \
    JMOE_EXPORT(probe_wgmma_##name, 128, 1, 0)

#define JMOE_PROBE_BF16(N) JMOE_PROBE_SHARED(bf16_n##N, N, float, wgmma_bf16<N>)
JMOE_PROBE_BF16(8);
JMOE_PROBE_BF16(16);
JMOE_PROBE_BF16(24);
JMOE_PROBE_BF16(32);
JMOE_PROBE_BF16(40);
JMOE_PROBE_BF16(48);
JMOE_PROBE_BF16(56);
JMOE_PROBE_BF16(64);
JMOE_PROBE_BF16(72);
JMOE_PROBE_BF16(80);
JMOE_PROBE_BF16(88);
JMOE_PROBE_BF16(96);
JMOE_PROBE_BF16(104);
JMOE_PROBE_BF16(112);
JMOE_PROBE_BF16(120);
JMOE_PROBE_BF16(128);
JMOE_PROBE_BF16(136);
JMOE_PROBE_BF16(144);
JMOE_PROBE_BF16(152);
JMOE_PROBE_BF16(160);
JMOE_PROBE_BF16(168);
JMOE_PROBE_BF16(176);
JMOE_PROBE_BF16(184);
JMOE_PROBE_BF16(192);
JMOE_PROBE_BF16(200);
JMOE_PROBE_BF16(208);
JMOE_PROBE_BF16(216);
JMOE_PROBE_BF16(224);
JMOE_PROBE_BF16(232);
JMOE_PROBE_BF16(240);
JMOE_PROBE_BF16(248);
JMOE_PROBE_BF16(256);

// ta, tb: the operand is MN-major.
JMOE_PROBE_SHARED(bf16_n64_ta, 64, float, wgmma_bf16<64, 1, 0>);
JMOE_PROBE_SHARED(bf16_n64_tb, 64, float, wgmma_bf16<64, 0, 1>);
JMOE_PROBE_SHARED(bf16_n64_ta_tb, 64, float, wgmma_bf16<64, 1, 1>);
JMOE_PROBE_SHARED(bf16_n128_tb, 128, float, wgmma_bf16<128, 0, 1>);
JMOE_PROBE_SHARED(f16_n64, 64, float, wgmma_f16<64>);
JMOE_PROBE_SHARED(f16_n64_ta_tb, 64, float, wgmma_f16<64, 1, 1>);
JMOE_PROBE_SHARED(tf32_n64, 64, float, wgmma_tf32<64>);
JMOE_PROBE_SHARED(e4m3_n64, 64, float, wgmma_e4m3<64>);
JMOE_PROBE_SHARED(e4m3_n128, 128, float, wgmma_e4m3<128>);
JMOE_PROBE_SHARED(s8_n64, 64, int, wgmma_s8<64>);
JMOE_PROBE_SHARED(s8_n128, 128, int, wgmma_s8<128>);

JMOE_PROBE_REGISTERS(bf16_n64_registers, 64, float, wgmma_bf16_registers<64>);
JMOE_PROBE_REGISTERS(bf16_n64_tb_registers, 64, float, wgmma_bf16_registers<64, 1>);
JMOE_PROBE_REGISTERS(f16_n64_registers, 64, float, wgmma_f16_registers<64>);
JMOE_PROBE_REGISTERS(tf32_n64_registers, 64, float, wgmma_tf32_registers<64>);
JMOE_PROBE_REGISTERS(e4m3_n64_registers, 64, float, wgmma_e4m3_registers<64>);
JMOE_PROBE_REGISTERS(s8_n64_registers, 64, int, wgmma_s8_registers<64>);
