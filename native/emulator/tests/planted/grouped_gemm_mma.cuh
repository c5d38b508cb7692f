// A grouped GEMM as it is written for mma.sync: y[row, :] = x[row, :] * weight[expert]^T, rows in expert order.
//   tiles [gridDim.y]: expert, first row, number of rows (1 to 64)
//   Grid: (outputs / 64, tiles), 128 threads; 2 x 2 warps of 32 x 32 outputs. inputs is a multiple of 32.
// Included once for each PLANTED: 0 is correct, the others have the mistake that stands beside their #if.

extern "C" __global__ void __launch_bounds__(128)
    PLANTED_KERNEL(const uint16_t* __restrict__ x, const uint16_t* __restrict__ weight, float* __restrict__ y,
                   const int4* __restrict__ tiles, int outputs, int inputs) {
    using namespace mma_tile;
    JMOE_DYNAMIC_SHARED(shared);
    const int4 tile = tiles[blockIdx.y];
    const int first_row = tile.y;
    const int rows = tile.z;
    const int first_output = blockIdx.x * TILE;
    const uint16_t* expert_weight = weight + (static_cast<size_t>(tile.x) * outputs + first_output) * inputs;
    const uint32_t base = ptx::shared_address(shared);
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int warp_row = warp / 2 * 32;
    const int warp_output = warp % 2 * 32;
    const int num_steps = inputs / STEP;

    float sums[2][4][4] = {};
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < num_steps) {
            load_stage(base + step * STAGE_BYTES, x, expert_weight, first_row, rows, inputs, step * STEP);
        }
        ptx::cp_async_commit_group();
    }
    for (int step = 0; step < num_steps; step++) {
#if PLANTED == 1  // the wait is one group short: the stage that is read next may still be on its way
        ptx::cp_async_wait_group<STAGES - 1>();
#else
        ptx::cp_async_wait_group<STAGES - 2>();
#endif
#if PLANTED != 2  // no barrier after the wait: it covers the copies of this thread alone
        __syncthreads();
#endif
        const int next = step + STAGES - 1;
        if (next < num_steps) {
            load_stage(base + next % STAGES * STAGE_BYTES, x, expert_weight, first_row, rows, inputs, next * STEP);
        }
        ptx::cp_async_commit_group();
        multiply_stage(base + step % STAGES * STAGE_BYTES, warp_row, warp_output, lane, sums);
    }
    ptx::cp_async_wait_group<0>();
    for (int i = 0; i < 2; i++) {
        for (int half = 0; half < 2; half++) {
            const int row = warp_row + i * 16 + lane / 4 + half * 8;
            for (int j = 0; j < 4 && row < rows; j++) {
                const int output = first_output + warp_output + j * 8 + lane % 4 * 2;
                float2* place = reinterpret_cast<float2*>(y + static_cast<size_t>(first_row + row) * outputs + output);
                *place = make_float2(sums[i][j][half * 2], sums[i][j][half * 2 + 1]);
            }
        }
    }
}
PLANTED_EXPORT(PLANTED_KERNEL, 128, 64, mma_tile::STAGES * mma_tile::STAGE_BYTES);
