// y[r] = activation(w[r] x[token of r] weight[e]^T + bias[e]) for expertOffsets[e] <= r < expertOffsets[e + 1]
//
// Shapes    as in grouped_gemm_mma.cu. x_map is of x in boxes of 64 rows, weight_map of the weight as [groups * columns, inputs] in
//           boxes of half a tile's columns, y_map of y in boxes of 64 rows; boxes have 64 columns and the 128-byte swizzle. Kernels
//           named gather read x instead of x_map. y_map is used where y is of 16 bits, 16-byte aligned and outputs % 8 == 0.
// Grid      x: any multiple of the cluster; blocks take tiles in turn until there are none. As many as run at once.
// Numerics  F32 sums of exact products in the order of the inputs, 16 at a time, in every kernel of this file: a row depends on
//           nothing but itself and its expert. w, bias and activation in F32, one rounding.
// Requires  sm_90a; inputs > 0, inputs % 8 == 0; x and weight aligned to 16 bytes; groups * columns < 2^31; F32 y
//           has no activation, and no y one of the gelus.
// Adjoint   as in grouped_gemm_mma.cu.
//
// A producer warpgroup fills a ring of stages by TMA, or gathers rows of x into it by cp.async; consumer warpgroups multiply with
// wgmma, each 64 rows by all columns of a tile, so that gate and up of an output meet in one thread. Three tiles:
//     64 x 128   one consumer, two blocks to a multiprocessor: streams the weights of experts with few rows
//     64 x 256   two consumers with a tile each, one storing while the other multiplies: for few inputs
//     128 x 256  two consumers share a tile: for many rows
// The last two run in clusters of two blocks, which fetch half of the weight each for both where they work on the same columns of
// the same expert. Rows that a tile lacks are neither stored nor zeroed; a consumer that has none leaves the tensor cores alone.
#include "common/cluster_tiles.cuh"
#include "common/stage_ring.cuh"
#include "common/wgmma_store.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;

constexpr int kWarpgroup = 128;
constexpr int kDepth = 64;  // inputs of a stage
constexpr int kRowBytes = kDepth * 2;
constexpr int kChunk = 8;  // elements that cp.async copies at once
constexpr int kChunks = kDepth / kChunk;
constexpr int kBoxRows = 64;  // of x
constexpr int kBoxBytes = kBoxRows * kRowBytes;
constexpr int kCopiedRows = kWarpgroup / kChunks;  // rows that the producers gather at once

// A tile, and how a block works on it.
template <int rows, int columns, int consumers, int cluster, int stages, int buffers, int blocks>
struct Shape {
    static constexpr int kRows = rows;
    static constexpr int kColumns = columns;
    static constexpr int kConsumers = consumers;
    static constexpr int kCluster = cluster;
    static constexpr int kStages = stages;
    static constexpr int kBuffers = buffers;  // chunks of results, per consumer
    static constexpr int kBlocks = blocks;    // that fit a multiprocessor
    static constexpr int kThreads = kWarpgroup * (consumers + 1);
    // Consumers of a tile of 64 rows take the tiles in turn.
    static constexpr bool kInTurn = consumers * 64 > rows;
    static constexpr int kReaders = 4 * (kInTurn ? 1 : consumers) * cluster;  // warps that hand a stage back
    static constexpr int kAccumulators = columns / 2;
    static constexpr int kWeightBox = columns / 2;  // rows
    static constexpr int kXBytes = rows * kRowBytes;
    static constexpr int kWeightBytes = columns * kRowBytes;
    static constexpr int kStageBytes = kXBytes + kWeightBytes;
    static constexpr int kChunkBytes = buffers * wgmma_store::kChunkBytes;
    static constexpr int kChunksAt = stages * kStageBytes;
    static constexpr int kBarriersAt = kChunksAt + consumers * kChunkBytes;
    static constexpr int kTurnsAt = kBarriersAt + stage_ring::Barriers<stages>::kBytes;
    static constexpr int kOffsetsAt = kTurnsAt + consumers * 8;
    static constexpr int kSharedBytes = kOffsetsAt + cluster_tiles::kSharedBytes;
    static_assert(kStageBytes % 1024 == 0, "the swizzle is a function of the address");
    static_assert(blocks * (kSharedBytes + 1024) <= 228 * 1024, "shared memory");
};

using Small = Shape<64, 128, 1, 1, 4, 1, 2>;
using InTurn = Shape<64, 256, 2, 2, 5, 1, 1>;
using Large = Shape<128, 256, 2, 2, 4, 2, 1>;

// Registers of a thread. A block has what it got at launch: 168 for each of 384 threads, 128 for each of 256.
template <class S, bool kGather>
struct Budget {
    static constexpr int kAtLaunch = S::kConsumers == 2 ? 168 : 128;
    static constexpr int kProducer = kGather ? 56 : 40;
    static constexpr int kConsumer = (kAtLaunch * (S::kConsumers + 1) - kProducer) / S::kConsumers / 8 * 8;
};

// What a kernel is given.
template <class T>
struct Operands {
    const ptx::TensorMap* x_map;
    const ptx::TensorMap* weight_map;
    const typename T::Bits* x;
    const int* row_to_slot;
    const float* slot_weights;
    const float* bias;
    const int* expert_offsets;
    int rows;
    int groups;
    int inputs;
    int top_k;
    wgmma_store::Target target;

    __device__ __forceinline__ bool gated() const { return activation::gated(target.kind); }
    __device__ __forceinline__ int parts() const { return gated() ? 2 : 1; }
    template <class S>
    __device__ __forceinline__ int tile_outputs() const {
        return S::kColumns / parts();
    }
    __device__ __forceinline__ int stages() const { return (inputs + kDepth - 1) / kDepth; }
};

template <class S>
using Walk = cluster_tiles::Walk<S::kRows, S::kCluster>;
template <class S>
using Barriers = stage_ring::Barriers<S::kStages>;
template <class S>
using Position = stage_ring::Position<S::kStages>;
using cluster_tiles::Tile;

// A block's shared memory.
template <class S>
struct Shared {
    unsigned char* bytes;
    Barriers<S> barriers;

    __device__ __forceinline__ explicit Shared(unsigned char* bytes)
        : bytes(bytes), barriers{ptx::shared_address(bytes) + S::kBarriersAt} {}

    __device__ __forceinline__ uint32_t stage(int slot) const { return ptx::shared_address(bytes) + slot * S::kStageBytes; }

    // On which a consumer waits for its turn.
    __device__ __forceinline__ uint32_t turn(int consumer) const { return ptx::shared_address(bytes) + S::kTurnsAt + consumer * 8; }
};

// Boxes of x that hold rows of the tile.
__device__ __forceinline__ int x_boxes(const Tile& tile) { return (tile.rows + kBoxRows - 1) / kBoxRows; }

// Lets one thread fetch a stage by TMA: x unless it is gathered, and the weight in two boxes, which are gate and up if the
// activation has both. Blocks of a cluster with the same columns fetch a box each, for both.
template <class T, class S, bool kGather>
__device__ __forceinline__ void fetch(const Operands<T>& on, const Tile& tile, uint32_t stage, uint32_t full, int input, int rank) {
    int boxes = kGather ? 0 : x_boxes(tile);
    if (S::kCluster == 2) {
        // Readers hand stages back to both blocks, whatever either fetched. Neither may get so far that they do it again before the
        // other has seen it.
        ptx::mbarrier_arrive_remote(ptx::mapa(full, rank ^ 1));
    }
    if (tile.rows == 0) {
        ptx::mbarrier_arrive(full);
        return;
    }
    ptx::mbarrier_arrive_expect_tx(full, boxes * kBoxBytes + S::kWeightBytes);
#pragma unroll
    for (int box = 0; box < S::kRows / kBoxRows; box++) {
        if (box < boxes) {
            ptx::tma_load_2d(stage + box * kBoxBytes, on.x_map, full, input, tile.row + box * kBoxRows);
        }
    }
    int first = tile.group * on.parts() * on.target.outputs + tile.column_tile * on.template tile_outputs<S>();
    int second = first + (on.gated() ? on.target.outputs : S::kWeightBox);
    uint32_t weight = stage + S::kXBytes;
    if (S::kCluster == 2 && tile.same_columns) {
        uint32_t target = weight + rank * (S::kWeightBytes / 2);
        ptx::tma_load_2d_multicast(target, on.weight_map, full, input, rank == 0 ? first : second, 3);
        return;
    }
    ptx::tma_load_2d(weight, on.weight_map, full, input, first);
    ptx::tma_load_2d(weight + S::kWeightBytes / 2, on.weight_map, full, input, second);
}

// The peer in the cluster may still hand stages back to a block that has ended its work, which must not be gone by then.
template <class S>
__device__ __forceinline__ void await_readers(const Shared<S>& shared, Position<S> position) {
    for (int i = 0; i < S::kStages && S::kCluster > 1; i++) {
        position.wait_empty(shared.barriers);
        position.advance();
    }
}

// One warp, of which one thread does the work.
template <class T, class S>
__device__ __forceinline__ void produce(const Operands<T>& on, const Shared<S>& shared, const cluster_tiles::Product& product) {
    Position<S> position;
    Walk<S> walk(product);
    Tile tile;
    while (walk.next(tile)) {
        if (ptx::elect_one()) {
#pragma unroll 1
            for (int stage = 0; stage < on.stages(); stage++) {
                position.wait_empty(shared.barriers);
                uint32_t full = shared.barriers.full(position.slot);
                fetch<T, S, false>(on, tile, shared.stage(position.slot), full, stage * kDepth, product.rank);
                position.advance();
            }
        }
        __syncwarp();
    }
    if (ptx::elect_one()) {
        await_readers<S>(shared, position);
    }
}

// Rows of x that a thread gathers: kCopiedRows apart in the tile.
template <class S>
constexpr int kGathered = S::kRows / kCopiedRows;

// The eight threads that copy the chunks of a row copy the same rows, so each of them looks up one. -1 for zeros.
template <class T, class S>
__device__ __forceinline__ int find_source(const Operands<T>& on, const Tile& tile) {
    static_assert(kGathered<S> <= kChunks);
    int row = threadIdx.x / kChunks + threadIdx.x % kChunks * kCopiedRows;
    return row < tile.rows ? on.row_to_slot[tile.row + row] / on.top_k : -1;
}

template <class T, class S>
__device__ __forceinline__ void gather(const Operands<T>& on, int source, int boxes, uint32_t stage, int input) {
    int chunk = threadIdx.x % kChunks;
    int column = input + chunk * kChunk;
    int first = threadIdx.x / kChunks;
#pragma unroll
    for (int i = 0; i < kGathered<S>; i++) {
        int x_row = __shfl_sync(cluster_tiles::kAllLanes, source, i, kChunks);
        if (i * kCopiedRows < boxes * kBoxRows) {
            bool exists = x_row >= 0 && column < on.inputs;
            const typename T::Bits* from = exists ? on.x + static_cast<long long>(x_row) * on.inputs + column : on.x;
            ptx::cp_async<16>(stage + wgmma_store::swizzled(first + i * kCopiedRows, chunk), from, exists ? 16 : 0);
        }
    }
}

// Four warps, all of whose threads copy. A stage is handed over once its copies have landed, when later ones are under way: the
// writers make them visible to wgmma, which cp.async itself does not.
template <class T, class S>
__device__ __forceinline__ void produce_gathered(const Operands<T>& on, const Shared<S>& shared, const cluster_tiles::Product& product) {
    // Consumers hand a stage back when they have the next one: with one more under way they and the producers would wait for each
    // other.
    constexpr int kUnderWay = S::kStages - 2;
    Position<S> position;
    Position<S> landed;
    int under_way = 0;
    auto hand_over = [&] {
        ptx::fence_proxy_async();
        ptx::mbarrier_arrive(shared.barriers.full(landed.slot));
        landed.advance();
    };
    Walk<S> walk(product);
    Tile tile;
    while (walk.next(tile)) {
        int source = find_source<T, S>(on, tile);
#pragma unroll 1
        for (int stage = 0; stage < on.stages(); stage++) {
            position.wait_empty(shared.barriers);
            uint32_t full = shared.barriers.full(position.slot);
            if (threadIdx.x < 32 && ptx::elect_one()) {
                fetch<T, S, true>(on, tile, shared.stage(position.slot), full, stage * kDepth, product.rank);
            }
            gather<T, S>(on, source, x_boxes(tile), shared.stage(position.slot), stage * kDepth);
            ptx::cp_async_commit_group();
            position.advance();
            if (under_way < kUnderWay) {
                under_way++;
            } else {
                ptx::cp_async_wait_group<kUnderWay>();
                hand_over();
            }
        }
    }
    ptx::cp_async_wait_all();
    for (; under_way > 0; under_way--) {
        hand_over();
    }
    await_readers<S>(shared, position);
}

template <int N>
__device__ __forceinline__ void multiply_add(BF16, float (&sums)[N / 2], uint64_t a, uint64_t b, int add) {
    ptx::wgmma_bf16<N>(sums, a, b, add);
}

template <int N>
__device__ __forceinline__ void multiply_add(F16, float (&sums)[N / 2], uint64_t a, uint64_t b, int add) {
    ptx::wgmma_f16<N>(sums, a, b, add);
}

// Hands a stage back to the producers of all blocks that may fill it. One arrival per warp and block.
template <class S>
__device__ __forceinline__ void release(const Shared<S>& shared, int slot) {
    int lane = threadIdx.x % 32;
    if (S::kCluster == 1) {
        if (lane == 0) {
            ptx::mbarrier_arrive(shared.barriers.empty(slot));
        }
    } else if (lane < S::kCluster) {
        ptx::mbarrier_arrive_remote(ptx::mapa(shared.barriers.empty(slot), lane));
    }
}

// The turns of two consumers that take the tiles in turn: one waits for the stages of its tile only when the other has seen the
// last of its own, for it would take the phase of a round that it sleeps through for that of its own.
template <class S>
struct Turns {
    uint32_t own;
    uint32_t other;
    uint32_t phase;

    __device__ __forceinline__ Turns(const Shared<S>& shared, int consumer)
        : own(shared.turn(consumer)), other(shared.turn(consumer ^ 1)), phase(consumer ^ 1) {}

    __device__ __forceinline__ void await() {
        if (S::kInTurn) {
            ptx::mbarrier_wait(own, phase);
            phase ^= 1;
        }
    }

    __device__ __forceinline__ void pass() const {
        if (S::kInTurn && threadIdx.x % 32 == 0) {
            ptx::mbarrier_arrive(other);
        }
    }
};

// A stage is handed back when the product of the next one has begun, so that the tensor cores always have one to go on with.
template <class T, class S>
__device__ __forceinline__ void multiply(const Shared<S>& shared, const Turns<S>& turns, Position<S>& position, int stages,
                                         int first_row, float (&sums)[S::kAccumulators]) {
    int previous = 0;
    for (int stage = 0; stage < stages; stage++) {
        position.wait_full(shared.barriers);
        // The same in all lanes, which the compiler sees only so: descriptors then stay in uniform registers.
        uint32_t bytes = shared.stage(__shfl_sync(cluster_tiles::kAllLanes, position.slot, 0));
        uint64_t x = ptx::k_major_descriptor(bytes + first_row * kRowBytes);
        uint64_t weight = ptx::k_major_descriptor(bytes + S::kXBytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < kDepth / 16; step++) {
            multiply_add<S::kColumns>(T(), sums, x + 2 * step, weight + 2 * step, (stage | step) != 0);
        }
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<1>();
        if (stage > 0) {
            release<S>(shared, previous);
        }
        previous = position.slot;
        position.advance();
    }
    turns.pass();
    ptx::wgmma_wait_group<0>();
    ptx::wgmma_hold(sums);
    release<S>(shared, previous);
}

// What a consumer does with a tile of which it has no rows.
template <class S>
__device__ __forceinline__ void return_stages(const Shared<S>& shared, Position<S>& position, int stages) {
#pragma unroll 1
    for (int stage = 0; stage < stages; stage++) {
        position.wait_full(shared.barriers);
        // A lane that is late would find the stage filled anew.
        __syncwarp();
        release<S>(shared, position.slot);
        position.advance();
    }
}

template <class T, class S>
__device__ __forceinline__ wgmma_store::Part part_of(const Operands<T>& on, const Tile& tile, int first_row) {
    int output = tile.column_tile * on.template tile_outputs<S>();
    wgmma_store::Part part = {tile.row + first_row, tile.rows - first_row, output, nullptr, {1.0f, 1.0f}};
    if (on.bias != nullptr) {
        part.bias = on.bias + static_cast<long long>(tile.group) * on.parts() * on.target.outputs + output;
    }
    int row = threadIdx.x % kWarpgroup / 32 * 16 + threadIdx.x % 32 / 4;
    if (on.slot_weights != nullptr) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if (row + half * 8 < part.rows) {
                part.slot_weights[half] = on.slot_weights[on.row_to_slot[part.row + row + half * 8]];
            }
        }
    }
    return part;
}

template <class T, class S>
__device__ __forceinline__ void consume(const Operands<T>& on, const Shared<S>& shared, const cluster_tiles::Product& product,
                                        int consumer) {
    wgmma_store::Chunks<S::kBuffers> chunks = {shared.bytes + S::kChunksAt + consumer * S::kChunkBytes, 1 + consumer};
    int first_row = S::kInTurn ? 0 : consumer * 64;
    int stages = on.stages();
    float sums[S::kAccumulators];
    Position<S> position;
    if (S::kInTurn && consumer > 0) {
        position.advance(stages);
    }
    Turns<S> turns(shared, consumer);
    cluster_tiles::Walk<S::kRows, S::kCluster, S::kInTurn ? S::kConsumers : 1> walk(product, S::kInTurn ? consumer : 0);
    Tile tile;
    while (walk.next(tile)) {
        turns.await();
        if (tile.rows <= first_row) {
            return_stages<S>(shared, position, stages);
            turns.pass();
        } else {
            multiply<T, S>(shared, turns, position, stages, first_row, sums);
            wgmma_store::store(on.target, part_of<T, S>(on, tile, first_row), sums, chunks);
        }
        if (S::kInTurn) {
            position.advance(stages);
        }
    }
    if (wgmma_store::leads_warpgroup()) {
        ptx::bulk_wait_group<0>();
    }
}

template <class T, class S, bool kGather>
__device__ __forceinline__ void grouped_gemm(const Operands<T>& on) {
    JMOE_DYNAMIC_SHARED(bytes);
    Shared<S> shared(bytes);
    // The same in all lanes of a warp, and the compiler shall know it.
    int warpgroup = __shfl_sync(cluster_tiles::kAllLanes, threadIdx.x / kWarpgroup, 0);
    int rank = S::kCluster == 1 ? 0 : static_cast<int>(ptx::cluster_rank());
    if (threadIdx.x == 0) {
        ptx::prefetch_tensor_map(on.weight_map);
        for (int consumer = 0; consumer < S::kConsumers; consumer++) {
            ptx::mbarrier_init(shared.turn(consumer), kWarpgroup / 32);
        }
        shared.barriers.init((kGather ? kWarpgroup : 0) + S::kCluster, S::kReaders);
    }
    const int* offsets = cluster_tiles::share_offsets(on.expert_offsets, on.groups, bytes + S::kOffsetsAt);
    if (S::kCluster > 1) {
        ptx::cluster_sync();
    } else {
        __syncthreads();
    }
    int column_tiles = (on.target.outputs * on.parts() + S::kColumns - 1) / S::kColumns;
    cluster_tiles::Product product = {offsets, on.rows, on.groups, column_tiles, rank};
    if (warpgroup == 0) {
        ptx::setmaxnreg_dec<Budget<S, kGather>::kProducer>();
        if constexpr (kGather) {
            produce_gathered<T, S>(on, shared, product);
        } else if (threadIdx.x < 32) {
            produce<T, S>(on, shared, product);
        }
    } else {
        ptx::setmaxnreg_inc<Budget<S, kGather>::kConsumer>();
        consume<T, S>(on, shared, product, warpgroup - 1);
    }
    if (S::kCluster > 1) {
        // Some lanes had more to do at the end, and the barrier wants them together.
        __syncwarp();
        ptx::cluster_sync();
    }
}

}  // namespace

#define GROUPED_GEMM_SM90(name, T, S, gather)                                                                                \
    extern "C" __global__ void __launch_bounds__(S::kThreads, S::kBlocks)                                                    \
        name(const __grid_constant__ ptx::TensorMap x_map, const __grid_constant__ ptx::TensorMap weight_map,                \
             const __grid_constant__ ptx::TensorMap y_map, const T::Bits* __restrict__ x,                                    \
             const int* __restrict__ row_to_slot, const float* __restrict__ slot_weights, const float* __restrict__ bias,    \
             const int* __restrict__ expert_offsets, void* __restrict__ y, int rows, int groups, int outputs, int inputs,    \
             int top_k, int y_dtype, int kind, float limit) {                                                                \
        grouped_gemm<T, S, gather>({&x_map, &weight_map, x, row_to_slot, slot_weights, bias, expert_offsets, rows, groups,   \
                                    inputs, top_k, {&y_map, y, outputs, y_dtype, kind, limit}});                             \
    }                                                                                                                        \
    JMOE_EXPORT_CLUSTER(name, S::kThreads, S::kRows, S::kSharedBytes, S::kCluster)

GROUPED_GEMM_SM90(grouped_gemm_sm90_f16_64x128, F16, Small, false);
GROUPED_GEMM_SM90(grouped_gemm_sm90_f16_64x256, F16, InTurn, false);
GROUPED_GEMM_SM90(grouped_gemm_sm90_f16_128x256, F16, Large, false);
GROUPED_GEMM_SM90(grouped_gemm_sm90_f16_64x128_gather, F16, Small, true);
GROUPED_GEMM_SM90(grouped_gemm_sm90_f16_64x256_gather, F16, InTurn, true);
GROUPED_GEMM_SM90(grouped_gemm_sm90_f16_128x256_gather, F16, Large, true);
GROUPED_GEMM_SM90(grouped_gemm_sm90_bf16_64x128, BF16, Small, false);
GROUPED_GEMM_SM90(grouped_gemm_sm90_bf16_64x256, BF16, InTurn, false);
GROUPED_GEMM_SM90(grouped_gemm_sm90_bf16_128x256, BF16, Large, false);
GROUPED_GEMM_SM90(grouped_gemm_sm90_bf16_64x128_gather, BF16, Small, true);
GROUPED_GEMM_SM90(grouped_gemm_sm90_bf16_64x256_gather, BF16, InTurn, true);
GROUPED_GEMM_SM90(grouped_gemm_sm90_bf16_128x256_gather, BF16, Large, true);
