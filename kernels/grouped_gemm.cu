// y[r] = x[r] weight[e]^T + bias[e] for expertOffsets[e] <= r < expertOffsets[e + 1]
//
// Shapes    x [rows, inputs], weight [groups, outputs, inputs], bias F32 [groups, outputs] or null, expertOffsets
//           [groups + 1], y [rows, outputs] of the type y_dtype. Rows past the last offset are not touched.
// Grid      x: at least the tiles that can exist, min(rows, rows / items_per_block + groups); y: any, shares the
//           columns; ceil(outputs / items_per_block) fills it, as a tile is as wide as it is high. Blocks without a tile
//           return.
// Numerics  F32 fused multiply-adds in the order of the inputs, one accumulator per element, bias last, one rounding: a row
//           depends on nothing but itself and its expert.
// Requires  nothing of sizes and alignment: loads of four elements where addresses and rows allow, else single ones.
// Adjoint   groupedGemm with the weight transposed for x, groupedGemmWgrad for the weight.
//
// The path for every type and size. A block finds its tile by counting those of the groups before it, so that the host need
// not know how many rows a group has.
#include "common/dtypes.cuh"
#include "common/group_tiles.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;

constexpr int kThreads = 256;
constexpr int kTile = 64;      // rows, and outputs
constexpr int kDepth = 16;     // inputs at a time
constexpr int kPerThread = 4;  // rows, and outputs, of one thread
constexpr int kQuads = kDepth / 4;

static_assert(kTile * kQuads == kThreads, "each thread loads four inputs of one row per step");

// The rows of a group that a block works on.
struct Tile {
    int group;
    int from;
    int to;
};

// One input of all rows of a tile. 16-byte aligned, and padded so that a transposed store is spread over the banks.
struct alignas(16) Column {
    float at[kTile + 4];
};

// Four inputs of one row, 0 past the end of the row.
template <class T>
__device__ __forceinline__ float4 load_quad(const typename T::Bits* row, int input, int inputs, bool aligned) {
    float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (aligned && input < inputs) {
        return dtypes::load_quad<T>(row + input);
    }
    if (input < inputs) {
        quad.x = T::decode(row[input]);
    }
    if (inputs - input > 1) {
        quad.y = T::decode(row[input + 1]);
    }
    if (inputs - input > 2) {
        quad.z = T::decode(row[input + 2]);
    }
    if (inputs - input > 3) {
        quad.w = T::decode(row[input + 3]);
    }
    return quad;
}

// Four inputs of a row of the tile, transposed.
__device__ __forceinline__ void store_quad(Column* tile, int input, int row, float4 quad) {
    tile[input].at[row] = quad.x;
    tile[input + 1].at[row] = quad.y;
    tile[input + 2].at[row] = quad.z;
    tile[input + 3].at[row] = quad.w;
}

__device__ __forceinline__ void multiply(float (&sums)[kPerThread][kPerThread], const Column* x,
                                         const Column* weight, int first_row, int first_output) {
#pragma unroll
    for (int input = 0; input < kDepth; input++) {
        float4 a = *reinterpret_cast<const float4*>(&x[input].at[first_row]);
        float4 b = *reinterpret_cast<const float4*>(&weight[input].at[first_output]);
        float left[kPerThread] = {a.x, a.y, a.z, a.w};
        float right[kPerThread] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < kPerThread; i++) {
#pragma unroll
            for (int j = 0; j < kPerThread; j++) {
                sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
            }
        }
    }
}

__device__ void store_sums(const float (&sums)[kPerThread][kPerThread], const float* bias, void* y, int y_dtype,
                           const Tile& tile, int first_row, long long first_output, int outputs) {
    for (int i = 0; i < kPerThread; i++) {
        int row = tile.from + first_row + i;
        for (int j = 0; j < kPerThread; j++) {
            long long output = first_output + j;
            if (row >= tile.to || output >= outputs) {
                continue;
            }
            float added = bias == nullptr ? 0.0f : bias[static_cast<long long>(tile.group) * outputs + output];
            dtypes::store(y_dtype, y, static_cast<long long>(row) * outputs + output, sums[i][j] + added);
        }
    }
}

// One tile of y. For loading, four threads share a row; for multiplying, 16 by 16 threads the tile.
template <class X, class W>
__device__ void multiply_tile(const typename X::Bits* x, const typename W::Bits* weight, const float* bias, void* y,
                              const Tile& tile, long long first_of_tile, int outputs, int inputs, int y_dtype) {
    JMOE_SHARED(Column, x_tile, [kDepth]);
    JMOE_SHARED(Column, weight_tile, [kDepth]);
    int load_row = threadIdx.x / kQuads;
    int load_input = threadIdx.x % kQuads * 4;
    long long output = first_of_tile + load_row;
    int x_inputs = tile.from + load_row < tile.to ? inputs : 0;
    int weight_inputs = output < outputs ? inputs : 0;
    const typename X::Bits* x_row = x + (x_inputs > 0 ? static_cast<long long>(tile.from + load_row) * inputs : 0);
    const typename W::Bits* weight_row =
        weight + (weight_inputs > 0 ? (static_cast<long long>(tile.group) * outputs + output) * inputs : 0);
    bool x_aligned = dtypes::quads_fit<X>(x, inputs);
    bool weight_aligned = dtypes::quads_fit<W>(weight, inputs);
    int first_row = threadIdx.x / (kTile / kPerThread) * kPerThread;
    int first_output = threadIdx.x % (kTile / kPerThread) * kPerThread;
    float sums[kPerThread][kPerThread] = {};
    float4 x_next = load_quad<X>(x_row, load_input, x_inputs, x_aligned);
    float4 weight_next = load_quad<W>(weight_row, load_input, weight_inputs, weight_aligned);
    for (long long input = 0; input < inputs; input += kDepth) {
        store_quad(x_tile, load_input, load_row, x_next);
        store_quad(weight_tile, load_input, load_row, weight_next);
        __syncthreads();
        // The next step's loads are under way while this one multiplies.
        int next = static_cast<int>(min(input + kDepth + load_input, static_cast<long long>(inputs)));
        x_next = load_quad<X>(x_row, next, x_inputs, x_aligned);
        weight_next = load_quad<W>(weight_row, next, weight_inputs, weight_aligned);
        multiply(sums, x_tile, weight_tile, first_row, first_output);
        __syncthreads();
    }
    store_sums(sums, bias, y, y_dtype, tile, first_row, first_of_tile + first_output, outputs);
}

template <class X, class W>
__device__ void grouped_gemm(const typename X::Bits* x, const typename W::Bits* weight, const float* bias,
                             const int* expert_offsets, void* y, int rows, int groups, int outputs, int inputs,
                             int y_dtype) {
    JMOE_SHARED(group_tiles::Scratch<kThreads>, scratch, );
    group_tiles::Cursor cursor = {0, 0};
    group_tiles::Found found =
        group_tiles::find<kThreads, kTile>(blockIdx.x, cursor, expert_offsets, rows, groups, 1, scratch);
    if (found.tile < 0) {
        return;
    }
    int from = found.from + static_cast<int>(found.tile) * kTile;
    Tile tile = {found.group, from, min(from + kTile, found.to)};
    for (long long first = blockIdx.y * kTile; first < outputs; first += static_cast<long long>(gridDim.y) * kTile) {
        multiply_tile<X, W>(x, weight, bias, y, tile, first, outputs, inputs, y_dtype);
    }
}

}  // namespace

#define GROUPED_GEMM(name, X, W)                                                                                          \
    extern "C" __global__ void __launch_bounds__(kThreads)                                                                \
        name(const X::Bits* __restrict__ x, const W::Bits* __restrict__ weight, const float* __restrict__ bias,           \
             const int* __restrict__ expert_offsets, void* __restrict__ y, int rows, int groups, int outputs, int inputs, \
             int y_dtype) {                                                                                               \
        grouped_gemm<X, W>(x, weight, bias, expert_offsets, y, rows, groups, outputs, inputs, y_dtype);                   \
    }                                                                                                                     \
    JMOE_EXPORT(name, kThreads, kTile, 0)

GROUPED_GEMM(grouped_gemm_f32_f32, F32, F32);
GROUPED_GEMM(grouped_gemm_f32_f16, F32, F16);
GROUPED_GEMM(grouped_gemm_f32_bf16, F32, BF16);
GROUPED_GEMM(grouped_gemm_f16_f32, F16, F32);
GROUPED_GEMM(grouped_gemm_f16_f16, F16, F16);
GROUPED_GEMM(grouped_gemm_f16_bf16, F16, BF16);
GROUPED_GEMM(grouped_gemm_bf16_f32, BF16, F32);
GROUPED_GEMM(grouped_gemm_bf16_f16, BF16, F16);
GROUPED_GEMM(grouped_gemm_bf16_bf16, BF16, BF16);
