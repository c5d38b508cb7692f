// At most limit tokens per expert: the k-th choices of all tokens queue behind all earlier choices; what comes later gets
// weight 0
//
// Shapes    best_scores, order [tokens]; topkIds, topkWeights [tokens, topK].
// Grid      order, normalise: ceil(tokens / items_per_block); drop: one block per expert.
// Numerics  comparisons and integers; normalise in F64, rounded once.
// Requires  order null if tokens queue by position.
// Adjoint   none: what is dropped has no gradient.
//
// order ranks each token by counting those before it, drop reads all ids once per expert: quadratic in the tokens and linear
// in the experts, but without scratch memory, and cheap beside the layer for as many tokens as have a capacity.
#include "common/rank.cuh"
#include "common/route_rule.cuh"

namespace {

constexpr int kThreads = 256;
constexpr int kDropThreads = 512;
constexpr int kDropWarps = kDropThreads / 32;
constexpr int kDropBatch = 4;

// NaN first, then by falling score.
__device__ __forceinline__ uint32_t queue_key(float score) {
    uint32_t key = rank::key_of(score);
    return key == rank::kNan ? 0xffffffffu : key;
}

// How many of the threads before this one say yes, of all warps; total gets the number of all.
__device__ int count_before(bool yes, int* warp_counts, int* total) {
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    uint32_t votes = __ballot_sync(rank::kAllLanes, yes);
    if (lane == 0) {
        warp_counts[warp] = __popc(votes);
    }
    __syncthreads();
    int before = __popc(votes & ((1u << lane) - 1));
    int all = 0;
    for (int other = 0; other < kDropWarps; other++) {
        before += other < warp ? warp_counts[other] : 0;
        all += warp_counts[other];
    }
    __syncthreads();
    *total = all;
    return before;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    route_capacity_order(const float* __restrict__ best_scores, int* __restrict__ order, int tokens) {
    JMOE_SHARED(uint32_t, keys, [kThreads]);
    long long token = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    uint32_t own = token < tokens ? queue_key(best_scores[token]) : 0;
    int place = 0;
    for (long long base = 0; base < tokens; base += kThreads) {
        long long other = base + threadIdx.x;
        keys[threadIdx.x] = other < tokens ? queue_key(best_scores[other]) : 0;
        __syncthreads();
        int count = static_cast<int>(min(static_cast<long long>(kThreads), tokens - base));
#pragma unroll 8
        for (int i = 0; i < count; i++) {
            place += keys[i] > own || (keys[i] == own && base + i < token);
        }
        __syncthreads();
    }
    if (token < tokens) {
        order[place] = static_cast<int>(token);
    }
}
JMOE_EXPORT(route_capacity_order, kThreads, kThreads, 0);

extern "C" __global__ void __launch_bounds__(kDropThreads, 1)
    route_capacity_drop(const int* __restrict__ topk_ids, const int* __restrict__ order, float* __restrict__ topk_weights,
                        int tokens, int top_k, int num_experts, long long limit) {
    JMOE_SHARED(int, warp_counts, [kDropWarps]);
    int expert = static_cast<int>(blockIdx.x);
    if (expert >= num_experts) {
        return;
    }
    long long queued = 0;
    for (int k = 0; k < top_k; k++) {
        for (long long base = 0; base < tokens; base += kDropThreads * kDropBatch) {
            // Loads of several tokens are in flight together.
            int waiting[kDropBatch];
            bool wants[kDropBatch];
#pragma unroll
            for (int i = 0; i < kDropBatch; i++) {
                long long place = base + i * kDropThreads + threadIdx.x;
                bool exists = place < tokens;
                waiting[i] = exists && order != nullptr ? order[place] : static_cast<int>(place);
                wants[i] = exists && topk_ids[static_cast<long long>(waiting[i]) * top_k + k] == expert;
            }
#pragma unroll
            for (int i = 0; i < kDropBatch && base + i * kDropThreads < tokens; i++) {
                int total;
                int before = count_before(wants[i], warp_counts, &total);
                if (wants[i] && queued + before >= limit) {
                    topk_weights[static_cast<long long>(waiting[i]) * top_k + k] = 0.0f;
                }
                queued += total;
            }
        }
    }
}
JMOE_EXPORT(route_capacity_drop, kDropThreads, 1, 0);

extern "C" __global__ void __launch_bounds__(kThreads)
    route_capacity_normalise(float* __restrict__ topk_weights, int tokens, RouteRule rule) {
    long long token = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (token >= tokens) {
        return;
    }
    float* weights = topk_weights + token * rule.top_k;
    double sum = 0.0;
    for (int k = 0; k < rule.top_k; k++) {
        sum += route_rule::term(rule, weights[k]);
    }
    double divisor = route_rule::divisor(rule, sum);
    for (int k = 0; k < rule.top_k; k++) {
        if (weights[k] != 0.0f) {
            weights[k] = route_rule::stored(weights[k] / divisor * rule.factor);
        }
    }
}
JMOE_EXPORT(route_capacity_normalise, kThreads, kThreads, 0);
