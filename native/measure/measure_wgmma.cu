// How many cycles a wgmma takes whose operands lie in shared memory: m64n<N>k16 in one or two warpgroups, each with its own 64 rows
// and all with the same columns, while TMA writes to other stages or does not.
//
//   image     a [2][64][64], b [256][64] of bf16 as wgmma reads them: rows of 128 bytes, 128-byte swizzle
//   map       of any matrix, in boxes of 128 rows by 64 columns; what is streamed
//   sums      [2][128] f32, of block 0: what each thread's accumulators add up to
//   times     of each block
//   steps     groups of four wgmma
//   interval  cycles from one box of 16 KiB to the next, 0 for none
#include "measure.cuh"

namespace {

constexpr int kMaxColumns = 256;
constexpr int kMaxConsumers = 2;
constexpr int kImageBytes = kMaxConsumers * measure::kRowsBytes + kMaxColumns * measure::kRowBytes;
constexpr int kBoxBytes = 128 * measure::kRowBytes;
constexpr int kBoxes = 4;
constexpr int kSharedBytes = kImageBytes + kBoxes * kBoxBytes;

#ifdef JMOE_SM90

template <int N>
__device__ __forceinline__ float multiply(uint32_t a, uint32_t b, int steps) {
    float d[N / 2];
    const uint64_t a_descriptor = ptx::k_major_descriptor(a);
    const uint64_t b_descriptor = ptx::k_major_descriptor(b);
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; k++) {
            ptx::wgmma_bf16<N>(d, a_descriptor + 2 * k, b_descriptor + 2 * k, (step | k) != 0);
        }
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<1>();
    }
    ptx::wgmma_wait_group<0>();
    ptx::wgmma_hold(d);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        sum += d[i];
    }
    return sum;
}

// Loads boxes, one every interval, until the multiplications are done; returns how many bytes.
__device__ __forceinline__ unsigned long long stream(const ptx::TensorMap* map, uint32_t target, uint32_t barriers,
                                                     uint32_t done, int interval) {
    unsigned long long next = ptx::clock_cycles();
    int boxes = 0;
#pragma unroll 1
    for (; !ptx::mbarrier_test_wait(done, 0); boxes++) {
        const int place = boxes % kBoxes;
        if (boxes >= kBoxes) {
            ptx::mbarrier_wait(barriers + place * 8, (boxes / kBoxes - 1) & 1);
        }
        while (ptx::clock_cycles() < next) {
        }
        next += interval;
        ptx::mbarrier_arrive_expect_tx(barriers + place * 8, kBoxBytes);
        ptx::tma_load_2d(target + place * kBoxBytes, map, barriers + place * 8, 0, place * 128);
    }
#pragma unroll 1
    for (int box = max(boxes - kBoxes, 0); box < boxes; box++) {
        ptx::mbarrier_wait(barriers + box % kBoxes * 8, (box / kBoxes) & 1);
    }
    return static_cast<unsigned long long>(boxes) * kBoxBytes;
}

template <int N, int kConsumers>
__device__ __forceinline__ void run(const ptx::TensorMap* map, const void* image, float* sums, measure::Times* times,
                                    int steps, int interval) {
    JMOE_DYNAMIC_SHARED(shared);
    JMOE_SHARED(unsigned long long, barriers, [kBoxes + 1]);
    const uint32_t base = ptx::shared_address(shared);
    const uint32_t full = ptx::shared_address(barriers);
    const uint32_t done = full + kBoxes * 8;
    const int warpgroup = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x / measure::kWarpgroup), 0);
    measure::load_image(shared, image, kImageBytes);
    if (threadIdx.x == 0) {
        for (int place = 0; place < kBoxes; place++) {
            ptx::mbarrier_init(full + place * 8, 1);
        }
        ptx::mbarrier_init(done, kConsumers);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    measure::Stopwatch stopwatch;
    stopwatch.start();
    if (warpgroup == kConsumers) {
        if (interval > 0 && threadIdx.x / 32 == kConsumers * 4 && ptx::elect_one()) {
            times[blockIdx.x].bytes = stream(map, base + kImageBytes, full, done, interval);
        }
    } else {
        float sum = multiply<N>(base + warpgroup * measure::kRowsBytes, base + kMaxConsumers * measure::kRowsBytes, steps);
        if (threadIdx.x % measure::kWarpgroup == 0) {
            ptx::mbarrier_arrive(done);
        }
        if (blockIdx.x == 0) {
            sums[threadIdx.x] = sum;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        stopwatch.stop(times[blockIdx.x]);
    }
}

#endif

}  // namespace

#ifdef JMOE_SM90
#define JMOE_BODY(N, consumers) run<N, consumers>(&map, image, sums, times, steps, interval)
#else
#define JMOE_BODY(N, consumers)
#endif

#define JMOE_MEASURE(N, consumers)                                                                                \
    extern "C" __global__ void __launch_bounds__((consumers + 1) * 128, 1)                                        \
        measure_wgmma_n##N##_##consumers(const __grid_constant__ ptx::TensorMap map, const void* image, float* sums, \
                                         measure::Times* times, int steps, int interval) {                        \
        JMOE_BODY(N, consumers);                                                                                  \
    }                                                                                                             \
    JMOE_EXPORT(measure_wgmma_n##N##_##consumers, (consumers + 1) * 128, 1, kSharedBytes)

JMOE_MEASURE(64, 1);
JMOE_MEASURE(64, 2);
JMOE_MEASURE(128, 1);
JMOE_MEASURE(128, 2);
JMOE_MEASURE(256, 1);
JMOE_MEASURE(256, 2);
