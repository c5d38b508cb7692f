// topkIds, topkWeights: each expert takes its best tokens (Zhou et al. 2022)
//
// Shapes    logits F32 [tokens, E], token_types [tokens] or null, candidates [E, tokens], takes [tokens, ceil(E / 32)] bits,
//           topkIds, topkWeights [tokens, topK]; maxima F32, sums F64 [E].
// Grid      order: ceil(tokens / items_per_block); columns, select: one block per expert; weigh: ceil(tokens / items_per_block).
// Numerics  softmax scores in F64, compared as F32; sigmoid scores compared by logit. Weights in F64, rounded once. Bits are set in
//           any order.
// Requires  order, select and weigh after each other. For a softmax over tokens columns before weigh, and order with a rule whose
//           score is a sigmoid; for others maxima and sums null.
// Adjoint   routeBackward.
#include "common/route_chosen.cuh"

namespace {

using rank::Pick;
using route_chosen::Scale;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTile = 32;
constexpr int kDigits = 256;

// One more RouteRule::normalisation, which no other rule has: s / number of the token's experts.
constexpr int kCount = 4;

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
    for (int other = 0; other < kWarps; other++) {
        before += other < warp ? warp_counts[other] : 0;
        all += warp_counts[other];
    }
    __syncthreads();
    *total = all;
    return before;
}

// What an expert orders a token by: kAbsent for a NaN, which it never takes.
__device__ __forceinline__ uint32_t candidate(const RouteRule& rule, float logit, const Scale& scale) {
    if (logit != logit) {
        return rank::kAbsent;
    }
    bool softmax = rule.score == route_rule::kSoftmax;
    return rank::key_of(softmax ? static_cast<float>(route_chosen::power(logit, scale.max) / scale.sum) : logit);
}

// Tokens that an expert takes.
__device__ __forceinline__ int share_of(double capacity_factor, int least, int served, int num_experts) {
    double share = floor(capacity_factor * served / num_experts);
    return static_cast<int>(fmin(fmax(share, static_cast<double>(least)), static_cast<double>(served)));
}

// The candidate that is the count-th largest, digit by digit; equals gets how many of those that equal it are among them.
__device__ uint32_t lowest_taken(const uint32_t* candidates, int tokens, int count, int* histogram, int* shared, int* equals) {
    uint32_t lowest = 0;
    uint32_t known = 0;
    *equals = count;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int digit = threadIdx.x; digit < kDigits; digit += kThreads) {
            histogram[digit] = 0;
        }
        __syncthreads();
        for (long long token = threadIdx.x; token < tokens; token += kThreads) {
            uint32_t key = candidates[token];
            if (key != rank::kAbsent && (key & known) == lowest) {
                atomicAdd(&histogram[key >> shift & (kDigits - 1)], 1);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int rest = *equals;
            int digit = kDigits - 1;
            while (rest > histogram[digit]) {
                rest -= histogram[digit--];
            }
            shared[0] = digit;
            shared[1] = rest;
        }
        __syncthreads();
        lowest |= static_cast<uint32_t>(shared[0]) << shift;
        known |= static_cast<uint32_t>(kDigits - 1) << shift;
        *equals = shared[1];
        __syncthreads();
    }
    return lowest;
}

// Weighs the first count ids by a softmax over tokens, each lane those that it wrote itself. The others become -1.
__device__ void weigh_by_columns(const RouteRule& rule, const float* row, const float* maxima, const double* sums, int* ids,
                                 float* weights, int count, int lane) {
    double total = 0.0;
#pragma unroll 1
    for (int k = lane; k < count; k += 32) {
        total += route_rule::term(rule, route_chosen::power(row[ids[k]], maxima[ids[k]]) / sums[ids[k]]);
    }
    double divisor = route_rule::divisor(rule, rank::sum_of_warp(total));
#pragma unroll 1
    for (int k = lane; k < rule.top_k; k += 32) {
        if (k < count) {
            double score = route_chosen::power(row[ids[k]], maxima[ids[k]]) / sums[ids[k]];
            weights[k] = route_rule::stored(score / divisor * rule.factor);
        } else {
            ids[k] = -1;
            weights[k] = 0.0f;
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    route_expert_choice_order(const float* __restrict__ logits, const int* __restrict__ token_types,
                              uint32_t* __restrict__ candidates, uint32_t* __restrict__ takes, int tokens,
                              const __grid_constant__ RouteRule rule) {
    JMOE_SHARED(Scale, scales, [kTile]);
    JMOE_SHARED(int, served, [kTile]);
    JMOE_SHARED(uint32_t, tile, [kTile][kTile + 1]);
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    long long first = static_cast<long long>(blockIdx.x) * kTile;
    int count = static_cast<int>(min(static_cast<long long>(kTile), tokens - first));
    int words = (rule.num_experts + 31) / 32;
    for (int i = warp; i < count; i += kWarps) {
        bool serves = route_chosen::is_served(rule, token_types, first + i);
        Scale scale = {0.0f, 1.0, false};
        if (serves && rule.score == route_rule::kSoftmax) {
            scale = route_chosen::scale_of(logits + (first + i) * rule.num_experts, rule.num_experts, lane);
        }
        if (lane == 0) {
            scales[i] = scale;
            served[i] = serves;
        }
        for (int word = lane; word < words; word += 32) {
            takes[(first + i) * words + word] = 0;
        }
    }
    __syncthreads();
    for (int expert = 0; expert < rule.num_experts; expert += kTile) {
        for (int i = warp; i < count; i += kWarps) {
            bool exists = served[i] && expert + lane < rule.num_experts;
            tile[i][lane] = exists ? candidate(rule, logits[(first + i) * rule.num_experts + expert + lane], scales[i])
                                   : rank::kAbsent;
        }
        __syncthreads();
        for (int i = warp; i < kTile && expert + i < rule.num_experts; i += kWarps) {
            if (lane < count) {
                candidates[static_cast<long long>(expert + i) * tokens + first + lane] = tile[lane][i];
            }
        }
        __syncthreads();
    }
}
JMOE_EXPORT(route_expert_choice_order, kThreads, kTile, 0);

// The softmax of each expert over the tokens that are served: its largest logit, and the sum of the powers, NaN if undefined.
extern "C" __global__ void __launch_bounds__(kThreads)
    route_expert_choice_columns(const float* __restrict__ logits, const int* __restrict__ token_types,
                                float* __restrict__ maxima, double* __restrict__ sums, int tokens,
                                const __grid_constant__ RouteRule rule) {
    JMOE_SHARED(float, warp_maxima, [kWarps]);
    JMOE_SHARED(double, warp_sums, [kWarps]);
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    const float* column = logits + blockIdx.x;
    float max = -special::infinity();
    bool undefined = false;
    for (long long token = threadIdx.x; token < tokens; token += kThreads) {
        if (route_chosen::is_served(rule, token_types, token)) {
            float logit = column[token * rule.num_experts];
            undefined |= logit != logit;
            max = fmaxf(max, logit);  // the number, of a number and NaN
        }
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        max = fmaxf(max, __shfl_xor_sync(rank::kAllLanes, max, distance));
    }
    if (lane == 0) {
        warp_maxima[warp] = max;
    }
    __syncthreads();
    for (int other = 0; other < kWarps; other++) {
        max = fmaxf(max, warp_maxima[other]);
    }
    double sum = 0.0;
    for (long long token = threadIdx.x; token < tokens; token += kThreads) {
        if (route_chosen::is_served(rule, token_types, token)) {
            sum += route_chosen::power(column[token * rule.num_experts], max);
        }
    }
    sum = rank::sum_of_warp(sum);
    undefined = __any_sync(rank::kAllLanes, undefined) || fabsf(max) == special::infinity();
    if (lane == 0) {
        warp_sums[warp] = undefined ? special::nan() : sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int other = 1; other < kWarps; other++) {
            sum += warp_sums[other];
        }
        maxima[blockIdx.x] = max;
        sums[blockIdx.x] = undefined ? special::nan() : sum;
    }
}
JMOE_EXPORT(route_expert_choice_columns, kThreads, 1, 0);

extern "C" __global__ void __launch_bounds__(kThreads)
    route_expert_choice_select(const uint32_t* __restrict__ candidates, const int* __restrict__ token_types,
                               uint32_t* __restrict__ takes, int tokens, double capacity_factor, int least,
                               const __grid_constant__ RouteRule rule) {
    JMOE_SHARED(int, histogram, [kDigits]);
    JMOE_SHARED(int, warp_counts, [kWarps]);
    JMOE_SHARED(int, shared, [2]);
    int expert = static_cast<int>(blockIdx.x);
    const uint32_t* own = candidates + static_cast<long long>(expert) * tokens;
    if (threadIdx.x < 2) {
        shared[threadIdx.x] = 0;
    }
    __syncthreads();
    int served = 0;
    int numbers = 0;
    for (long long token = threadIdx.x; token < tokens; token += kThreads) {
        served += route_chosen::is_served(rule, token_types, token);
        numbers += own[token] != rank::kAbsent;
    }
    atomicAdd(&shared[0], served);
    atomicAdd(&shared[1], numbers);
    __syncthreads();
    int count = min(share_of(capacity_factor, least, shared[0], rule.num_experts), shared[1]);
    __syncthreads();
    if (count == 0) {
        return;
    }
    int equals;
    uint32_t lowest = lowest_taken(own, tokens, count, histogram, shared, &equals);
    int words = (rule.num_experts + 31) / 32;
    for (long long base = 0; base < tokens; base += kThreads) {
        long long token = base + threadIdx.x;
        uint32_t key = token < tokens ? own[token] : rank::kAbsent;
        int total;
        int before = count_before(key == lowest, warp_counts, &total);
        if (key > lowest || (key == lowest && before < equals)) {
            atomicOr(&takes[token * words + expert / 32], 1u << expert % 32);
        }
        equals -= total;
    }
}
JMOE_EXPORT(route_expert_choice_select, kThreads, 1, 0);

extern "C" __global__ void __launch_bounds__(kThreads)
    route_expert_choice_weigh(const float* __restrict__ logits, const uint32_t* __restrict__ takes,
                              const float* __restrict__ maxima, const double* __restrict__ sums, int* __restrict__ topk_ids,
                              float* __restrict__ topk_weights, int tokens, const __grid_constant__ RouteRule rule) {
    int lane = threadIdx.x % 32;
    long long token = static_cast<long long>(blockIdx.x) * kWarps + threadIdx.x / 32;
    if (token >= tokens) {
        return;
    }
    const float* row = logits + token * rule.num_experts;
    int* ids = topk_ids + token * rule.top_k;
    int words = (rule.num_experts + 31) / 32;
    const uint32_t* own = takes + token * words;
    int taken = 0;
    for (int word = 0; word < words; word++) {
        taken += __popc(own[word]);
    }
    // Nobody takes a token that is not served.
    int count = min(taken, rule.top_k);
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
    for (int k = 0; k < count; k++) {
        Pick<uint32_t> best = Pick<uint32_t>::none();
        for (int word = 0; word < words; word++) {
            if (own[word] >> lane & 1) {
                rank::offer(best, pick, rank::key_of(row[word * 32 + lane]), word * 32 + lane);
            }
        }
        pick = rank::best_of_warp(best);
        if (lane == k % 32) {
            ids[k] = pick.id;
        }
    }
    float* weights = topk_weights + token * rule.top_k;
    RouteRule counted = rule;
    if (rule.normalisation == kCount) {
        counted.factor = rule.factor / max(count, 1);
    }
    if (sums != nullptr) {
        weigh_by_columns(counted, row, maxima, sums, ids, weights, count, lane);
    } else {
        route_chosen::weigh(counted, row, ids, weights, count, lane);
    }
}
JMOE_EXPORT(route_expert_choice_weigh, kThreads, kWarps, 0);
