// stmatrix (sm_90a): the inverse of ldmatrix. Included by ptx.cuh.
#pragma once

namespace ptx {

__device__ __forceinline__ void stmatrix_x1(uint32_t row_address, const uint32_t (&matrix)[1]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(row_address), "r"(matrix[0]) : "memory");
}

__device__ __forceinline__ void stmatrix_x2(uint32_t row_address, const uint32_t (&matrices)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(row_address), "r"(matrices[0]),
                 "r"(matrices[1])
                 : "memory");
}

__device__ __forceinline__ void stmatrix_x4(uint32_t row_address, const uint32_t (&matrices)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row_address),
                 "r"(matrices[0]), "r"(matrices[1]), "r"(matrices[2]), "r"(matrices[3])
                 : "memory");
}

__device__ __forceinline__ void stmatrix_x1_trans(uint32_t row_address, const uint32_t (&matrix)[1]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(row_address), "r"(matrix[0])
                 : "memory");
}

__device__ __forceinline__ void stmatrix_x2_trans(uint32_t row_address, const uint32_t (&matrices)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row_address), "r"(matrices[0]),
                 "r"(matrices[1])
                 : "memory");
}

__device__ __forceinline__ void stmatrix_x4_trans(uint32_t row_address, const uint32_t (&matrices)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row_address),
                 "r"(matrices[0]), "r"(matrices[1]), "r"(matrices[2]), "r"(matrices[3])
                 : "memory");
}

}  // namespace ptx
