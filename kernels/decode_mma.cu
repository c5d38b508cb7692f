// Few tokens: weights are streamed once, as the 16-row operand of mma.sync, and a token's rows are its columns
//     decode_gate_up: hidden[r] = activation(w[r] x[token of r] weight[e]^T + bias[e])
//     decode_down:    y[t] = addend[t] + shared[t] + factor * sum_k w[t,k] (hidden[row of t,k] weight[e]^T + bias[e])
//
// Shapes    the structs of common/decode_bank.cuh.
// Grid      x: any; blocks take units in turn until there are none. As many as run at once.
// Numerics  as in decode_sm90.cu, whose bits may differ.
// Requires  sm_80; inputs > 0; at most 1024 routed rows and 2^15 groups. Nothing of sizes; rows of x and weight are copied 16 bytes at
//           a time where they are aligned to that, else by elements.
// Adjoint   none; training has no such batches.
//
// Four warps copy by cp.async, through a ring that goes on from unit to unit, and multiply 16 rows of a column tile each. With a gated
// activation these are 8 gates and their 8 ups, so that a thread holds both of an output.
#include "common/arrivals.cuh"
#include "common/decode_combine.cuh"
#include "common/decode_sums.cuh"
#include "common/decode_units.cuh"

namespace {

using decode::Unit;
using dtypes::BF16;
using dtypes::F16;

constexpr int kThreads = decode::kThreads;
constexpr int kStages = 4;
constexpr int kBlocks = 2;                               // that fit a multiprocessor of sm_80
constexpr int kCopiedRows = kThreads / decode::kChunks;    // rows that all threads copy at once
constexpr int kCopies = decode::kRows / kCopiedRows;       // of a thread, in a stage of x as of the weight
constexpr int kTileRows = 8;                               // of x, that mma takes at once
constexpr int kTiles = decode::kRows / kTileRows;
constexpr int kWeightBytes = decode::kColumns * decode::kRowBytes;
constexpr int kStageBytes = kWeightBytes + decode::kRows * decode::kRowBytes;
constexpr int kTilesAt = kStages * kStageBytes;
constexpr int kSlotsAt = kTilesAt + decode::kMaxRows * 4;
constexpr int kSharedBytes = kSlotsAt + decode::Slots::kBytes;
static_assert(kBlocks * (kSharedBytes + 1024) <= 164 * 1024, "shared memory");

// What both kernels are given.
struct Operands {
    const DecodeBank& routed;
    const DecodeBank& shared;

    __device__ __forceinline__ const DecodeBank& bank(const Unit& unit) const { return unit.shared ? shared : routed; }
};

// Where a block is in its units: its copies are some stages ahead of its products.
struct Cursor {
    int number;
    Unit unit = {};
    int stage;  // of the inputs
    int end;

    __device__ __forceinline__ Cursor(const Operands& on, const decode::Units& units) { open(static_cast<int>(blockIdx.x), on, units); }

    __device__ __forceinline__ void next_unit(const Operands& on, const decode::Units& units) {
        open(number + static_cast<int>(gridDim.x), on, units);
    }

private:
    __device__ __forceinline__ void open(int next, const Operands& on, const decode::Units& units) {
        number = next;
        stage = 0;
        end = 0;
        if (units.exists(number)) {
            unit = units.at(number, on.routed, on.shared);
            decode::Slices slices(on.bank(unit).inputs);
            stage = slices.first_stage(unit.first_slice);
            end = slices.first_stage(unit.first_slice + unit.slices);
        }
    }
};

// The rows that a thread copies, the same in every stage of a unit, kCopiedRows apart; -1 for none.
struct Sources {
    int x[kCopies];
    int weights[kCopies];
};

// The weight's row that lies in a row of the column tile.
__device__ __forceinline__ int weight_row(const DecodeBank& bank, const Unit& unit, int row) {
    int output = unit.column_tile * decode::tile_outputs(bank);
    int part = 0;
    if (decode::gated(bank)) {
        output += row / 16 * 8 + row % 8;
        part = row / 8 % 2;
    } else {
        output += row;
    }
    int parts = decode::gated(bank) ? 2 : 1;
    return output < bank.outputs ? (unit.group * parts + part) * bank.outputs + output : -1;
}

template <bool kDown>
__device__ __forceinline__ void find_sources(const DecodeBank& bank, const Unit& unit, Sources& sources) {
#pragma unroll
    for (int i = 0; i < kCopies; i++) {
        int row = static_cast<int>(threadIdx.x) / decode::kChunks + i * kCopiedRows;
        sources.weights[i] = weight_row(bank, unit, row);
        sources.x[i] = -1;
        if (row < unit.rows) {
            row += unit.row;
            sources.x[i] = kDown || bank.row_to_slot == nullptr ? row : bank.row_to_slot[row] / bank.top_k;
        }
    }
}

// One chunk of a row into shared memory, zeros where there is none.
template <class T>
__device__ __forceinline__ void copy_chunk(uint32_t to, unsigned char* to_bytes, const void* matrix, int row, int width, int column,
                                           bool aligned) {
    bool exists = row >= 0 && column < width;
    const typename T::Bits* from = static_cast<const typename T::Bits*>(matrix);
    from = exists ? from + static_cast<long long>(row) * width + column : from;
    if (aligned) {
        ptx::cp_async<16>(to, from, exists ? 16 : 0);
        return;
    }
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < decode::kChunk; i++) {
        if (exists && width - column > i) {
            words[i / 2] |= static_cast<uint32_t>(from[i]) << i % 2 * 16;
        }
    }
    *reinterpret_cast<uint4*>(to_bytes) = make_uint4(words[0], words[1], words[2], words[3]);
}

// Starts the copies of the cursor's stage. Rows of x that the unit lacks are copied as zeros up to the next tile.
template <class T>
__device__ __forceinline__ void copy_stage(const DecodeBank& bank, const Cursor& at, const Sources& sources, unsigned char* stage) {
    int chunk = threadIdx.x % decode::kChunks;
    int first = threadIdx.x / decode::kChunks;
    int column = at.stage * decode::kDepth + chunk * decode::kChunk;
    bool aligned = dtypes::vectors_fit(bank.inputs, bank.x, bank.weight);
    uint32_t address = ptx::shared_address(stage);
#pragma unroll
    for (int i = 0; i < kCopies; i++) {
        int to = decode::swizzled(first + i * kCopiedRows, chunk);
        copy_chunk<T>(address + to, stage + to, bank.weight, sources.weights[i], bank.inputs, column, aligned);
    }
#pragma unroll
    for (int i = 0; i < kCopies; i++) {
        if (i * kCopiedRows < at.unit.rows) {
            int to = kWeightBytes + decode::swizzled(first + i * kCopiedRows, chunk);
            copy_chunk<T>(address + to, stage + to, bank.x, sources.x[i], bank.inputs, column, aligned);
        }
    }
}

__device__ __forceinline__ void multiply_add(BF16, float (&sums)[4], const uint32_t (&weight)[4], const uint32_t (&x)[2]) {
    ptx::mma_m16n8k16_bf16(sums, weight, x);
}

__device__ __forceinline__ void multiply_add(F16, float (&sums)[4], const uint32_t (&weight)[4], const uint32_t (&x)[2]) {
    ptx::mma_m16n8k16_f16(sums, weight, x);
}

// A stage, for the warp's 16 rows of the weight. Tiles without rows are left out.
template <class T>
__device__ __forceinline__ void multiply_stage(float (&sums)[kTiles][4], uint32_t stage, int rows) {
    int lane = threadIdx.x % 32;
    int first = threadIdx.x / 32 * 16;
#pragma unroll
    for (int step = 0; step < decode::kDepth / 16; step++) {
        uint32_t weight[4];
        ptx::ldmatrix_x4(weight, stage + decode::swizzled(first + lane % 16, step * 2 + lane / 16));
#pragma unroll
        for (int tile = 0; tile < kTiles; tile++) {
            if (tile * kTileRows < rows) {
                uint32_t x[2];
                ptx::ldmatrix_x2(x, stage + kWeightBytes + decode::swizzled(tile * kTileRows + lane % 8, step * 2 + lane / 8 % 2));
                multiply_add(T(), sums[tile], weight, x);
            }
        }
    }
}

// The sums of a slice, and those of the slices before.
struct Accumulators {
    float slice[kTiles][4];
    float total[kTiles * 4];

    __device__ __forceinline__ void begin_slice() {
#pragma unroll
        for (int i = 0; i < kTiles * 4; i++) {
            slice[i / 4][i % 4] = 0.0f;
        }
    }

    __device__ __forceinline__ void begin_unit() {
        begin_slice();
#pragma unroll
        for (int i = 0; i < kTiles * 4; i++) {
            total[i] = 0.0f;
        }
    }

    // Stores the sums of a split slice, or adds them.
    __device__ __forceinline__ void end_slice(const DecodeBank& bank, const Unit& unit, int index) {
        if (unit.split) {
            float sums[kTiles * 4];
#pragma unroll
            for (int i = 0; i < kTiles * 4; i++) {
                sums[i] = slice[i / 4][i % 4];
            }
            decode::store_part(bank, unit, index, sums);
        } else {
#pragma unroll
            for (int i = 0; i < kTiles * 4; i++) {
                total[i] += slice[i / 4][i % 4];
            }
        }
        begin_slice();
    }
};

// Copies the stages of a block's units one after the other.
template <class T, bool kDown>
class Copies {
public:
    __device__ __forceinline__ Copies(const Operands& on, const decode::Units& units) : on_(on), units_(units), at_(on, units) {}

    // Starts the next stage, if there is one, and ends a group in any case.
    __device__ __forceinline__ void start(unsigned char* stage) {
        if (at_.stage < at_.end) {
            const DecodeBank& bank = on_.bank(at_.unit);
            if (!found_) {
                find_sources<kDown>(bank, at_.unit, sources_);
                found_ = true;
            }
            copy_stage<T>(bank, at_, sources_, stage);
            at_.stage++;
            if (at_.stage == at_.end) {
                at_.next_unit(on_, units_);
                found_ = false;
            }
        }
        ptx::cp_async_commit_group();
    }

private:
    const Operands& on_;
    const decode::Units& units_;
    Cursor at_;
    Sources sources_;
    bool found_ = false;
};

// Goes through the block's units; complete is called with the sums of each.
template <class T, bool kDown, class Complete>
__device__ __forceinline__ void multiply_units(const Operands& on, const decode::Units& units, unsigned char* ring, Complete complete) {
    Copies<T, kDown> copies(on, units);
    for (int slot = 0; slot < kStages - 1; slot++) {
        copies.start(ring + slot * kStageBytes);
    }
    int slot = 0;
    for (Cursor at(on, units); units.exists(at.number); at.next_unit(on, units)) {
        const DecodeBank& bank = on.bank(at.unit);
        decode::Slices slices(bank.inputs);
        Accumulators sums;
        sums.begin_unit();
        int slice = at.unit.first_slice;
        for (; at.stage < at.end; at.stage++) {
            ptx::cp_async_wait_group<kStages - 2>();
            // Everybody's copies of this stage are there, and nobody reads the stage before, which is filled next.
            __syncthreads();
            copies.start(ring + (slot == 0 ? kStages - 1 : slot - 1) * kStageBytes);
            multiply_stage<T>(sums.slice, ptx::shared_address(ring + slot * kStageBytes), at.unit.rows);
            slot = slot == kStages - 1 ? 0 : slot + 1;
            if (at.stage + 1 == slices.first_stage(slice + 1)) {
                sums.end_slice(bank, at.unit, slice);
                slice++;
            }
        }
        complete(bank, at.unit, sums.total);
    }
}

__device__ __forceinline__ decode::Units list_units(const Operands& on, unsigned char* bytes) {
    uint32_t* tiles = reinterpret_cast<uint32_t*>(bytes + kTilesAt);
    int count = decode::list_row_tiles<kThreads>(on.routed, tiles);
    return {on.routed, on.shared, tiles, count};
}

template <class T>
__device__ __forceinline__ void gate_up(const Operands& on) {
    JMOE_DYNAMIC_SHARED(bytes);
    ptx::grid_dependency_wait();
    ptx::grid_dependency_launch();
    decode::Units units = list_units(on, bytes);
    multiply_units<T, false>(on, units, bytes, [&](const DecodeBank& bank, const Unit& unit, float(&sums)[kTiles * 4]) {
        if (unit.split) {
            long long tile = static_cast<long long>(unit.row) * decode::column_tiles(bank) + unit.column_tile;
            if (!arrivals::is_last(bank.arrivals + tile, static_cast<unsigned>(decode::units_per_tile(bank)))) {
                return;
            }
            decode::add_parts(bank, unit, sums);
        }
        decode::store_hidden<T>(bank, unit, sums);
    });
}

template <class T>
__device__ __forceinline__ void down(const Operands& on, const DecodeCombine& combine) {
    JMOE_DYNAMIC_SHARED(bytes);
    ptx::grid_dependency_wait();
    decode::Slots slots(bytes + kSlotsAt);
    slots.load(combine);
    decode::Units units = list_units(on, bytes);
    __syncthreads();
    int per_column_tile = units.fill(on.routed) ? 1 : units.per_column_tile(on.routed, on.shared);
    multiply_units<T, true>(on, units, bytes, [&](const DecodeBank& bank, const Unit& unit, float(&sums)[kTiles * 4]) {
        if (!unit.split) {
            decode::store_part(bank, unit, 0, sums);
        }
        if (arrivals::is_last(combine.arrivals + unit.column_tile, static_cast<unsigned>(per_column_tile))) {
            decode::combine(combine, on.routed, on.shared, slots, unit.column_tile);
        }
    });
}

}  // namespace

#define DECODE_MMA(type, T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(kThreads, kBlocks)                                                          \
        decode_gate_up_mma_##type(const __grid_constant__ DecodeBank routed, const __grid_constant__ DecodeBank shared) {    \
        gate_up<T>({routed, shared});                                                                                        \
    }                                                                                                                        \
    JMOE_EXPORT(decode_gate_up_mma_##type, kThreads, decode::kColumns, kSharedBytes);                                        \
    extern "C" __global__ void __launch_bounds__(kThreads, kBlocks)                                                          \
        decode_down_mma_##type(const __grid_constant__ DecodeBank routed, const __grid_constant__ DecodeBank shared,         \
                               const __grid_constant__ DecodeCombine combine) {                                              \
        down<T>({routed, shared}, combine);                                                                                  \
    }                                                                                                                        \
    JMOE_EXPORT(decode_down_mma_##type, kThreads, decode::kColumns, kSharedBytes)

DECODE_MMA(f16, F16);
DECODE_MMA(bf16, BF16);
