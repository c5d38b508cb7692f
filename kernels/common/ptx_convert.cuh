// Conversions of 16-bit floats and approximate functions. Included by ptx.cuh.
#pragma once

namespace ptx {

// 16-bit floats travel as raw bits: cuda_fp16.h and cuda_bf16.h double the compile time of a kernel. Every conversion
// rounds to nearest even and turns each NaN into 0x7fff.

__device__ __forceinline__ float f16_to_f32(uint16_t value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value));
    return result;
}

__device__ __forceinline__ uint16_t f32_to_f16(float value) {
    uint16_t result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(value));
    return result;
}

__device__ __forceinline__ float bf16_to_f32(uint16_t value) {
    return __uint_as_float(static_cast<uint32_t>(value) << 16);
}

__device__ __forceinline__ uint16_t f32_to_bf16(float value) {
    uint16_t result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(value));
    return result;
}

// Two values in one register: the first in the low half, as memory order wants it.

__device__ __forceinline__ uint32_t f32_to_f16x2(float low, float high) {
    uint32_t result;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}

__device__ __forceinline__ uint32_t f32_to_bf16x2(float low, float high) {
    uint32_t result;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}

__device__ __forceinline__ float2 f16x2_to_f32(uint32_t pair) {
    return make_float2(f16_to_f32(static_cast<uint16_t>(pair)), f16_to_f32(static_cast<uint16_t>(pair >> 16)));
}

__device__ __forceinline__ float2 bf16x2_to_f32(uint32_t pair) {
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// tf32 is an f32 of which the matrix units read the upper 19 bits; this rounds to nearest, ties away from zero.
__device__ __forceinline__ uint32_t f32_to_tf32(float value) {
    uint32_t result;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(value));
    return result;
}

// Approximate functions. Subnormal inputs and results are flushed to zero.

__device__ __forceinline__ float exp2_approx(float value) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

__device__ __forceinline__ float rcp_approx(float value) {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

__device__ __forceinline__ float tanh_approx(float value) {
    float result;
    asm("tanh.approx.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

}  // namespace ptx
