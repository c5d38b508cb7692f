// How fast TMA fills shared memory when nothing reads it: one thread keeps every stage of a ring under way.
//
//   times        of each block; checksum is the exclusive or of all words in the ring in the end
//   count        stages to load
//   ring         stages of the ring
#include "measure.cuh"

namespace {

constexpr int kMaxRing = 16;

#ifdef JMOE_SM90

// Loads the stages: issue(stage, target, barrier) has to bring stage_bytes to each block of the cluster. Blocks of a cluster of two
// write to each other's rings, so each tells both when it is done with a stage.
template <int kCluster, class Issue>
__device__ __forceinline__ void fill(uint32_t target, uint32_t full, uint32_t empty, int ring, int stage_bytes, int count,
                                     const Issue& issue) {
    int slot = 0;
    uint32_t phase = 0;
#pragma unroll 1
    for (int stage = 0; stage < count + ring; stage++) {
        if (stage >= ring) {
            ptx::mbarrier_wait(full + slot * 8, phase ^ 1);
            if constexpr (kCluster == 2) {
                ptx::mbarrier_arrive_remote(ptx::mapa(empty + slot * 8, 0));
                ptx::mbarrier_arrive_remote(ptx::mapa(empty + slot * 8, 1));
            }
        }
        if (stage < count) {
            if constexpr (kCluster == 2) {
                ptx::mbarrier_wait(empty + slot * 8, phase ^ 1);
            }
            ptx::mbarrier_arrive_expect_tx(full + slot * 8, stage_bytes);
            issue(stage, target + slot * stage_bytes, full + slot * 8);
        }
        if (++slot == ring) {
            slot = 0;
            phase ^= 1;
        }
    }
}

template <int kCluster>
__device__ __forceinline__ void synchronise() {
    if constexpr (kCluster == 2) {
        ptx::cluster_sync();
    } else {
        __syncthreads();
    }
}

// One warp per block.
template <int kCluster, class Issue>
__device__ __forceinline__ void run(int ring, int stage_bytes, int count, measure::Times* times, const Issue& issue) {
    JMOE_DYNAMIC_SHARED(shared);
    JMOE_SHARED(unsigned long long, barriers, [2 * kMaxRing]);
    const uint32_t full = ptx::shared_address(barriers);
    const uint32_t empty = full + kMaxRing * 8;
    if (threadIdx.x == 0) {
        for (int slot = 0; slot < ring; slot++) {
            ptx::mbarrier_init(full + slot * 8, 1);
            ptx::mbarrier_init(empty + slot * 8, 2);
        }
        ptx::fence_mbarrier_init();
    }
    synchronise<kCluster>();
    measure::Stopwatch stopwatch;
    stopwatch.start();
    if (ptx::elect_one()) {
        fill<kCluster>(ptx::shared_address(shared), full, empty, ring, stage_bytes, count, issue);
    }
    synchronise<kCluster>();
    if (threadIdx.x == 0) {
        stopwatch.stop(times[blockIdx.x]);
    }
    // The elected thread saw the copies arrive, and the barrier passes that on.
    uint32_t checksum = 0;
    for (int i = threadIdx.x; i < min(ring, count) * stage_bytes / 4; i += 32) {
        checksum ^= reinterpret_cast<const uint32_t*>(shared)[i];
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        checksum ^= __shfl_xor_sync(0xffffffffu, checksum, distance);
    }
    if (threadIdx.x == 0) {
        times[blockIdx.x].checksum = checksum;
    }
}

#endif

// Tiles of 128 x 256: of each stage 64 inputs of 128 rows of x and of 256 columns of the weight.
constexpr int kXBytes = 128 * measure::kRowBytes;
constexpr int kWeightBytes = 256 * measure::kRowBytes;
constexpr int kStageBytes = kXBytes + kWeightBytes;
constexpr int kTileRing = 4;

#ifdef JMOE_SM90

// Blocks have their own rows of x. Clusters take the tiles of columns in turn; of two blocks each fetches half of them for both.
template <int kCluster>
__device__ __forceinline__ void tiles(const ptx::TensorMap* x, const ptx::TensorMap* weight, measure::Times* times, int count,
                                      int inputs, int column_tiles) {
    const int row = blockIdx.x * 128;
    const int column = blockIdx.x / kCluster % column_tiles * 256;
    const int rank = blockIdx.x % kCluster;
    const int depth = inputs / 64;
    run<kCluster>(kTileRing, kStageBytes, count, times, [&](int stage, uint32_t target, uint32_t barrier) {
        const int input = stage % depth * 64;
        ptx::tma_load_2d(target, x, barrier, input, row);
        ptx::tma_load_2d(target + kXBytes / 2, x, barrier, input, row + 64);
        const uint32_t to = target + kXBytes;
        if constexpr (kCluster == 2) {
            ptx::tma_load_2d_multicast(to + rank * (kWeightBytes / 2), weight, barrier, input, column + rank * 128, 3);
        } else {
            ptx::tma_load_2d(to, weight, barrier, input, column);
            ptx::tma_load_2d(to + kWeightBytes / 2, weight, barrier, input, column + 128);
        }
    });
}

#endif

// Boxes of 64 weights' rows by 64 inputs, each from another place of a matrix that no cache holds.
constexpr int kStreamBytes = 64 * measure::kRowBytes;

}  // namespace

#ifdef JMOE_SM90
#define JMOE_BODY(...) __VA_ARGS__
#else
#define JMOE_BODY(...)
#endif

// x_map in boxes of 64 rows, weight_map of 128; inputs % 64 == 0. Grid: any.
extern "C" __global__ void __launch_bounds__(32, 1)
    measure_tma_tiles(const __grid_constant__ ptx::TensorMap x_map, const __grid_constant__ ptx::TensorMap weight_map,
                      measure::Times* times, int count, int inputs, int column_tiles) {
    JMOE_BODY(tiles<1>(&x_map, &weight_map, times, count, inputs, column_tiles));
}
JMOE_EXPORT(measure_tma_tiles, 32, 1, kTileRing * kStageBytes);

// The same in clusters of two.
extern "C" __global__ void __launch_bounds__(32, 1)
    measure_tma_tiles_multicast(const __grid_constant__ ptx::TensorMap x_map,
                                const __grid_constant__ ptx::TensorMap weight_map, measure::Times* times, int count, int inputs,
                                int column_tiles) {
    JMOE_BODY(tiles<2>(&x_map, &weight_map, times, count, inputs, column_tiles));
}
JMOE_EXPORT_CLUSTER(measure_tma_tiles_multicast, 32, 1, kTileRing * kStageBytes, 2);

// map in boxes of 64 rows. Block b has rows [b * 64 * row_blocks, ..), all inputs of 64 of them before the next 64. Grid: any.
extern "C" __global__ void __launch_bounds__(32, 1)
    measure_tma_stream(const __grid_constant__ ptx::TensorMap map, measure::Times* times, int row_blocks, int inputs, int ring) {
    JMOE_BODY(const int depth = inputs / 64; const int first = blockIdx.x * row_blocks;
              run<1>(ring, kStreamBytes, row_blocks * depth, times, [&](int stage, uint32_t target, uint32_t barrier) {
                  ptx::tma_load_2d_hinted(target, &map, barrier, stage % depth * 64, (first + stage / depth) * 64,
                                          ptx::EVICT_FIRST);
              }));
}
JMOE_EXPORT(measure_tma_stream, 32, 1, kMaxRing * kStreamBytes);
