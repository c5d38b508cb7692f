// A GEMM as it is written for Hopper: y [rows, outputs] = x [rows, inputs] * weight [outputs, inputs]^T, bf16.
//   Grid: (outputs / 64, rows / 64) rounded up, 256 threads.
//   Warpgroup 0 loads tiles by TMA, warpgroup 1 multiplies them.
//   x_map and weight_map have boxes of 64 x 64 and the 128-byte swizzle. inputs is a multiple of 64.
// Included once for each PLANTED: 0 is correct, the others have the mistake that stands beside their #if.

extern "C" __global__ void __launch_bounds__(256, 1)
    PLANTED_KERNEL(const __grid_constant__ ptx::TensorMap x_map, const __grid_constant__ ptx::TensorMap weight_map,
                   float* __restrict__ y, int rows, int outputs, int inputs) {
#ifdef JMOE_SM90
    constexpr int STAGES = 3;
    constexpr uint32_t TILE_BYTES = 64 * 64 * 2;
    JMOE_DYNAMIC_SHARED(shared);
    JMOE_SHARED(unsigned long long, full_words, [STAGES]);
    JMOE_SHARED(unsigned long long, empty_words, [STAGES]);
    const uint32_t tiles = ptx::shared_address(shared);
    const uint32_t full = ptx::shared_address(full_words);
    const uint32_t empty = ptx::shared_address(empty_words);
    const int num_steps = inputs / 64;
    const int first_row = blockIdx.y * 64;
    const int first_output = blockIdx.x * 64;

    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            ptx::mbarrier_init(full + stage * 8, 1);
            ptx::mbarrier_init(empty + stage * 8, 4);
        }
        ptx::fence_mbarrier_init();
    }
#if PLANTED != 1  // nobody waits for the barriers to be initialised
    __syncthreads();
#endif

    if (threadIdx.x < 128) {
        ptx::setmaxnreg_dec<40>();
        if (threadIdx.x == 0) {
            for (int step = 0; step < num_steps; step++) {
                const int stage = step % STAGES;
                const uint32_t x_tile = tiles + stage * 2 * TILE_BYTES;
#if PLANTED != 2  // the producer does not wait for the stage to be empty
                ptx::mbarrier_wait(empty + stage * 8, (step / STAGES + 1) % 2);
#endif
#if PLANTED == 3  // half of the bytes are expected
                ptx::mbarrier_arrive_expect_tx(full + stage * 8, TILE_BYTES);
#else
                ptx::mbarrier_arrive_expect_tx(full + stage * 8, 2 * TILE_BYTES);
#endif
                ptx::tma_load_2d(x_tile, &x_map, full + stage * 8, step * 64, first_row);
                ptx::tma_load_2d(x_tile + TILE_BYTES, &weight_map, full + stage * 8, step * 64, first_output);
            }
        }
        return;
    }

    ptx::setmaxnreg_inc<232>();
    const int thread = threadIdx.x - 128;
    float sums[32];
    for (int step = 0; step < num_steps; step++) {
        const int stage = step % STAGES;
        const uint64_t x_tile = ptx::k_major_descriptor(tiles + stage * 2 * TILE_BYTES);
        const uint64_t weight_tile = ptx::k_major_descriptor(tiles + stage * 2 * TILE_BYTES + TILE_BYTES);
#if PLANTED == 8  // one try in place of a loop: try_wait may give up
        ptx::mbarrier_try_wait(full + stage * 8, step / STAGES % 2);
#elif PLANTED != 4  // the consumer does not wait for the tiles
        ptx::mbarrier_wait(full + stage * 8, step / STAGES % 2);
#endif
#if PLANTED != 9  // no wgmma.fence at all
        ptx::wgmma_fence();
#endif
        for (int k = 0; k < 4; k++) {
            ptx::wgmma_bf16<64>(sums, x_tile + 2 * k, weight_tile + 2 * k, step + k > 0);
        }
        ptx::wgmma_commit_group();
#if PLANTED == 5  // the stage is handed back while wgmma still reads it
        if (thread % 32 == 0) {
            ptx::mbarrier_arrive(empty + stage * 8);
        }
#endif
#if PLANTED == 6  // the accumulators are read before anybody waited
        if (step + 1 < num_steps) {
            ptx::wgmma_wait_group<0>();
        }
#else
        ptx::wgmma_wait_group<0>();
#endif
#if PLANTED != 5 && PLANTED != 7  // 7: the consumer never hands a stage back
        if (thread % 32 == 0) {
            ptx::mbarrier_arrive(empty + stage * 8);
        }
#endif
    }
    for (int i = 0; i < 32; i += 2) {
        const int row = first_row + thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
        const int output = first_output + i / 4 * 8 + thread % 4 * 2;
        if (row < rows && output < outputs) {
            *reinterpret_cast<float2*>(y + static_cast<size_t>(row) * outputs + output) =
                make_float2(sums[i], sums[i + 1]);
        }
    }
#if PLANTED == 6
    ptx::wgmma_wait_group<0>();
#endif
#endif
}
PLANTED_EXPORT(PLANTED_KERNEL, 256, 64, 3 * 2 * 64 * 64 * 2);
