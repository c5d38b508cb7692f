// y[t] = addend[t] + factor * sum_k w[t,k] (a1 x[t] + a2 vectors[c]) over the slots with id first_id + c, [a1, a2] =
// softmax(mixing[c] x[t]): the shares of all slots first, then the sums
//
// Shapes    x [tokens, hidden], topkIds, weights [tokens, topK], mixing F32 [constants, 2, hidden], vectors F32 [constants,
//           hidden], shares F32 [tokens, topK, 2]: w a1, w a2, or zeros for other ids and for weight 0; addend [tokens, hidden]
//           or [1, hidden] or null, y [tokens, hidden].
// Grid      shares: ceil(slots / items_per_block), a warp per slot. Sums: x: ceil(tokens / items_per_block); y: any, shares
//           the columns.
// Numerics  F32; each lane sums its share of the columns in order, then the lanes pairwise; a1 is the sigmoid of the difference
//           of both sums. Slots in order, then x once, then the addend, rounded once.
// Requires  nothing of alignment; y may be the addend: a thread reads of it what it then writes, and nothing else.
// Adjoint   constantExpertsBackward.
#include "common/dtypes.cuh"
#include "common/rank.cuh"
#include "common/rows.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;
using dtypes::Values;

constexpr int kThreads = 256;
constexpr int kSlots = kThreads / 32;

// What the mixing of a constant says of a token.
struct Logits {
    float of_x;
    float of_v;
};

// The share of a lane.
template <int count>
__device__ __forceinline__ Logits mix(int x_dtype, const void* x, long long first, const float* mixing, int hidden, int lane) {
    Values<count> of_x = {};
    Values<count> of_v = {};
#pragma unroll 1
    for (int h = lane * count; h < hidden; h += 32 * count) {
        Values<count> a = dtypes::load<count>(x_dtype, x, first + h);
        Values<count> b = dtypes::load<F32, count>(mixing + h);
        Values<count> c = dtypes::load<F32, count>(mixing + hidden + h);
#pragma unroll
        for (int i = 0; i < count; i++) {
            of_x.at[i] = fmaf(a.at[i], b.at[i], of_x.at[i]);
            of_v.at[i] = fmaf(a.at[i], c.at[i], of_v.at[i]);
        }
    }
    Logits logits = {};
#pragma unroll
    for (int i = 0; i < count; i++) {
        logits.of_x += of_x.at[i];
        logits.of_v += of_v.at[i];
    }
    return logits;
}

// What the constant experts of a sum are, and what else belongs to it.
struct Constants {
    const int* topk_ids;
    const float* shares;
    const float* vectors;
    const void* addend;
    int first_id;
    int addend_dtype;
    int addend_rows;
    float factor;
};

template <class X, class Y, int count>
__device__ void add_token(const typename X::Bits* x, const Constants& on, typename Y::Bits* y, long long token, int hidden,
                          int top_k) {
    long long step = rows::column_step() * count;
    for (long long h = rows::first_column() * count; h < hidden; h += step) {
        Values<count> sum = {};
        float of_x = 0.0f;
        bool any = false;
#pragma unroll 1
        for (int k = 0; k < top_k; k++) {
            long long slot = token * top_k + k;
            float a1 = on.shares[2 * slot];
            float a2 = on.shares[2 * slot + 1];
            if (a1 != 0.0f || a2 != 0.0f) {
                any = true;
                of_x += a1;
                long long constant = on.topk_ids[slot] - on.first_id;
                Values<count> v = dtypes::load<F32, count>(on.vectors + constant * hidden + h);
#pragma unroll
                for (int i = 0; i < count; i++) {
                    sum.at[i] = fmaf(a2, v.at[i], sum.at[i]);
                }
            }
        }
        // A token without constant experts is not read: it may be anything.
        if (any) {
            Values<count> own = dtypes::load<X, count>(x + token * hidden + h);
#pragma unroll
            for (int i = 0; i < count; i++) {
                sum.at[i] = fmaf(of_x, own.at[i], sum.at[i]);
            }
        }
        Values<count> added = {};
        if (on.addend != nullptr) {
            long long row = on.addend_rows == 1 ? 0 : token;
            added = dtypes::load<count>(on.addend_dtype, on.addend, row * hidden + h);
        }
#pragma unroll
        for (int i = 0; i < count; i++) {
            sum.at[i] = fmaf(on.factor, sum.at[i], added.at[i]);
        }
        dtypes::store<Y, count>(y + token * hidden + h, sum);
    }
}

template <class X, class Y>
__device__ void add(const typename X::Bits* x, const Constants& on, typename Y::Bits* y, int tokens, int hidden, int top_k) {
    long long token = rows::row();
    if (token >= tokens) {
        return;
    }
    if (dtypes::vectors_fit(hidden, x, y, on.addend, on.vectors)) {
        add_token<X, Y, dtypes::kVector>(x, on, y, token, hidden, top_k);
    } else {
        add_token<X, Y, 1>(x, on, y, token, hidden, top_k);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    constant_experts_shares(const void* __restrict__ x, const int* __restrict__ topk_ids, const float* __restrict__ weights,
                            const float* __restrict__ mixing, float* __restrict__ shares, int slots, int first_id,
                            int constants, int hidden, int top_k, int x_dtype) {
    long long slot = static_cast<long long>(blockIdx.x) * kSlots + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (slot >= slots) {
        return;
    }
    // As numbers without sign, an id below the first one is far above the last one.
    uint32_t constant = static_cast<uint32_t>(topk_ids[slot]) - static_cast<uint32_t>(first_id);
    float weight = weights[slot];
    float a1 = 0.0f;
    float a2 = 0.0f;
    if (constant < static_cast<uint32_t>(constants) && weight != 0.0f) {
        long long token = slot / top_k * hidden;
        const float* first = mixing + 2LL * constant * hidden;
        Logits logits = dtypes::vectors_fit(hidden, x, mixing) ? mix<dtypes::kVector>(x_dtype, x, token, first, hidden, lane)
                                                               : mix<1>(x_dtype, x, token, first, hidden, lane);
        float of_x = rank::sum_of_warp(logits.of_x);
        float of_v = rank::sum_of_warp(logits.of_v);
        a1 = weight / (1.0f + expf(of_v - of_x));
        a2 = weight / (1.0f + expf(of_x - of_v));
    }
    if (lane == 0) {
        shares[2 * slot] = a1;
        shares[2 * slot + 1] = a2;
    }
}
JMOE_EXPORT(constant_experts_shares, kThreads, kSlots, 0);

#define CONSTANT_EXPERTS(name, X, Y)                                                                                      \
    extern "C" __global__ void __launch_bounds__(rows::kThreads)                                                          \
        name(const X::Bits* __restrict__ x, const int* __restrict__ topk_ids, const float* __restrict__ shares,           \
             const float* __restrict__ vectors, const void* addend, Y::Bits* y, int tokens, int hidden, int top_k,        \
             int first_id, int addend_dtype, int addend_rows, float factor) {                                             \
        Constants on = {topk_ids, shares, vectors, addend, first_id, addend_dtype, addend_rows, factor};                  \
        add<X, Y>(x, on, y, tokens, hidden, top_k);                                                                       \
    }                                                                                                                     \
    JMOE_EXPORT(name, rows::kThreads, rows::kRows, 0)

CONSTANT_EXPERTS(constant_experts_f32_f32, F32, F32);
CONSTANT_EXPERTS(constant_experts_f32_f16, F32, F16);
CONSTANT_EXPERTS(constant_experts_f32_bf16, F32, BF16);
CONSTANT_EXPERTS(constant_experts_f16_f32, F16, F32);
CONSTANT_EXPERTS(constant_experts_f16_f16, F16, F16);
CONSTANT_EXPERTS(constant_experts_f16_bf16, F16, BF16);
CONSTANT_EXPERTS(constant_experts_bf16_f32, BF16, F32);
CONSTANT_EXPERTS(constant_experts_bf16_f16, BF16, F16);
CONSTANT_EXPERTS(constant_experts_bf16_bf16, BF16, BF16);
