// rows[r] = w[r] x[rowToSlot[r] / topK]
//
// Shapes    x [tokens, hidden], rowToSlot [max_rows], weights [tokens, topK] by slot or null for 1, rows [max_rows, hidden];
//           expertOffsets [groups + 1]. Rows before the first offset and from the last one on are not touched.
// Grid      x: ceil(max_rows / items_per_block); y: any, shares the columns.
// Numerics  permute_copy moves bytes. The others multiply in F32 and round once.
// Requires  nothing of alignment: 128-bit accesses where addresses and rows allow, else narrower ones.
// Adjoint   unpermute.
#include "common/dtypes.cuh"
#include "common/rows.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;

// Loads in flight per thread, which hide the latency of memory.
constexpr int kBatch = 4;

template <class Unit>
__device__ void copy_row(const void* from, void* to, long long row_bytes) {
    const Unit* source = static_cast<const Unit*>(from);
    Unit* target = static_cast<Unit*>(to);
    long long units = row_bytes / static_cast<long long>(sizeof(Unit));
    long long step = rows::column_step();
    for (long long unit = rows::first_column(); unit < units; unit += kBatch * step) {
        Unit batch[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            if (unit + i * step < units) {
                batch[i] = source[unit + i * step];
            }
        }
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            if (unit + i * step < units) {
                target[unit + i * step] = batch[i];
            }
        }
    }
}

template <class X, class R, int count>
__device__ void weigh_row(const typename X::Bits* from, typename R::Bits* to, float weight, int hidden) {
    long long step = rows::column_step() * count;
#pragma unroll 2
    for (long long h = rows::first_column() * count; h < hidden; h += step) {
        dtypes::Values<count> values = dtypes::load<X, count>(from + h);
#pragma unroll
        for (int i = 0; i < count; i++) {
            values.at[i] *= weight;
        }
        dtypes::store<R, count>(to + h, values);
    }
}

template <class X, class R>
__device__ void permute(const typename X::Bits* x, const int* row_to_slot, const int* expert_offsets, int groups,
                        const float* weights, typename R::Bits* rows_out, int max_rows, int hidden, int top_k) {
    long long row = rows::row();
    if (row >= max_rows || row < expert_offsets[0] || row >= expert_offsets[groups]) {
        return;
    }
    int slot = row_to_slot[row];
    float weight = weights == nullptr ? 1.0f : weights[slot];
    const typename X::Bits* from = x + static_cast<long long>(slot / top_k) * hidden;
    typename R::Bits* to = rows_out + row * hidden;
    if (dtypes::vectors_fit(hidden, x, rows_out)) {
        weigh_row<X, R, dtypes::kVector>(from, to, weight, hidden);
    } else {
        weigh_row<X, R, 1>(from, to, weight, hidden);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(rows::kThreads)
    permute_copy(const void* __restrict__ x, const int* __restrict__ row_to_slot, const int* __restrict__ expert_offsets,
                 int groups, void* __restrict__ rows_out, int max_rows, long long row_bytes, int top_k) {
    long long row = rows::row();
    if (row >= max_rows || row < expert_offsets[0] || row >= expert_offsets[groups]) {
        return;
    }
    const void* from = static_cast<const char*>(x) + row_to_slot[row] / top_k * row_bytes;
    void* to = static_cast<char*>(rows_out) + row * row_bytes;
    uintptr_t alignment = reinterpret_cast<uintptr_t>(x) | reinterpret_cast<uintptr_t>(rows_out) | row_bytes;
    if (alignment % 16 == 0) {
        copy_row<uint4>(from, to, row_bytes);
    } else if (alignment % 4 == 0) {
        copy_row<uint32_t>(from, to, row_bytes);
    } else if (alignment % 2 == 0) {
        copy_row<uint16_t>(from, to, row_bytes);
    } else {
        copy_row<uint8_t>(from, to, row_bytes);
    }
}
JMOE_EXPORT(permute_copy, rows::kThreads, rows::kRows, 0);

#define PERMUTE(name, X, R)                                                                                               \
    extern "C" __global__ void __launch_bounds__(rows::kThreads)                                                          \
        name(const X::Bits* __restrict__ x, const int* __restrict__ row_to_slot, const int* __restrict__ expert_offsets,  \
             int groups, const float* __restrict__ weights, R::Bits* __restrict__ rows_out, int max_rows, int hidden,     \
             int top_k) {                                                                                                 \
        permute<X, R>(x, row_to_slot, expert_offsets, groups, weights, rows_out, max_rows, hidden, top_k);                \
    }                                                                                                                     \
    JMOE_EXPORT(name, rows::kThreads, rows::kRows, 0)

PERMUTE(permute_f32_f32, F32, F32);
PERMUTE(permute_f32_f16, F32, F16);
PERMUTE(permute_f32_bf16, F32, BF16);
PERMUTE(permute_f16_f32, F16, F32);
PERMUTE(permute_f16_f16, F16, F16);
PERMUTE(permute_f16_bf16, F16, BF16);
PERMUTE(permute_bf16_f32, BF16, F32);
PERMUTE(permute_bf16_f16, BF16, F16);
PERMUTE(permute_bf16_bf16, BF16, BF16);
