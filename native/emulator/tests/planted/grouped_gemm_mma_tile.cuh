// What all versions of grouped_gemm_mma.cuh share: one stage of 64 rows of x and 64 of the weight, 32 inputs each.
#pragma once

#include "common/ptx.cuh"

namespace mma_tile {

constexpr int TILE = 64;
constexpr int STEP = 32;
constexpr int STAGES = 3;
constexpr int PITCH = (STEP + 8) * 2;  // bytes; 8 more than needed, so that ldmatrix meets all banks
constexpr int STAGE_BYTES = 2 * TILE * PITCH;

__device__ inline void load_stage(uint32_t stage, const uint16_t* x, const uint16_t* weight, int first_row, int rows,
                                  int inputs, int first_input) {
    for (int piece = threadIdx.x; piece < TILE * STEP / 8; piece += 128) {
        const int row = piece / 4;
        const int input = first_input + piece % 4 * 8;
        const uint32_t place = row * PITCH + piece % 4 * 16;
        const int source_row = first_row + (row < rows ? row : 0);
        ptx::cp_async<16>(stage + place, x + static_cast<size_t>(source_row) * inputs + input, row < rows ? 16 : 0);
        ptx::cp_async<16>(stage + TILE * PITCH + place, weight + static_cast<size_t>(row) * inputs + input);
    }
}

__device__ inline void multiply_stage(uint32_t stage, int warp_row, int warp_output, int lane, float (&sums)[2][4][4]) {
    const uint32_t rows_of_x = stage + (warp_row + lane % 16) * PITCH + lane / 16 * 16;
    const uint32_t rows_of_weight =
        stage + TILE * PITCH + (warp_output + lane % 8 + lane / 16 * 8) * PITCH + lane / 8 % 2 * 16;
    for (int input = 0; input < STEP; input += 16) {
        uint32_t a[2][4];
        uint32_t b[2][4];
        for (int i = 0; i < 2; i++) {
            ptx::ldmatrix_x4(a[i], rows_of_x + i * 16 * PITCH + input * 2);
            ptx::ldmatrix_x4(b[i], rows_of_weight + i * 16 * PITCH + input * 2);
        }
        for (int i = 0; i < 2; i++) {
            for (int j = 0; j < 4; j++) {
                const uint32_t column[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                ptx::mma_m16n8k16_bf16(sums[i][j], a[i], column);
            }
        }
    }
}

}  // namespace mma_tile
