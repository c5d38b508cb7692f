// ldmatrix and mma.sync. Included by ptx.cuh.
#pragma once

namespace ptx {

// ldmatrix: every address is that of one row of eight 16-bit elements, aligned to 16 bytes; x1 takes those of lanes 0
// to 7, x2 of lanes 0 to 15, x4 of all.

__device__ __forceinline__ void ldmatrix_x1(uint32_t (&matrix)[1], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(matrix[0]) : "r"(row_address) : "memory");
}

__device__ __forceinline__ void ldmatrix_x2(uint32_t (&matrices)[2], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(matrices[0]), "=r"(matrices[1])
                 : "r"(row_address)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&matrices)[4], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(row_address)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x1_trans(uint32_t (&matrix)[1], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(matrix[0])
                 : "r"(row_address)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&matrices)[2], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(matrices[0]), "=r"(matrices[1])
                 : "r"(row_address)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&matrices)[4], uint32_t row_address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(row_address)
                 : "memory");
}

// mma.sync: d += a * b for a row-major 16 x k tile a and a column-major k x 8 tile b, spread over the warp.

#define JMOE_MMA_A4_B2(instruction, kind, d, a, b)                                                              \
    asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                 \
                 : "+" kind(d[0]), "+" kind(d[1]), "+" kind(d[2]), "+" kind(d[3])                               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#define JMOE_MMA_A2_B1(instruction, kind, d, a, b)                                         \
    asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"        \
                 : "+" kind(d[0]), "+" kind(d[1]), "+" kind(d[2]), "+" kind(d[3])          \
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]))

__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    JMOE_MMA_A4_B2("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", "f", d, a, b);
}

__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    JMOE_MMA_A4_B2("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "f", d, a, b);
}

__device__ __forceinline__ void mma_m16n8k8_bf16(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]) {
    JMOE_MMA_A2_B1("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", "f", d, a, b);
}

__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    JMOE_MMA_A4_B2("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", "f", d, a, b);
}

__device__ __forceinline__ void mma_m16n8k4_tf32(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]) {
    JMOE_MMA_A2_B1("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", "f", d, a, b);
}

__device__ __forceinline__ void mma_m16n8k32_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    JMOE_MMA_A4_B2("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", "r", d, a, b);
}

__device__ __forceinline__ void mma_m16n8k16_s8(int (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1]) {
    JMOE_MMA_A2_B1("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32", "r", d, a, b);
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
__device__ __forceinline__ void mma_m16n8k32_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    JMOE_MMA_A4_B2("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32", "f", d, a, b);
}
#endif

#undef JMOE_MMA_A4_B2
#undef JMOE_MMA_A2_B1

}  // namespace ptx
