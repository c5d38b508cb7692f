// topkIds, topkWeights: the best of a plan that gives each token and each expert its share (Sinkhorn)
//
// Shapes    logits, powers F32 [tokens, E], token_types [tokens] or null, served [chunks], sums F64 [chunks, E], scales F64 [E], done
//           [1], topkIds, topkWeights [tokens, topK].
// Grid      powers, scale: one block per chunk of items_per_block tokens; choose: ceil(tokens / items_per_block).
// Numerics  powers in F64, stored as F32; sums in F64 in a fixed order: of a token lane by lane, of an expert token by token, chunk by
//           chunk. What is compared is rounded to F32, weights in F64, rounded once.
// Requires  scale once for each iteration, after powers; it does nothing once done. counter is 0, and is again.
// Adjoint   routeBackward.
#include "common/arrivals.cuh"
#include "common/route_chosen.cuh"

namespace {

using rank::Pick;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kChunk = 64;
constexpr double kLargestScale = 1e30;

// The same in every thread.
__device__ double sum_of_block(double value, double* warp_sums) {
    value = rank::sum_of_warp(value);
    if (threadIdx.x % 32 == 0) {
        warp_sums[threadIdx.x / 32] = value;
    }
    __syncthreads();
    double sum = 0.0;
    for (int warp = 0; warp < kWarps; warp++) {
        sum += warp_sums[warp];
    }
    return sum;
}

// Ends an iteration, in one block; returns the mean change.
__device__ double rescale(const double* sums, double* scales, const int* served, int chunks, int num_experts, double* warp_sums) {
    long long tokens = 0;
    for (int chunk = 0; chunk < chunks; chunk++) {
        tokens += served[chunk];
    }
    double change = 0.0;
    for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
        double sum = 0.0;
        for (int chunk = 0; chunk < chunks; chunk++) {
            sum += sums[static_cast<long long>(chunk) * num_experts + expert];
        }
        double scale = static_cast<double>(tokens) / (num_experts * sum);
        scale = scale < kLargestScale ? scale : kLargestScale;
        change += fabs(scale - scales[expert]);
        scales[expert] = scale;
    }
    return sum_of_block(change, warp_sums) / num_experts;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    route_sinkhorn_powers(const float* __restrict__ logits, const int* __restrict__ token_types, float* __restrict__ powers,
                          int* __restrict__ served, double* __restrict__ scales, int* __restrict__ done, int tokens,
                          const __grid_constant__ RouteRule rule) {
    JMOE_SHARED(int, count, [1]);
    int lane = threadIdx.x % 32;
    int num_experts = rule.num_experts;
    long long first = static_cast<long long>(blockIdx.x) * kChunk;
    if (threadIdx.x == 0) {
        count[0] = 0;
    }
    __syncthreads();
    for (int i = threadIdx.x / 32; i < kChunk && first + i < tokens; i += kWarps) {
        const float* row = logits + (first + i) * num_experts;
        bool serves = route_chosen::is_served(rule, token_types, first + i);
        float max = route_chosen::largest(row, num_experts, lane);
        for (int expert = lane; expert < num_experts; expert += 32) {
            double power = serves ? route_chosen::power(row[expert], max) : 0.0;
            powers[(first + i) * num_experts + expert] = static_cast<float>(power);
        }
        if (lane == 0 && serves) {
            atomicAdd(&count[0], 1);
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        served[blockIdx.x] = count[0];
    }
    if (blockIdx.x == 0) {
        for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
            scales[expert] = 1.0;
        }
        if (threadIdx.x == 0) {
            *done = 0;
        }
    }
}
JMOE_EXPORT(route_sinkhorn_powers, kThreads, kChunk, 0);

extern "C" __global__ void __launch_bounds__(kThreads)
    route_sinkhorn_scale(const float* __restrict__ powers, const int* __restrict__ served, double* sums, double* scales, int* done,
                         unsigned* counter, int tokens, int num_experts, double tolerance) {
    JMOE_SHARED(double, row_scales, [kChunk]);
    JMOE_SHARED(double, warp_sums, [kWarps]);
    if (*done) {
        return;
    }
    int lane = threadIdx.x % 32;
    long long first = static_cast<long long>(blockIdx.x) * kChunk;
    int count = static_cast<int>(min(static_cast<long long>(kChunk), tokens - first));
    for (int i = threadIdx.x / 32; i < count; i += kWarps) {
        const float* row = powers + (first + i) * num_experts;
        double sum = 0.0;
        for (int expert = lane; expert < num_experts; expert += 32) {
            sum += row[expert] * scales[expert];
        }
        sum = rank::sum_of_warp(sum);
        if (lane == 0) {
            // A row without a number has no sum.
            row_scales[i] = sum > 0.0 ? 1.0 / sum : 0.0;
        }
    }
    __syncthreads();
    for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
        double sum = 0.0;
        for (int i = 0; i < count; i++) {
            sum += powers[(first + i) * num_experts + expert] * row_scales[i];
        }
        sums[static_cast<long long>(blockIdx.x) * num_experts + expert] = sum;
    }
    if (!arrivals::is_last(counter, gridDim.x)) {
        return;
    }
    double change = rescale(sums, scales, served, static_cast<int>(gridDim.x), num_experts, warp_sums);
    if (threadIdx.x == 0 && change < tolerance) {
        *done = 1;
    }
}
JMOE_EXPORT(route_sinkhorn_scale, kThreads, kChunk, 0);

extern "C" __global__ void __launch_bounds__(kThreads)
    route_sinkhorn_choose(const float* __restrict__ logits, const int* __restrict__ token_types, const float* __restrict__ powers,
                          const double* __restrict__ scales, int* __restrict__ topk_ids, float* __restrict__ topk_weights,
                          int tokens, const __grid_constant__ RouteRule rule) {
    int lane = threadIdx.x % 32;
    long long token = static_cast<long long>(blockIdx.x) * kWarps + threadIdx.x / 32;
    if (token >= tokens) {
        return;
    }
    const float* row = logits + token * rule.num_experts;
    const float* own = powers + token * rule.num_experts;
    int* ids = topk_ids + token * rule.top_k;
    int count = route_chosen::is_served(rule, token_types, token) ? rule.top_k : 0;
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
    for (int k = 0; k < count; k++) {
        Pick<uint32_t> best = Pick<uint32_t>::none();
        for (int expert = lane; expert < rule.num_experts; expert += 32) {
            float share = static_cast<float>(own[expert] * scales[expert]);
            rank::offer(best, pick, row[expert] != row[expert] ? rank::kNan : rank::key_of(share), expert);
        }
        pick = rank::best_of_warp(best);
        if (lane == k % 32) {
            ids[k] = pick.id;
        }
    }
    route_chosen::weigh(rule, row, ids, topk_weights + token * rule.top_k, count, lane);
}
JMOE_EXPORT(route_sinkhorn_choose, kThreads, kWarps, 0);
