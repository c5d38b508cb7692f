// y[r] = activation(w[r] x[token of r] weight[e]^T + bias[e]) for expertOffsets[e] <= r < expertOffsets[e + 1]
//
// Shapes    x [rows, inputs], or [tokens, inputs] with row_to_slot, whose rows are gathered on the way: the token of r is
//           row_to_slot[r] / top_k, and w F32 by slot, null for 1. weight [groups, outputs, inputs], with a gated activation [groups, 2 outputs, inputs], gate
//           before up, and in the kernels named transposed [groups, inputs, outputs], for y[r] = x[r] weight[e]; bias F32 beside
//           the outputs or null. y [rows, outputs] of the type y_dtype; rows past the last offset are not
//           touched. kind is Activation.Kind, or -1 for none.
// Grid      x: any; blocks take tiles in turn until there are none. As many as fit the device, or the tiles that can exist.
// Numerics  F32 sums of exact products in the order of the inputs, 16 at a time, in every kernel of this file: a row depends on
//           nothing but itself and its expert. w, bias and activation in F32, one rounding.
// Requires  sm_80. Nothing of sizes; rows of x and weight are copied 16 bytes at a time where they are aligned to that, else by
//           elements.
// Adjoint   for x the transposed kernel with the same weight, for the weight groupedGemmWgrad.
//
// Three sizes of tiles, all of 128 columns: 16 rows stream the weights of experts with few tokens, 128 rows are for large
// batches. Rows that a tile lacks are neither loaded nor multiplied. Stages of kDepth inputs pass through a ring in shared memory,
// filled by cp.async. Rows of a stage are whole lines of 128 bytes, whose eight chunks are swapped by the row's number, so that
// neither the copy nor ldmatrix meets a bank twice. The sums go through the same memory into whole lines of y.
#include "common/activation.cuh"
#include "common/dtypes.cuh"
#include "common/group_tiles.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::Values;

constexpr int kThreads = 128;
constexpr int kColumns = 128;                    // of a tile: outputs, or outputs / 2 gates and as many ups
constexpr int kDepth = 64;                       // inputs of a stage
constexpr int kChunk = 8;                        // elements that are copied at once
constexpr int kChunks = kDepth / kChunk;         // of a row of a stage
constexpr int kCopiedRows = kThreads / kChunks;  // rows that all threads copy at once
constexpr int kRowBytes = kDepth * 2;
constexpr int kSumStride = kColumns + 4;  // floats; the padding spreads rows over the banks

// A tile of rows times kColumns, shared by four warps. A stage of the weight has a row for each column, or, transposed, a row for
// each input.
template <int rows, int warps_down, int stages, int blocks, bool transposed = false>
struct Shape {
    static constexpr bool kTransposed = transposed;
    static constexpr int kRows = rows;
    static constexpr int kWarpsAcross = kThreads / 32 / warps_down;
    static constexpr int kWarpRows = rows / warps_down;
    static constexpr int kWarpColumns = kColumns / kWarpsAcross;
    static constexpr int kRowTiles = kWarpRows / 16;       // of mma, per warp
    static constexpr int kColumnTiles = kWarpColumns / 8;  // of mma, per warp
    static constexpr int kStages = stages;
    static constexpr int kBlocks = blocks;  // that fit a multiprocessor of sm_90
    static constexpr int kXBytes = rows * kRowBytes;
    static constexpr int kStageBytes = kXBytes + kColumns * kRowBytes;
    static constexpr int kSharedBytes = stages * kStageBytes;
    static_assert(kRowTiles * 16 * warps_down == rows && kColumnTiles % 2 == 0);
    static_assert(kSharedBytes >= rows * kSumStride * 4, "the sums go through the ring");
};

using Small = Shape<16, 1, 4, 3>;
using Medium = Shape<64, 2, 4, 2>;
using Large = Shape<128, 2, 3, 2>;
using MediumTransposed = Shape<64, 2, 4, 2, true>;
using LargeTransposed = Shape<128, 2, 3, 2, true>;

// What a kernel is given.
template <class T>
struct Operands {
    const typename T::Bits* x;
    const int* row_to_slot;
    const float* slot_weights;
    const typename T::Bits* weight;
    const float* bias;
    const int* expert_offsets;
    void* y;
    int rows;
    int groups;
    int outputs;
    int inputs;
    int top_k;
    int y_dtype;
    int kind;
    float limit;

    __device__ __forceinline__ bool gated() const { return activation::gated(kind); }
    __device__ __forceinline__ int parts() const { return gated() ? 2 : 1; }
    __device__ __forceinline__ int tile_outputs() const { return kColumns / parts(); }
    // Rows of the weight are of inputs, or, transposed, of outputs.
    template <class S>
    __device__ __forceinline__ bool aligned() const {
        return dtypes::vectors_fit(inputs, x, weight) && (!S::kTransposed || dtypes::vectors_fit(outputs, weight, nullptr));
    }
};

// Where a block works: some rows of a group by some outputs.
struct Tile {
    int group;
    int row;  // first
    int rows;
    int output;  // first
};

// The rows that a thread copies, the same in every stage: kRows x rows and kColumns weight rows, kCopiedRows apart.
template <class S>
struct Sources {
    static constexpr int kX = S::kRows / kCopiedRows;
    static constexpr int kWeights = kColumns / kCopiedRows;
    int x[kX];             // rows of x, or -1 for none
    int weights[kWeights];  // rows of the group's weight, or -1; transposed, they are those of the stage
};

template <class T, class S>
__device__ __forceinline__ void find_sources(const Operands<T>& on, const Tile& tile, Sources<S>& sources) {
    int first = threadIdx.x / kChunks;
#pragma unroll
    for (int i = 0; i < Sources<S>::kX; i++) {
        int row = first + i * kCopiedRows;
        sources.x[i] = -1;
        if (row < tile.rows) {
            row += tile.row;
            sources.x[i] = on.row_to_slot == nullptr ? row : on.row_to_slot[row] / on.top_k;
        }
    }
#pragma unroll
    for (int i = 0; i < Sources<S>::kWeights && !S::kTransposed; i++) {
        int column = first + i * kCopiedRows;
        int part = column / on.tile_outputs();
        int output = tile.output + column % on.tile_outputs();
        sources.weights[i] = output < on.outputs ? part * on.outputs + output : -1;
    }
}

// One chunk of a row into shared memory, zeros where there is none.
template <class T>
__device__ __forceinline__ void copy_chunk(uint32_t to, unsigned char* to_bytes, const typename T::Bits* rows, int row, int width,
                                           int column, bool aligned) {
    bool exists = row >= 0 && column < width;
    const typename T::Bits* from = exists ? rows + static_cast<long long>(row) * width + column : rows;
    if (aligned) {
        ptx::cp_async<16>(to, from, exists ? 16 : 0);
        return;
    }
    uint32_t words[4] = {};
#pragma unroll
    for (int i = 0; i < kChunk; i++) {
        if (exists && width - column > i) {
            words[i / 2] |= static_cast<uint32_t>(from[i]) << i % 2 * 16;
        }
    }
    *reinterpret_cast<uint4*>(to_bytes) = make_uint4(words[0], words[1], words[2], words[3]);
}

// Byte of a chunk within the rows of a stage.
__device__ __forceinline__ int swizzled(int row, int chunk) { return row * kRowBytes + (chunk ^ row % kChunks) * 16; }

// A transposed stage of the weight lies in shared memory as two squares below each other: a row for each input of the first half
// of the columns, then of the second.
__device__ __forceinline__ int square_row(int column, int input) { return column / kDepth * kDepth + input; }

// Starts the copies of a stage: inputs from `input` on.
template <class T, class S>
__device__ __forceinline__ void copy_stage(const Operands<T>& on, const typename T::Bits* weight, const Tile& tile,
                                           const Sources<S>& sources, unsigned char* stage, int input, bool aligned) {
    int chunk = threadIdx.x % kChunks;
    int first = threadIdx.x / kChunks;
    int from = input + chunk * kChunk;
    uint32_t address = ptx::shared_address(stage);
#pragma unroll
    for (int i = 0; i < Sources<S>::kX; i++) {
        int at = swizzled(first + i * kCopiedRows, chunk);
        copy_chunk<T>(address + at, stage + at, on.x, sources.x[i], on.inputs, from, aligned);
    }
#pragma unroll
    for (int i = 0; i < Sources<S>::kWeights; i++) {
        int row = first + i * kCopiedRows;
        int at = S::kXBytes + swizzled(row, chunk);
        if constexpr (S::kTransposed) {
            int weight_row = input + row % kDepth;
            int column = tile.output + row / kDepth * kDepth + chunk * kChunk;
            copy_chunk<T>(address + at, stage + at, weight, weight_row < on.inputs ? weight_row : -1, on.outputs, column, aligned);
        } else {
            copy_chunk<T>(address + at, stage + at, weight, sources.weights[i], on.inputs, from, aligned);
        }
    }
}

__device__ __forceinline__ void multiply_add(BF16, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    ptx::mma_m16n8k16_bf16(sums, a, b);
}

__device__ __forceinline__ void multiply_add(F16, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    ptx::mma_m16n8k16_f16(sums, a, b);
}

template <class S>
using Sums = float[S::kRowTiles][S::kColumnTiles][4];

// What a warp multiplies at once: 16 inputs of its rows and columns.
template <class S>
struct Fragments {
    uint32_t x[S::kRowTiles][4];
    uint32_t weight[S::kColumnTiles / 2][4];  // of two column tiles each
};

template <class S>
__device__ __forceinline__ void load_fragments(Fragments<S>& fragments, uint32_t stage, int first_row, int first_column,
                                               int step) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < S::kRowTiles; i++) {
        ptx::ldmatrix_x4(fragments.x[i], stage + swizzled(first_row + i * 16 + lane % 16, step * 2 + lane / 16));
    }
#pragma unroll
    for (int pair = 0; pair < S::kColumnTiles / 2; pair++) {
        if constexpr (S::kTransposed) {
            int column = first_column + pair * 16 + lane / 16 * 8;
            int row = square_row(column, step * 16 + lane % 16);
            ptx::ldmatrix_x4_trans(fragments.weight[pair], stage + S::kXBytes + swizzled(row, column % kDepth / kChunk));
        } else {
            int column = first_column + pair * 16 + lane / 16 * 8 + lane % 8;
            ptx::ldmatrix_x4(fragments.weight[pair], stage + S::kXBytes + swizzled(column, step * 2 + lane / 8 % 2));
        }
    }
}

// Row tiles without rows are left out.
template <class T, class S>
__device__ __forceinline__ void multiply_fragments(Sums<S>& sums, const Fragments<S>& fragments, int row_tiles) {
#pragma unroll
    for (int i = 0; i < S::kRowTiles; i++) {
        if (i < row_tiles) {
#pragma unroll
            for (int j = 0; j < S::kColumnTiles; j++) {
                const uint32_t* pair = fragments.weight[j / 2] + j % 2 * 2;
                uint32_t column[2] = {pair[0], pair[1]};
                multiply_add(T(), sums[i][j], fragments.x[i], column);
            }
        }
    }
}

// The fragments of a step are loaded while those of the step before are multiplied.
template <class T, class S>
__device__ __forceinline__ void multiply_stage(Sums<S>& sums, uint32_t stage, int first_row, int first_column, int row_tiles) {
    constexpr int kSteps = kDepth / 16;
    Fragments<S> fragments[2];
    load_fragments<S>(fragments[0], stage, first_row, first_column, 0);
#pragma unroll
    for (int step = 0; step < kSteps; step++) {
        if (step + 1 < kSteps) {
            load_fragments<S>(fragments[(step + 1) % 2], stage, first_row, first_column, step + 1);
        }
        multiply_fragments<T, S>(sums, fragments[step % 2], row_tiles);
    }
}

template <class S>
__device__ __forceinline__ void share_sums(const Sums<S>& sums, float* shared, int first_row, int first_column, int row_tiles) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < S::kRowTiles; i++) {
#pragma unroll
        for (int j = 0; j < S::kColumnTiles && i < row_tiles; j++) {
            int row = first_row + i * 16 + lane / 4;
            int column = first_column + j * 8 + lane % 4 * 2;
            float* at = shared + row * kSumStride + column;
            *reinterpret_cast<float2*>(at) = make_float2(sums[i][j][0], sums[i][j][1]);
            *reinterpret_cast<float2*>(at + 8 * kSumStride) = make_float2(sums[i][j][2], sums[i][j][3]);
        }
    }
}

// Some sums beside each other, weighted, with the bias added to those that exist.
template <int count>
__device__ __forceinline__ Values<count> biased(const float* sums, float slot_weight, const float* bias, int exist) {
    Values<count> values;
#pragma unroll
    for (int i = 0; i < count; i++) {
        values.at[i] = slot_weight * sums[i] + (bias != nullptr && i < exist ? bias[i] : 0.0f);
    }
    return values;
}

// Weight, bias, activation, and the outputs that exist into y; a thread takes kChunk columns of a row at a time.
template <class T>
__device__ __forceinline__ void store_tile(const Operands<T>& on, const float* shared, const Tile& tile) {
    int row_chunks = on.tile_outputs() / kChunk;
    const float* bias = on.bias == nullptr ? nullptr : on.bias + static_cast<long long>(tile.group) * on.parts() * on.outputs;
    bool vectors = dtypes::vectors_fit(on.outputs, on.y, nullptr);
    for (int i = threadIdx.x; i < tile.rows * row_chunks; i += kThreads) {
        int row = i / row_chunks;
        int column = i % row_chunks * kChunk;
        int output = tile.output + column;
        int exist = on.outputs - output;
        if (exist <= 0) {
            continue;
        }
        const float* sums = shared + row * kSumStride + column;
        float slot_weight = on.slot_weights == nullptr ? 1.0f : on.slot_weights[on.row_to_slot[tile.row + row]];
        Values<kChunk> gate = biased<kChunk>(sums, slot_weight, bias == nullptr ? nullptr : bias + output, exist);
        Values<kChunk> value = gate;
        if (on.gated()) {
            const float* up_bias = bias == nullptr ? nullptr : bias + on.outputs + output;
            value = biased<kChunk>(sums + on.tile_outputs(), slot_weight, up_bias, exist);
        }
        if (on.kind >= 0) {
            activation::activate<kChunk>(on.kind, on.limit, gate, value);
        }
        long long element = static_cast<long long>(tile.row + row) * on.outputs + output;
        dtypes::store<kChunk>(on.y_dtype, on.y, element, value, exist, vectors);
    }
}

template <class T, class S>
__device__ __forceinline__ void multiply_tile(const Operands<T>& on, const Tile& tile, unsigned char* ring, bool aligned) {
    int warp = threadIdx.x / 32;
    int first_row = warp / S::kWarpsAcross * S::kWarpRows;
    int first_column = warp % S::kWarpsAcross * S::kWarpColumns;
    int row_tiles = (tile.rows - first_row + 15) / 16;
    const typename T::Bits* weight =
        on.weight + static_cast<long long>(tile.group) * on.parts() * on.outputs * on.inputs;
    Sources<S> sources;
    find_sources<T, S>(on, tile, sources);
    int num_stages = static_cast<int>((static_cast<long long>(on.inputs) + kDepth - 1) / kDepth);
#pragma unroll
    for (int stage = 0; stage < S::kStages - 1; stage++) {
        if (stage < num_stages) {
            copy_stage<T, S>(on, weight, tile, sources, ring + stage * S::kStageBytes, stage * kDepth, aligned);
        }
        ptx::cp_async_commit_group();
    }
    Sums<S> sums = {};
    int slot = 0;
    for (int stage = 0; stage < num_stages; stage++) {
        ptx::cp_async_wait_group<S::kStages - 2>();
        // Everybody's copies of this stage are there, and nobody reads the stage before, which is filled next.
        __syncthreads();
        int next = stage + S::kStages - 1;
        if (next < num_stages) {
            int free_slot = slot == 0 ? S::kStages - 1 : slot - 1;
            copy_stage<T, S>(on, weight, tile, sources, ring + free_slot * S::kStageBytes, next * kDepth, aligned);
        }
        ptx::cp_async_commit_group();
        multiply_stage<T, S>(sums, ptx::shared_address(ring + slot * S::kStageBytes), first_row, first_column, row_tiles);
        slot = slot == S::kStages - 1 ? 0 : slot + 1;
    }
    __syncthreads();
    float* shared = reinterpret_cast<float*>(ring);
    share_sums<S>(sums, shared, first_row, first_column, row_tiles);
    __syncthreads();
    store_tile<T>(on, shared, tile);
}

template <class T, class S>
__device__ __forceinline__ void grouped_gemm(const Operands<T>& on) {
    JMOE_DYNAMIC_SHARED(ring);
    JMOE_SHARED(group_tiles::Scratch<kThreads>, scratch, );
    bool aligned = on.template aligned<S>();
    int column_tiles = static_cast<int>((static_cast<long long>(on.outputs) + on.tile_outputs() - 1) / on.tile_outputs());
    group_tiles::Cursor cursor = {0, 0};
    for (long long number = blockIdx.x;; number += gridDim.x) {
        group_tiles::Found found = group_tiles::find<kThreads, S::kRows>(number, cursor, on.expert_offsets, on.rows, on.groups,
                                                                         column_tiles, scratch);
        if (found.tile < 0) {
            return;
        }
        int row_tiles = (found.to - found.from + S::kRows - 1) / S::kRows;
        group_tiles::Place place = group_tiles::place(found.tile, row_tiles, column_tiles);
        int row = found.from + place.row_tile * S::kRows;
        Tile tile = {found.group, row, min(S::kRows, found.to - row), place.column_tile * on.tile_outputs()};
        multiply_tile<T, S>(on, tile, ring, aligned);
    }
}

}  // namespace

#define GROUPED_GEMM_MMA(name, T, S)                                                                                         \
    extern "C" __global__ void __launch_bounds__(kThreads, S::kBlocks)                                                       \
        name(const T::Bits* __restrict__ x, const int* __restrict__ row_to_slot, const float* __restrict__ slot_weights,     \
             const T::Bits* __restrict__ weight, const float* __restrict__ bias, const int* __restrict__ expert_offsets,     \
             void* __restrict__ y, int rows, int groups, int outputs, int inputs, int top_k, int y_dtype, int kind,          \
             float limit) {                                                                                                  \
        grouped_gemm<T, S>({x, row_to_slot, slot_weights, weight, bias, expert_offsets, y, rows, groups, outputs, inputs,    \
                            top_k, y_dtype, kind, limit});                                                                   \
    }                                                                                                                        \
    JMOE_EXPORT(name, kThreads, S::kRows, S::kSharedBytes)

GROUPED_GEMM_MMA(grouped_gemm_mma_f16_16, F16, Small);
GROUPED_GEMM_MMA(grouped_gemm_mma_f16_64, F16, Medium);
GROUPED_GEMM_MMA(grouped_gemm_mma_f16_128, F16, Large);
GROUPED_GEMM_MMA(grouped_gemm_mma_bf16_16, BF16, Small);
GROUPED_GEMM_MMA(grouped_gemm_mma_bf16_64, BF16, Medium);
GROUPED_GEMM_MMA(grouped_gemm_mma_bf16_128, BF16, Large);
GROUPED_GEMM_MMA(grouped_gemm_mma_f16_64_transposed, F16, MediumTransposed);
GROUPED_GEMM_MMA(grouped_gemm_mma_f16_128_transposed, F16, LargeTransposed);
GROUPED_GEMM_MMA(grouped_gemm_mma_bf16_64_transposed, BF16, MediumTransposed);
GROUPED_GEMM_MMA(grouped_gemm_mma_bf16_128_transposed, BF16, LargeTransposed);
