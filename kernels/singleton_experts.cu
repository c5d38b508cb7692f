// neurons[t,k] = w[t,k] activation(x[t] . up[topkIds[t,k]]), the first half of experts of a single neuron; unpermute with ids for
// rows adds neurons[t,k] down[topkIds[t,k]]
//
// Shapes    x [tokens, hidden], topkIds, weights [tokens, topK] (weights null for 1), up [num_experts, hidden], neurons
//           [tokens, topK]. An id outside 0..num_experts-1 or a weight of 0 gives 0, which unpermute does not read a row for.
// Grid      ceil(slots / items_per_block), a warp per slot.
// Numerics  products and activation in F32; each lane sums its share of the columns in order, then the lanes pairwise.
// Requires  nothing of alignment.
// Adjoint   singletonExpertsBackward.
#include "common/activation.cuh"
#include "common/dtypes.cuh"
#include "common/rank.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;
using dtypes::Values;

constexpr int kThreads = 256;
constexpr int kSlots = kThreads / 32;

// Kinds without a gate.
__device__ __forceinline__ float activated(int kind, float a) {
    Values<1> neuron = {a};
    activation::activate(kind, INFINITY, Values<1>{}, neuron);
    return neuron.at[0];
}

// The same sum in every lane.
template <class X, class W, int count>
__device__ __forceinline__ float dot(const typename X::Bits* x, const typename W::Bits* up, int hidden, int lane) {
    Values<count> sums = {};
#pragma unroll 2
    for (long long h = lane * count; h < hidden; h += 32 * count) {
        Values<count> a = dtypes::load<X, count>(x + h);
        Values<count> b = dtypes::load<W, count>(up + h);
#pragma unroll
        for (int i = 0; i < count; i++) {
            sums.at[i] = fmaf(a.at[i], b.at[i], sums.at[i]);
        }
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < count; i++) {
        sum += sums.at[i];
    }
    return rank::sum_of_warp(sum);
}

template <class X, class W>
__device__ void compute_neuron(const typename X::Bits* x, const int* topk_ids, const float* weights,
                               const typename W::Bits* up, float* neurons, int slots, int num_experts, int hidden, int top_k,
                               int kind) {
    long long slot = static_cast<long long>(blockIdx.x) * kSlots + threadIdx.x / 32;
    int lane = threadIdx.x % 32;
    if (slot >= slots) {
        return;
    }
    int id = topk_ids[slot];
    float weight = weights == nullptr ? 1.0f : weights[slot];
    float neuron = 0.0f;
    if (id >= 0 && id < num_experts && weight != 0.0f) {
        const typename X::Bits* token = x + slot / top_k * hidden;
        const typename W::Bits* expert = up + static_cast<long long>(id) * hidden;
        float sum = dtypes::vectors_fit(hidden, x, up) ? dot<X, W, dtypes::kVector>(token, expert, hidden, lane)
                                                       : dot<X, W, 1>(token, expert, hidden, lane);
        neuron = weight * activated(kind, sum);
    }
    if (lane == 0) {
        neurons[slot] = neuron;
    }
}

}  // namespace

#define SINGLETON_EXPERTS(name, X, W)                                                                                     \
    extern "C" __global__ void __launch_bounds__(kThreads)                                                                \
        name(const X::Bits* __restrict__ x, const int* __restrict__ topk_ids, const float* __restrict__ weights,          \
             const W::Bits* __restrict__ up, float* __restrict__ neurons, int slots, int num_experts, int hidden,         \
             int top_k, int kind) {                                                                                   \
        compute_neuron<X, W>(x, topk_ids, weights, up, neurons, slots, num_experts, hidden, top_k, kind);             \
    }                                                                                                                     \
    JMOE_EXPORT(name, kThreads, kSlots, 0)

SINGLETON_EXPERTS(singleton_experts_f32_f32, F32, F32);
SINGLETON_EXPERTS(singleton_experts_f32_f16, F32, F16);
SINGLETON_EXPERTS(singleton_experts_f32_bf16, F32, BF16);
SINGLETON_EXPERTS(singleton_experts_f16_f32, F16, F32);
SINGLETON_EXPERTS(singleton_experts_f16_f16, F16, F16);
SINGLETON_EXPERTS(singleton_experts_f16_bf16, F16, BF16);
SINGLETON_EXPERTS(singleton_experts_bf16_f32, BF16, F32);
SINGLETON_EXPERTS(singleton_experts_bf16_f16, BF16, F16);
SINGLETON_EXPERTS(singleton_experts_bf16_bf16, BF16, BF16);
