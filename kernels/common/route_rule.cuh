// How logits become experts and weights, as the host passes it, and what route shares with its capacity.
#pragma once

#include "special.cuh"

// RouterConfig, flattened; 88 bytes. Numbers that do not apply are 0.
struct RouteRule {
    int num_experts;
    int top_k;
    int num_logits;
    int score;
    int selection;
    int num_groups;
    int top_groups;
    int group_score;
    int normalisation;
    int normalise_later;  // 1 if that happens after dropping what exceeds the capacity
    int token_type;       // -1 for all
    int num_keys;
    int least;   // experts of a token, or of a group with two levels
    int judged;  // best candidates of a group that it is judged by
    double jitter;
    double parameter;  // epsilon, min or p of the normalisation
    double factor;
    double amount;  // p of top-p, experts per nat of an entropy
};

static_assert(sizeof(RouteRule) == 88, "the host writes these bytes");

namespace route_rule {

constexpr int kSoftmax = 0;
constexpr int kSigmoid = 1;
constexpr int kSqrtSoftplus = 2;
constexpr int kPlain = 3;

constexpr int kTopK = 0;
constexpr int kGroupLimited = 1;
constexpr int kSparseMixer = 2;
constexpr int kProductKeys = 3;
constexpr int kOnePerGroup = 4;
constexpr int kPrototypes = 5;  // the same with a softmax for each group
constexpr int kTopP = 6;
constexpr int kEntropyK = 7;
constexpr int kTwoLevel = 8;

constexpr int kMax = 0;
constexpr int kTop2Sum = 1;
constexpr int kTopShareSum = 2;

constexpr int kNone = 0;
constexpr int kSum = 1;
constexpr int kClampedSum = 2;
constexpr int kPNorm = 3;

// What a score adds to the sum behind the divisor.
__device__ __forceinline__ double term(const RouteRule& rule, double score) {
    return rule.normalisation == kPNorm ? pow(fabs(score), rule.parameter) : score;
}

// What scores are divided by, given the sum of their terms. A NaN sum gives NaN. For all but kPNorm.
__device__ __forceinline__ double linear_divisor(const RouteRule& rule, double sum) {
    switch (rule.normalisation) {
        case kSum:
            return sum + rule.parameter;
        case kClampedSum:
            return sum < rule.parameter ? rule.parameter : sum;
        default:
            return 1.0;
    }
}

// The same for all.
__device__ __forceinline__ double divisor(const RouteRule& rule, double sum) {
    return rule.normalisation == kPNorm ? pow(sum, 1.0 / rule.parameter) : linear_divisor(rule, sum);
}

__device__ __forceinline__ float stored(double weight) {
    return weight != weight ? special::nan() : static_cast<float>(weight);
}

}  // namespace route_rule
