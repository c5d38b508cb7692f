// rows[s] = sum_t D[t,s] x[t], with D the softmax of logits over tokens
//
// Shapes    x [tokens, hidden], logits F32 [tokens, slots], rows [slots, hidden]; maxima, inverses [slots], from
//           soft_dispatch_weights: the largest logit of a slot and 1 / sum of exp(logit - it).
// Grid      x: ceil(slots / items_per_block) of both; y of soft_dispatch_<x>_<rows>: any, shares the columns.
// Numerics  F32, tokens in order; the sum of a slot's exponentials in eight parts. A NaN logit, or an infinite largest one,
//           makes a slot NaN.
// Requires  nothing of alignment.
// Adjoint   softDispatchBackward.
#include "common/soft_mix.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;

constexpr int kSlots = 32;
constexpr int kParts = soft_mix::kThreads / kSlots;

}  // namespace

extern "C" __global__ void __launch_bounds__(soft_mix::kThreads)
    soft_dispatch_weights(const float* __restrict__ logits, float* __restrict__ maxima, float* __restrict__ inverses, int tokens,
                          int slots) {
    JMOE_SHARED(float, parts, [kParts][kSlots]);
    int own = threadIdx.x % kSlots;
    int part = threadIdx.x / kSlots;
    long long slot = static_cast<long long>(blockIdx.x) * kSlots + own;
    bool exists = slot < slots;
    float max = -special::infinity();
    for (long long token = part; exists && token < tokens; token += kParts) {
        max = fmaxf(max, logits[token * slots + slot]);
    }
    parts[part][own] = max;
    __syncthreads();
    for (int i = 0; i < kParts; i++) {
        max = fmaxf(max, parts[i][own]);
    }
    __syncthreads();
    float sum = 0.0f;
    for (long long token = part; exists && token < tokens; token += kParts) {
        sum += expf(logits[token * slots + slot] - max);
    }
    parts[part][own] = sum;
    __syncthreads();
    if (exists && part == 0) {
        sum = 0.0f;
        for (int i = 0; i < kParts; i++) {
            sum += parts[i][own];
        }
        maxima[slot] = max;
        inverses[slot] = 1.0f / sum;
    }
}
JMOE_EXPORT(soft_dispatch_weights, soft_mix::kThreads, kSlots, 0);

#define SOFT_DISPATCH(name, X, R)                                                                                         \
    extern "C" __global__ void __launch_bounds__(soft_mix::kThreads, soft_mix::kBlocks)                                   \
        name(const X::Bits* __restrict__ x, const float* __restrict__ logits, const float* __restrict__ maxima,           \
             const float* __restrict__ inverses, R::Bits* __restrict__ rows_out, int tokens, int slots, int hidden) {     \
        JMOE_SHARED(float, weights, [soft_mix::kSources * soft_mix::kWeightStride]);                                      \
        JMOE_SHARED(float, values, [soft_mix::kSources * soft_mix::kColumns]);                                            \
        soft_mix::Softmax softmax = {logits, maxima, inverses, slots, tokens};                                            \
        soft_mix::mix<X, R, true>(x, softmax, {weights, values}, rows_out, hidden);                                       \
    }                                                                                                                     \
    JMOE_EXPORT(name, soft_mix::kThreads, soft_mix::kTargets, 0)

SOFT_DISPATCH(soft_dispatch_f32_f32, F32, F32);
SOFT_DISPATCH(soft_dispatch_f32_f16, F32, F16);
SOFT_DISPATCH(soft_dispatch_f32_bf16, F32, BF16);
SOFT_DISPATCH(soft_dispatch_f16_f32, F16, F32);
SOFT_DISPATCH(soft_dispatch_f16_f16, F16, F16);
SOFT_DISPATCH(soft_dispatch_f16_bf16, F16, BF16);
SOFT_DISPATCH(soft_dispatch_bf16_f32, BF16, F32);
SOFT_DISPATCH(soft_dispatch_bf16_f16, BF16, F16);
SOFT_DISPATCH(soft_dispatch_bf16_bf16, BF16, BF16);
