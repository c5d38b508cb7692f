// Twins of kernels/common/ptx_matrix.cuh and ptx_stmatrix.cuh.
#pragma once

#include <cstdint>

#include "simt.h"

namespace ptx {

using emulator::Site;

void load_matrices(uint32_t* matrices, int count, bool transpose, uint32_t row_address, Site site);
void store_matrices(uint32_t row_address, const uint32_t* matrices, int count, bool transpose, Site site);

inline void ldmatrix_x1(uint32_t (&matrix)[1], uint32_t row_address, Site site = Site::here()) {
    load_matrices(matrix, 1, false, row_address, site);
}
inline void ldmatrix_x2(uint32_t (&matrices)[2], uint32_t row_address, Site site = Site::here()) {
    load_matrices(matrices, 2, false, row_address, site);
}
inline void ldmatrix_x4(uint32_t (&matrices)[4], uint32_t row_address, Site site = Site::here()) {
    load_matrices(matrices, 4, false, row_address, site);
}
inline void ldmatrix_x1_trans(uint32_t (&matrix)[1], uint32_t row_address, Site site = Site::here()) {
    load_matrices(matrix, 1, true, row_address, site);
}
inline void ldmatrix_x2_trans(uint32_t (&matrices)[2], uint32_t row_address, Site site = Site::here()) {
    load_matrices(matrices, 2, true, row_address, site);
}
inline void ldmatrix_x4_trans(uint32_t (&matrices)[4], uint32_t row_address, Site site = Site::here()) {
    load_matrices(matrices, 4, true, row_address, site);
}

inline void stmatrix_x1(uint32_t row_address, const uint32_t (&matrix)[1], Site site = Site::here()) {
    store_matrices(row_address, matrix, 1, false, site);
}
inline void stmatrix_x2(uint32_t row_address, const uint32_t (&matrices)[2], Site site = Site::here()) {
    store_matrices(row_address, matrices, 2, false, site);
}
inline void stmatrix_x4(uint32_t row_address, const uint32_t (&matrices)[4], Site site = Site::here()) {
    store_matrices(row_address, matrices, 4, false, site);
}
inline void stmatrix_x1_trans(uint32_t row_address, const uint32_t (&matrix)[1], Site site = Site::here()) {
    store_matrices(row_address, matrix, 1, true, site);
}
inline void stmatrix_x2_trans(uint32_t row_address, const uint32_t (&matrices)[2], Site site = Site::here()) {
    store_matrices(row_address, matrices, 2, true, site);
}
inline void stmatrix_x4_trans(uint32_t row_address, const uint32_t (&matrices)[4], Site site = Site::here()) {
    store_matrices(row_address, matrices, 4, true, site);
}

enum class Multiply : uint8_t { bf16_k16, f16_k16, bf16_k8, tf32_k8, tf32_k4, s8_k32, s8_k16, e4m3_k32 };

// d is four floats, or four ints for s8.
void multiply(Multiply kind, void* d, const uint32_t* a, const uint32_t* b, Site site);

inline void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site::here()) {
    multiply(Multiply::bf16_k16, d, a, b, site);
}
inline void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site::here()) {
    multiply(Multiply::f16_k16, d, a, b, site);
}
inline void mma_m16n8k8_bf16(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], Site site = Site::here()) {
    multiply(Multiply::bf16_k8, d, a, b, site);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site::here()) {
    multiply(Multiply::tf32_k8, d, a, b, site);
}
inline void mma_m16n8k4_tf32(float (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], Site site = Site::here()) {
    multiply(Multiply::tf32_k4, d, a, b, site);
}
inline void mma_m16n8k32_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site::here()) {
    multiply(Multiply::s8_k32, d, a, b, site);
}
inline void mma_m16n8k16_s8(int (&d)[4], const uint32_t (&a)[2], const uint32_t (&b)[1], Site site = Site::here()) {
    multiply(Multiply::s8_k16, d, a, b, site);
}
inline void mma_m16n8k32_e4m3(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site = Site::here()) {
    multiply(Multiply::e4m3_k32, d, a, b, site);
}

}  // namespace ptx
