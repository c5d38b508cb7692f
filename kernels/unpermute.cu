// y[t] = addend[t] + factor * sum_k w[t,k] v[t,k]; v is rows[slotToRow[t,k]], or identity[t] for an id of first_identity or
// above
//
// Shapes    rows [tokens * topK, hidden], slotToRow, topkIds, weights [tokens, topK] (weights null for 1), addend [tokens,
//           hidden] or [1, hidden] or null, identity [tokens, hidden] or null, y [tokens, hidden].
// Grid      x: ceil(tokens / items_per_block); y: any, shares the columns.
// Numerics  sums in F32, in slot order, rounded once. A slot with row -1 or weight 0 is not read.
// Requires  nothing of alignment; y may be the addend: a thread reads of it what it then writes, and nothing else.
// Adjoint   permute.
#include "common/dtypes.cuh"
#include "common/rows.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;
using dtypes::Values;

// Slots whose loads are in flight together.
constexpr int kBatch = 4;

// What belongs to the sum besides the rows.
struct Residual {
    const void* addend;
    const void* identity;
    int addend_dtype;
    int addend_rows;
    int identity_dtype;
    int first_identity;
    float factor;
};

// One slot as the sum needs it.
struct Slot {
    long long row;  // -1 if it adds nothing
    float weight;
    bool identity;
};

__device__ __forceinline__ Slot slot_at(long long slot, const int* slot_to_row, const int* topk_ids, const float* weights,
                                        const Residual& residual) {
    Slot result;
    result.row = slot_to_row[slot];
    result.weight = weights == nullptr ? 1.0f : weights[slot];
    result.identity = residual.identity != nullptr && topk_ids[slot] >= residual.first_identity;
    if (result.weight == 0.0f) {
        result.row = -1;
    }
    return result;
}

// Sums the elements of one token that begin at column h.
template <class R, int count>
__device__ Values<count> sum_slots(const typename R::Bits* rows_in, const int* slot_to_row, const int* topk_ids,
                                   const float* weights, const Residual& residual, long long token, int hidden, int top_k,
                                   long long h) {
    Values<count> sum = {};
    for (int k = 0; k < top_k; k += kBatch) {
        Slot slots[kBatch];
        Values<count> values[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            slots[i].row = -1;
            if (k + i < top_k) {
                slots[i] = slot_at(token * top_k + k + i, slot_to_row, topk_ids, weights, residual);
            }
        }
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            if (slots[i].row >= 0) {
                values[i] = slots[i].identity
                                ? dtypes::load<count>(residual.identity_dtype, residual.identity, token * hidden + h)
                                : dtypes::load<R, count>(rows_in + slots[i].row * hidden + h);
            }
        }
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            if (slots[i].row >= 0) {
#pragma unroll
                for (int j = 0; j < count; j++) {
                    sum.at[j] = fmaf(slots[i].weight, values[i].at[j], sum.at[j]);
                }
            }
        }
    }
    return sum;
}

template <class R, class Y, int count>
__device__ void unpermute_token(const typename R::Bits* rows_in, const int* slot_to_row, const int* topk_ids,
                                const float* weights, const Residual& residual, typename Y::Bits* y, long long token,
                                int hidden, int top_k) {
    long long step = rows::column_step() * count;
    for (long long h = rows::first_column() * count; h < hidden; h += step) {
        Values<count> sum =
            sum_slots<R, count>(rows_in, slot_to_row, topk_ids, weights, residual, token, hidden, top_k, h);
        Values<count> added = {};
        if (residual.addend != nullptr) {
            long long row = residual.addend_rows == 1 ? 0 : token;
            added = dtypes::load<count>(residual.addend_dtype, residual.addend, row * hidden + h);
        }
#pragma unroll
        for (int i = 0; i < count; i++) {
            sum.at[i] = residual.addend == nullptr ? residual.factor * sum.at[i]
                                                   : fmaf(residual.factor, sum.at[i], added.at[i]);
        }
        dtypes::store<Y, count>(y + token * hidden + h, sum);
    }
}

template <class R, class Y>
__device__ void unpermute(const typename R::Bits* rows_in, const int* slot_to_row, const int* topk_ids, const float* weights,
                          const Residual& residual, typename Y::Bits* y, int tokens, int hidden, int top_k) {
    long long token = rows::row();
    if (token >= tokens) {
        return;
    }
    if (dtypes::vectors_fit(hidden, rows_in, y, residual.addend, residual.identity)) {
        unpermute_token<R, Y, dtypes::kVector>(rows_in, slot_to_row, topk_ids, weights, residual, y, token, hidden, top_k);
    } else {
        unpermute_token<R, Y, 1>(rows_in, slot_to_row, topk_ids, weights, residual, y, token, hidden, top_k);
    }
}

}  // namespace

#define UNPERMUTE(name, R, Y)                                                                                             \
    extern "C" __global__ void __launch_bounds__(rows::kThreads)                                                          \
        name(const R::Bits* __restrict__ rows_in, const int* __restrict__ slot_to_row, const int* __restrict__ topk_ids,  \
             const float* __restrict__ weights, const void* addend, const void* __restrict__ identity, Y::Bits* y,        \
             int tokens, int hidden, int top_k, int addend_dtype, int addend_rows, int identity_dtype,                    \
             int first_identity, float factor) {                                                                          \
        Residual residual = {addend, identity, addend_dtype, addend_rows, identity_dtype, first_identity, factor};        \
        unpermute<R, Y>(rows_in, slot_to_row, topk_ids, weights, residual, y, tokens, hidden, top_k);                     \
    }                                                                                                                     \
    JMOE_EXPORT(name, rows::kThreads, rows::kRows, 0)

UNPERMUTE(unpermute_f32_f32, F32, F32);
UNPERMUTE(unpermute_f32_f16, F32, F16);
UNPERMUTE(unpermute_f32_bf16, F32, BF16);
UNPERMUTE(unpermute_f16_f32, F16, F32);
UNPERMUTE(unpermute_f16_f16, F16, F16);
UNPERMUTE(unpermute_f16_bf16, F16, BF16);
UNPERMUTE(unpermute_bf16_f32, BF16, F32);
UNPERMUTE(unpermute_bf16_f16, BF16, F16);
UNPERMUTE(unpermute_bf16_bf16, BF16, BF16);
