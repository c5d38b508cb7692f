// Rules that look at the whole batch: what their tokens are read as, and the weights of what was chosen. One warp per token, in F64.
#pragma once

#include "route_token.cuh"

namespace route_chosen {

// What the powers of a token's logits are relative to.
struct Scale {
    float max;       // largest logit that is a number
    double sum;      // of the powers
    bool undefined;  // whether the softmax is, and with it every weight made of it
};

// exp(logit - max); 0 for NaN, and at an infinite maximum 1 for every logit that has it.
__device__ __forceinline__ double power(float logit, float max) {
    if (logit != logit) {
        return 0.0;
    }
    return logit == max ? 1.0 : exp(static_cast<double>(logit) - static_cast<double>(max));
}

__device__ __forceinline__ bool is_served(const RouteRule& rule, const int* token_types, long long token) {
    return token_types == nullptr || !route_token::belongs_elsewhere(rule, token_types[token]);
}

__device__ __forceinline__ float largest(const float* row, int count, int lane) {
    float max = -special::infinity();
    for (int e = lane; e < count; e += 32) {
        max = fmaxf(max, row[e]);  // the number, of a number and NaN
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        max = fmaxf(max, __shfl_xor_sync(rank::kAllLanes, max, distance));
    }
    return max;
}

__device__ __forceinline__ Scale scale_of(const float* row, int count, int lane) {
    Scale scale = {largest(row, count, lane), 0.0, false};
    bool nan = false;
    for (int e = lane; e < count; e += 32) {
        nan |= row[e] != row[e];
        scale.sum += power(row[e], scale.max);
    }
    scale.sum = rank::sum_of_warp(scale.sum);
    scale.undefined = __any_sync(rank::kAllLanes, nan) || fabsf(scale.max) == special::infinity();
    return scale;
}

// The largest of the chosen logits, NaN if one of them is.
__device__ __forceinline__ double largest_chosen(const float* row, const int* ids, int count, int lane) {
    float max = -special::infinity();
    bool nan = false;
    for (int k = lane; k < count; k += 32) {
        float logit = row[ids[k]];
        nan |= logit != logit;
        max = fmaxf(max, logit);
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        max = fmaxf(max, __shfl_xor_sync(rank::kAllLanes, max, distance));
    }
    return __any_sync(rank::kAllLanes, nan) ? special::nan() : max;
}

// Weighs the first count ids, each lane those that it wrote itself: k % 32 == lane. The others become -1.
__device__ __forceinline__ void weigh(const RouteRule& rule, const float* row, int* ids, float* weights, int count, int lane) {
    route_token::ScoreOf score_of = {rule.score, 0.0, 1.0};
    if (route_token::over_selected(rule)) {
        score_of.max = largest_chosen(row, ids, count, lane);
    } else if (rule.score == route_rule::kSoftmax) {
        Scale scale = scale_of(row, rule.num_experts, lane);
        score_of.max = scale.max;
        score_of.all = scale.undefined ? special::nan() : scale.sum;
    }
    double sum = 0.0;
#pragma unroll 1
    for (int k = lane; k < count; k += 32) {
        sum += route_rule::term(rule, score_of(row[ids[k]]));
    }
    double divisor = route_rule::divisor(rule, rank::sum_of_warp(sum));
#pragma unroll 1
    for (int k = lane; k < rule.top_k; k += 32) {
        if (k < count) {
            weights[k] = route_rule::stored(score_of(row[ids[k]]) / divisor * rule.factor);
        } else {
            ids[k] = -1;
            weights[k] = 0.0f;
        }
    }
}

}  // namespace route_chosen
