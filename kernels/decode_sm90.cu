// Few tokens: weights are streamed once, as the 64-row operand of wgmma, and a token's rows are its columns
//     decode_gate_up: hidden[r] = activation(w[r] x[token of r] weight[e]^T + bias[e])
//     decode_down:    y[t] = addend[t] + shared[t] + factor * sum_k w[t,k] (hidden[row of t,k] weight[e]^T + bias[e])
//
// Shapes    the structs of common/decode_bank.cuh. Maps are of the weights, with the 128-byte swizzle: of a gated activation {inputs,
//           8, 2, outputs / 8, groups} in boxes {64, 8, 2, 4, 1}, which lays 8 gate rows beside their 8 up rows; otherwise {inputs,
//           outputs, groups} in boxes {64, 64, 1}.
// Grid      x: any; blocks take units in turn until there are none. As many as run at once.
// Numerics  F32 sums of exact products, in slices of at most 512 inputs and 16 at a time, then the slices in their order: a token
//           has the same bits in every batch and however slices are dealt. hidden is rounded once, the sum over experts too.
// Requires  sm_90a; inputs > 0, inputs % 8 == 0, outputs % 8 == 0 where gated; x and weights aligned to 16 bytes; at most 1024
//           routed rows and 2^15 groups. Launched early: behind route and gate_up, for which they wait themselves.
// Adjoint   none; training has no such batches.
//
// Four warps multiply; a fifth fetches, weights by TMA and rows of x by cp.async, through a ring that goes on from unit to unit:
// 96 kB on the way for each multiprocessor. Where slices of a tile are split, the last block to arrive adds the parts.
#include "common/arrivals.cuh"
#include "common/decode_combine.cuh"
#include "common/decode_sums.cuh"
#include "common/decode_units.cuh"
#include "common/stage_ring.cuh"

namespace {

using decode::Unit;
using dtypes::BF16;
using dtypes::F16;

constexpr uint32_t kAllLanes = 0xffffffffu;
constexpr int kThreads = decode::kThreads + 32;
constexpr int kStages = 6;
constexpr int kBlocks = 2;  // that fit a multiprocessor
constexpr int kWeightBytes = decode::kColumns * decode::kRowBytes;
constexpr int kStageBytes = kWeightBytes + decode::kRows * decode::kRowBytes;
constexpr int kBarriersAt = kStages * kStageBytes;
constexpr int kTilesAt = kBarriersAt + stage_ring::Barriers<kStages>::kBytes;
constexpr int kFlagAt = kTilesAt + decode::kMaxRows * 4;
constexpr int kSlotsAt = kFlagAt + 16;
constexpr int kSharedBytes = kSlotsAt + decode::Slots::kBytes;
static_assert(kBlocks * (kSharedBytes + 1024) <= 228 * 1024, "shared memory");

using Barriers = stage_ring::Barriers<kStages>;
using Position = stage_ring::Position<kStages>;

// What both kernels are given.
struct Operands {
    const ptx::TensorMap* routed_map;
    const ptx::TensorMap* shared_map;
    const DecodeBank& routed;
    const DecodeBank& shared;

    __device__ __forceinline__ const DecodeBank& bank(const Unit& unit) const { return unit.shared ? shared : routed; }
    __device__ __forceinline__ const ptx::TensorMap* map(const Unit& unit) const { return unit.shared ? shared_map : routed_map; }
};

// Tokens are multiplied 8, 16, 32 or 64 at a time.
__device__ __forceinline__ int padded(int rows) { return rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : 64; }

// A stage's weights, by one thread.
__device__ __forceinline__ void fetch_weight(const Operands& on, const Unit& unit, uint32_t stage, uint32_t full, int input) {
    ptx::mbarrier_arrive_expect_tx(full, kWeightBytes);
    if (decode::gated(on.bank(unit))) {
        ptx::tma_load_5d_hinted(stage, on.map(unit), full, input, 0, 0, unit.column_tile * 4, unit.group, ptx::EVICT_FIRST);
    } else {
        ptx::tma_load_3d_hinted(stage, on.map(unit), full, input, unit.column_tile * decode::kColumns, unit.group, ptx::EVICT_FIRST);
    }
}

// The rows of x that a unit has, two to a lane; -1 for none.
struct Sources {
    int low;
    int high;

    __device__ __forceinline__ int of(int row) const {
        int from_low = __shfl_sync(kAllLanes, low, row % 32);
        int from_high = __shfl_sync(kAllLanes, high, row % 32);
        return row < 32 ? from_low : from_high;
    }
};

template <bool kDown>
__device__ __forceinline__ int find_source(const DecodeBank& bank, const Unit& unit, int row) {
    if (row >= unit.rows) {
        return -1;
    }
    row += unit.row;
    return kDown || bank.row_to_slot == nullptr ? row : bank.row_to_slot[row] / bank.top_k;
}

// A stage's rows of x, by a warp; zeros for those that a product is padded with.
template <class T>
__device__ __forceinline__ void copy_rows(const DecodeBank& bank, const Unit& unit, const Sources& sources, uint32_t stage, int input) {
    int lane = threadIdx.x % 32;
    int chunk = lane % decode::kChunks;
    int column = input + chunk * decode::kChunk;
    const typename T::Bits* x = static_cast<const typename T::Bits*>(bank.x);
#pragma unroll 2
    for (int first = 0; first < padded(unit.rows); first += 32 / decode::kChunks) {
        int row = first + lane / decode::kChunks;
        int source = sources.of(row);
        bool exists = source >= 0 && column < bank.inputs;
        const typename T::Bits* from = exists ? x + static_cast<long long>(source) * bank.inputs + column : x;
        ptx::cp_async<16>(stage + decode::swizzled(row, chunk), from, exists ? 16 : 0);
    }
}

// The fetching warp. A stage is handed over once its copies have landed, when later ones are under way: the writers make them
// visible to wgmma, which cp.async itself does not.
template <class T, bool kDown>
__device__ __forceinline__ void produce(const Operands& on, const decode::Units& units, uint32_t ring) {
    // Consumers hand a stage back when they have the next one: with one more under way they and the producer would wait for each
    // other.
    constexpr int kUnderWay = kStages - 2;
    Barriers barriers = {ring + kBarriersAt};
    Position position;
    Position landed;
    int under_way = 0;
    auto hand_over = [&] {
        ptx::fence_proxy_async();
        ptx::mbarrier_arrive(barriers.full(landed.slot));
        landed.advance();
    };
    for (int number = static_cast<int>(blockIdx.x); units.exists(number); number += static_cast<int>(gridDim.x)) {
        Unit unit = units.at(number, on.routed, on.shared);
        const DecodeBank& bank = on.bank(unit);
        int lane = threadIdx.x % 32;
        Sources sources = {find_source<kDown>(bank, unit, lane), find_source<kDown>(bank, unit, lane + 32)};
        decode::Slices slices(bank.inputs);
        int end = slices.first_stage(unit.first_slice + unit.slices);
#pragma unroll 1
        for (int stage = slices.first_stage(unit.first_slice); stage < end; stage++) {
            position.wait_empty(barriers);
            uint32_t at = ring + position.slot * kStageBytes;
            if (ptx::elect_one()) {
                fetch_weight(on, unit, at, barriers.full(position.slot), stage * decode::kDepth);
            }
            __syncwarp();
            copy_rows<T>(bank, unit, sources, at + kWeightBytes, stage * decode::kDepth);
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
}

// Brings the first weights that decode_down will want into L2, while the last units here are multiplied: memory never rests.
__device__ __forceinline__ void prefetch(const DecodePrefetch& next, const decode::Units& units) {
    if (units.routed_tiles() == 0) {
        return;
    }
    for (int i = 0; i < next.tiles; i++) {
        int tile = static_cast<int>(blockIdx.x + i * gridDim.x);
        int first = tile / units.routed_tiles() * decode::kColumns;
        long long group_row = static_cast<long long>(units.group_of(tile % units.routed_tiles())) * next.columns;
        for (int row = first + static_cast<int>(threadIdx.x % 32); row < min(first + decode::kColumns, next.columns); row += 32) {
            const uint16_t* weight = static_cast<const uint16_t*>(next.weight) + (group_row + row) * next.inputs;
            ptx::bulk_prefetch(weight, static_cast<uint32_t>(next.inputs) * 2);
        }
    }
}

template <int N>
__device__ __forceinline__ void multiply_add(BF16, float (&sums)[N / 2], uint64_t weight, uint64_t x, int add) {
    ptx::wgmma_bf16<N>(sums, weight, x, add);
}

template <int N>
__device__ __forceinline__ void multiply_add(F16, float (&sums)[N / 2], uint64_t weight, uint64_t x, int add) {
    ptx::wgmma_f16<N>(sums, weight, x, add);
}

// Hands a stage back, one arrival for each warp.
__device__ __forceinline__ void release(const Barriers& barriers, int slot) {
    if (threadIdx.x % 32 == 0) {
        ptx::mbarrier_arrive(barriers.empty(slot));
    }
}

// A slice's sums. A stage is handed back when the product of the next one has begun, so that the tensor cores have one to go on with.
template <class T, int N>
__device__ __forceinline__ void multiply_slice(uint32_t ring, Position& position, int stages, float (&sums)[N / 2]) {
    Barriers barriers = {ring + kBarriersAt};
    int previous = 0;
    // Zeros that stand before the first wgmma: where it ignored the sums instead, the compiler was seen to define them later, and
    // ptxas to serialise for it.
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        sums[i] = 0.0f;
    }
    ptx::wgmma_hold(sums);
    for (int stage = 0; stage < stages; stage++) {
        position.wait_full(barriers);
        // The same in all lanes, which the compiler sees only so: descriptors then stay in uniform registers.
        uint32_t at = ring + __shfl_sync(kAllLanes, position.slot, 0) * kStageBytes;
        uint64_t weight = ptx::k_major_descriptor(at);
        uint64_t x = ptx::k_major_descriptor(at + kWeightBytes);
        ptx::wgmma_fence();
#pragma unroll
        for (int step = 0; step < decode::kDepth / 16; step++) {
            multiply_add<N>(T(), sums, weight + 2 * step, x + 2 * step, 1);
        }
        ptx::wgmma_commit_group();
        ptx::wgmma_wait_group<1>();
        if (stage > 0) {
            release(barriers, previous);
        }
        previous = position.slot;
        position.advance();
    }
    ptx::wgmma_wait_group<0>();
    ptx::wgmma_hold(sums);
    release(barriers, previous);
}

// The sums of a unit; those of split slices are stored as they come, and there are no others.
template <class T, int N>
__device__ __forceinline__ void multiply_unit(const DecodeBank& bank, const Unit& unit, uint32_t ring, Position& position,
                                              float (&total)[N / 2]) {
    decode::Slices slices(bank.inputs);
    float sums[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
        total[i] = 0.0f;
    }
#pragma unroll 1
    for (int slice = unit.first_slice; slice < unit.first_slice + unit.slices; slice++) {
        multiply_slice<T, N>(ring, position, slices.first_stage(slice + 1) - slices.first_stage(slice), sums);
        if (unit.split) {
            decode::store_part(bank, unit, slice, sums);
            continue;
        }
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            total[i] += sums[i];
        }
    }
}

// The threads that multiply, and what they share.
struct Consumers {
    uint32_t ring;
    Position position;
    int* flag;

    __device__ __forceinline__ bool last_to_arrive(unsigned* counter, unsigned count) const {
        return arrivals::is_last(counter, count, threadIdx.x == 0, 1, decode::kThreads, flag);
    }
};

template <class T, int N>
__device__ __forceinline__ void gate_up_unit(const DecodeBank& bank, const Unit& unit, Consumers& consumers) {
    float sums[N / 2];
    multiply_unit<T, N>(bank, unit, consumers.ring, consumers.position, sums);
    if (unit.split) {
        long long tile = static_cast<long long>(unit.row) * decode::column_tiles(bank) + unit.column_tile;
        if (!consumers.last_to_arrive(bank.arrivals + tile, static_cast<unsigned>(decode::units_per_tile(bank)))) {
            return;
        }
        decode::add_parts(bank, unit, sums);
    }
    decode::store_hidden<T>(bank, unit, sums);
}

template <class T, int N>
__device__ __forceinline__ void down_unit(const DecodeBank& bank, const Unit& unit, Consumers& consumers) {
    float sums[N / 2];
    multiply_unit<T, N>(bank, unit, consumers.ring, consumers.position, sums);
    if (!unit.split) {
        decode::store_part(bank, unit, 0, sums);
    }
}

template <class T, int N, bool kDown>
__device__ __forceinline__ void run_unit(const DecodeBank& bank, const Unit& unit, Consumers& consumers) {
    if constexpr (kDown) {
        down_unit<T, N>(bank, unit, consumers);
    } else {
        gate_up_unit<T, N>(bank, unit, consumers);
    }
}

template <class T, bool kDown, class Then>
__device__ __forceinline__ void consume(const Operands& on, const decode::Units& units, Consumers& consumers, Then then) {
    for (int number = static_cast<int>(blockIdx.x); units.exists(number); number += static_cast<int>(gridDim.x)) {
        Unit unit = units.at(number, on.routed, on.shared);
        const DecodeBank& bank = on.bank(unit);
        switch (padded(unit.rows)) {
            case 8:
                run_unit<T, 8, kDown>(bank, unit, consumers);
                break;
            case 16:
                run_unit<T, 16, kDown>(bank, unit, consumers);
                break;
            case 32:
                run_unit<T, 32, kDown>(bank, unit, consumers);
                break;
            default:
                run_unit<T, 64, kDown>(bank, unit, consumers);
        }
        then(unit);
    }
}

// What a block does before it knows what the launch before has written, and then its list of row tiles.
__device__ __forceinline__ int begin(const Operands& on, unsigned char* bytes) {
    if (threadIdx.x == 0) {
        ptx::prefetch_tensor_map(on.routed_map);
        ptx::prefetch_tensor_map(on.shared_map);
        Barriers barriers = {ptx::shared_address(bytes) + kBarriersAt};
        barriers.init(32 + 1, decode::kThreads / 32);
    }
    ptx::grid_dependency_wait();
    int tiles = decode::list_row_tiles<kThreads>(on.routed, reinterpret_cast<uint32_t*>(bytes + kTilesAt));
    __syncthreads();
    return tiles;
}

template <class T>
__device__ __forceinline__ void gate_up(const Operands& on, const DecodePrefetch& next) {
    JMOE_DYNAMIC_SHARED(bytes);
    int tiles = begin(on, bytes);
    // Only now: what starts early then finds that route has ended.
    ptx::grid_dependency_launch();
    decode::Units units(on.routed, on.shared, reinterpret_cast<const uint32_t*>(bytes + kTilesAt), tiles);
    uint32_t ring = ptx::shared_address(bytes);
    if (__shfl_sync(kAllLanes, threadIdx.x / 32, 0) == decode::kThreads / 32) {
        produce<T, false>(on, units, ring);
        prefetch(next, units);
    } else {
        Consumers consumers = {ring, {}, reinterpret_cast<int*>(bytes + kFlagAt)};
        consume<T, false>(on, units, consumers, [](const Unit&) {});
    }
}

template <class T>
__device__ __forceinline__ void down(const Operands& on, const DecodeCombine& combine) {
    JMOE_DYNAMIC_SHARED(bytes);
    int tiles = begin(on, bytes);
    decode::Units units(on.routed, on.shared, reinterpret_cast<const uint32_t*>(bytes + kTilesAt), tiles);
    uint32_t ring = ptx::shared_address(bytes);
    int per_column_tile = units.fill(on.routed) ? 1 : units.per_column_tile(on.routed, on.shared);
    if (__shfl_sync(kAllLanes, threadIdx.x / 32, 0) == decode::kThreads / 32) {
        produce<T, true>(on, units, ring);
        return;
    }
    // Meanwhile the first weights are on their way. Whoever combines has met the others at a barrier.
    decode::Slots slots(bytes + kSlotsAt);
    slots.load(combine);
    Consumers consumers = {ring, {}, reinterpret_cast<int*>(bytes + kFlagAt)};
    consume<T, true>(on, units, consumers, [&](const Unit& unit) {
        if (consumers.last_to_arrive(combine.arrivals + unit.column_tile, static_cast<unsigned>(per_column_tile))) {
            decode::combine(combine, on.routed, on.shared, slots, unit.column_tile);
        }
    });
}

}  // namespace

#define DECODE_SM90(type, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(kThreads, kBlocks)                                                            \
        decode_gate_up_sm90_##type(const __grid_constant__ ptx::TensorMap routed_map,                                          \
                                   const __grid_constant__ ptx::TensorMap shared_map, const __grid_constant__ DecodeBank routed, \
                                   const __grid_constant__ DecodeBank shared, const __grid_constant__ DecodePrefetch next) {   \
        gate_up<T>({&routed_map, &shared_map, routed, shared}, next);                                                          \
    }                                                                                                                          \
    JMOE_EXPORT(decode_gate_up_sm90_##type, kThreads, decode::kColumns, kSharedBytes);                                         \
    extern "C" __global__ void __launch_bounds__(kThreads, kBlocks)                                                            \
        decode_down_sm90_##type(const __grid_constant__ ptx::TensorMap routed_map,                                             \
                                const __grid_constant__ ptx::TensorMap shared_map, const __grid_constant__ DecodeBank routed,  \
                                const __grid_constant__ DecodeBank shared, const __grid_constant__ DecodeCombine combine) {    \
        down<T>({&routed_map, &shared_map, routed, shared}, combine);                                                          \
    }                                                                                                                          \
    JMOE_EXPORT(decode_down_sm90_##type, kThreads, decode::kColumns, kSharedBytes)

DECODE_SM90(f16, F16);
DECODE_SM90(bf16, BF16);
