// y[t] = sum_s C[t,s] rows[s], with C the softmax of logits over slots
//
// Shapes    rows [slots, hidden], logits F32 [tokens, slots], y [tokens, hidden]; maxima, inverses [tokens], from
//           soft_combine_weights: the largest logit of a token and 1 / sum of exp(logit - it).
// Grid      x: ceil(tokens / items_per_block) of both; y of soft_combine_<rows>_<y>: any, shares the columns.
// Numerics  F32, slots in order; the sum of a token's exponentials by lanes, then the lanes pairwise. A NaN logit, or an
//           infinite largest one, makes a token NaN.
// Requires  nothing of alignment.
// Adjoint   softCombineBackward.
#include "common/rank.cuh"
#include "common/soft_mix.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;

constexpr int kTokens = soft_mix::kThreads / 32;

}  // namespace

extern "C" __global__ void __launch_bounds__(soft_mix::kThreads)
    soft_combine_weights(const float* __restrict__ logits, float* __restrict__ maxima, float* __restrict__ inverses, int tokens,
                         int slots) {
    long long token = static_cast<long long>(blockIdx.x) * kTokens + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (token >= tokens) {
        return;
    }
    const float* own = logits + token * slots;
    float max = -special::infinity();
    for (long long slot = lane; slot < slots; slot += 32) {
        max = fmaxf(max, own[slot]);
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        max = fmaxf(max, __shfl_xor_sync(rank::kAllLanes, max, distance));
    }
    float sum = 0.0f;
    for (long long slot = lane; slot < slots; slot += 32) {
        sum += expf(own[slot] - max);
    }
    sum = rank::sum_of_warp(sum);
    if (lane == 0) {
        maxima[token] = max;
        inverses[token] = 1.0f / sum;
    }
}
JMOE_EXPORT(soft_combine_weights, soft_mix::kThreads, kTokens, 0);

#define SOFT_COMBINE(name, R, Y)                                                                                          \
    extern "C" __global__ void __launch_bounds__(soft_mix::kThreads, soft_mix::kBlocks)                                   \
        name(const R::Bits* __restrict__ rows_in, const float* __restrict__ logits, const float* __restrict__ maxima,     \
             const float* __restrict__ inverses, Y::Bits* __restrict__ y, int tokens, int slots, int hidden) {            \
        JMOE_SHARED(float, weights, [soft_mix::kSources * soft_mix::kWeightStride]);                                      \
        JMOE_SHARED(float, values, [soft_mix::kSources * soft_mix::kColumns]);                                            \
        soft_mix::Softmax softmax = {logits, maxima, inverses, tokens, slots};                                            \
        soft_mix::mix<R, Y, false>(rows_in, softmax, {weights, values}, y, hidden);                                       \
    }                                                                                                                     \
    JMOE_EXPORT(name, soft_mix::kThreads, soft_mix::kTargets, 0)

SOFT_COMBINE(soft_combine_f32_f32, F32, F32);
SOFT_COMBINE(soft_combine_f32_f16, F32, F16);
SOFT_COMBINE(soft_combine_f32_bf16, F32, BF16);
SOFT_COMBINE(soft_combine_f16_f32, F16, F32);
SOFT_COMBINE(soft_combine_f16_f16, F16, F16);
SOFT_COMBINE(soft_combine_f16_bf16, F16, BF16);
SOFT_COMBINE(soft_combine_bf16_f32, BF16, F32);
SOFT_COMBINE(soft_combine_bf16_f16, BF16, F16);
SOFT_COMBINE(soft_combine_bf16_bf16, BF16, BF16);
