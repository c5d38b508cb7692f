// How long it takes to bring the accumulators of a tile of 128 x 256 to memory: rounded to bf16, 64 columns at a time through two
// chunks of shared memory per warpgroup, by TMA. One wgmma per tile and warpgroup makes new accumulators.
//
//   image    a [2][64][64], b [256][64] of bf16, as in measure_wgmma.cu
//   map      of y [grid * regions * 128, 256], in boxes of 64 rows by 64 columns, 128-byte swizzle; gets a's first 16 inputs times b's
//   times    of each block
//   tiles    how many, of which every regions-th goes to the same rows
#include "measure.cuh"

namespace {

constexpr int kColumns = 256;
constexpr int kChunkColumns = 64;
constexpr int kChunks = 2;
constexpr int kConsumers = 2;
constexpr int kImageBytes = kConsumers * measure::kRowsBytes + kColumns * measure::kRowBytes;
constexpr int kChunkBytes = measure::kRows * kChunkColumns * 2;
constexpr int kSharedBytes = kImageBytes + kConsumers * kChunks * kChunkBytes;

#ifdef JMOE_SM90

// A warpgroup's 64 columns from `first` on, into a chunk that nobody reads.
__device__ __forceinline__ void stage_chunk(const float (&d)[kColumns / 2], int first, uint32_t chunk) {
    const int lane = threadIdx.x % 32;
    const int row = threadIdx.x / 32 % 4 * 16 + lane % 16;
#pragma unroll
    for (int block = 0; block < kChunkColumns / 8; block += 2) {
        const float* from = d + (first / 8 + block) * 4;
        const uint32_t words[4] = {ptx::f32_to_bf16x2(from[0], from[1]), ptx::f32_to_bf16x2(from[2], from[3]),
                                   ptx::f32_to_bf16x2(from[4], from[5]), ptx::f32_to_bf16x2(from[6], from[7])};
        ptx::stmatrix_x4(chunk + row * measure::kRowBytes + ((block + lane / 16) ^ (row % 8)) * 16, words);
    }
}

__device__ __forceinline__ void store_tile(const ptx::TensorMap* map, const float (&d)[kColumns / 2], uint32_t chunks, int row,
                                           int barrier) {
    const bool leader = threadIdx.x % measure::kWarpgroup == 0;
#pragma unroll
    for (int first = 0; first < kColumns; first += kChunkColumns) {
        const uint32_t chunk = chunks + first / kChunkColumns % kChunks * kChunkBytes;
        if (leader) {
            ptx::bulk_wait_group_read<kChunks - 1>();
        }
        ptx::named_barrier_sync(barrier, measure::kWarpgroup);
        stage_chunk(d, first, chunk);
        ptx::fence_proxy_async();
        ptx::named_barrier_sync(barrier, measure::kWarpgroup);
        if (leader) {
            ptx::tma_store_2d(map, chunk, first, row);
            ptx::bulk_commit_group();
        }
    }
}

__device__ __forceinline__ void run(const ptx::TensorMap* map, const void* image, measure::Times* times, int tiles, int regions) {
    JMOE_DYNAMIC_SHARED(shared);
    const uint32_t base = ptx::shared_address(shared);
    const int warpgroup = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x / measure::kWarpgroup), 0);
    const uint32_t chunks = base + kImageBytes + warpgroup * kChunks * kChunkBytes;
    const uint64_t a = ptx::k_major_descriptor(base + warpgroup * measure::kRowsBytes);
    const uint64_t b = ptx::k_major_descriptor(base + kConsumers * measure::kRowsBytes);
    measure::load_image(shared, image, kImageBytes);
    __syncthreads();
    measure::Stopwatch stopwatch;
    stopwatch.start();
    float d[kColumns / 2];
#pragma unroll 1
    for (int tile = 0; tile < tiles; tile++) {
        ptx::wgmma_fence();
        ptx::wgmma_bf16<kColumns>(d, a, b, false);
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<0>();
        ptx::wgmma_hold(d);
        const int region = static_cast<int>(blockIdx.x) * regions + tile % regions;
        store_tile(map, d, chunks, (region * kConsumers + warpgroup) * measure::kRows, 1 + warpgroup);
    }
    if (threadIdx.x % measure::kWarpgroup == 0) {
        ptx::bulk_wait_group<0>();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        stopwatch.stop(times[blockIdx.x]);
    }
}

#endif

}  // namespace

extern "C" __global__ void __launch_bounds__(kConsumers* measure::kWarpgroup, 1)
    measure_epilogue(const __grid_constant__ ptx::TensorMap map, const void* image, measure::Times* times, int tiles,
                     int regions) {
#ifdef JMOE_SM90
    run(&map, image, times, tiles, regions);
#endif
}
JMOE_EXPORT(measure_epilogue, kConsumers* measure::kWarpgroup, 1, kSharedBytes);
