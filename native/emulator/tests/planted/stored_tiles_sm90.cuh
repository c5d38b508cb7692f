// One 64 x 64 x 64 product whose tiles are written by ordinary stores, in the 128-byte swizzle that wgmma reads; the
// result leaves through shared memory and a TMA store. One warpgroup.
// Included once for each PLANTED: 0 is correct, the others have the mistake that stands beside their #if.

extern "C" __global__ void __launch_bounds__(128, 1)
    PLANTED_KERNEL(const uint16_t* __restrict__ x, const uint16_t* __restrict__ weight,
                   const __grid_constant__ ptx::TensorMap y_map) {
#ifdef JMOE_SM90
    JMOE_DYNAMIC_SHARED(shared);
    const uint32_t tiles = ptx::shared_address(shared);
    for (int i = threadIdx.x; i < 64 * 64; i += 128) {
        const int row = i / 64;
        const int k = i % 64;
        const int place = row * 128 + ((k / 8 ^ row % 8) * 16) + k % 8 * 2;
        *reinterpret_cast<uint16_t*>(shared + place) = x[i];
        *reinterpret_cast<uint16_t*>(shared + 8192 + place) = weight[i];
    }
#if PLANTED != 1  // wgmma reads through the asynchronous proxy, which does not see ordinary stores without a fence
    ptx::fence_proxy_async();
#endif
    __syncthreads();
    float sums[32];
    ptx::wgmma_fence();
    for (int k = 0; k < 4; k++) {
        ptx::wgmma_bf16<64>(sums, ptx::k_major_descriptor(tiles) + 2 * k, ptx::k_major_descriptor(tiles + 8192) + 2 * k,
                            k > 0);
    }
    ptx::wgmma_commit_group();
    ptx::wgmma_wait_group<0>();
    __syncthreads();

    // The wait above is all that the tiles need before ordinary stores may write there again.
    float* y_tile = reinterpret_cast<float*>(shared);
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    for (int i = 0; i < 32; i++) {
        y_tile[(row + i / 2 % 2 * 8) * 64 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2] = sums[i];
    }
#if PLANTED != 2  // the TMA store, too, reads through the asynchronous proxy
    ptx::fence_proxy_async();
#endif
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::tma_store_2d(&y_map, tiles, 0, 0);
        ptx::bulk_commit_group();
#if PLANTED == 3  // the tile is cleared before the store has read it
        y_tile[0] = 0;
#endif
        ptx::bulk_wait_group_read<0>();
    }
#endif
}
PLANTED_EXPORT(PLANTED_KERNEL, 128, 64, 2 * 64 * 64 * 2);
