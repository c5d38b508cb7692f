// One token, routed by one warp: what selections are made by, and the weights of what was selected.
#pragma once

#include "logits.cuh"
#include "rank.cuh"
#include "route_rule.cuh"

namespace route_token {

using rank::Pick;

// What one token is routed from and to, beside its logits.
struct Token {
    const RouteRule& rule;
    const float* selection_bias;
    int* ids;
    float* weights;
    float* best_score;
    int lane;
};

// A negative type means that the token is absent, any other than the router's that it is another router's.
__device__ __forceinline__ bool belongs_elsewhere(const RouteRule& rule, int type) {
    return type < 0 || (rule.token_type != -1 && type != rule.token_type);
}

// What scores are relative to.
struct Scale {
    double max;    // largest logit that is a number
    double sum;    // of exp(logit - max), of a softmax where it is needed
    bool any_nan;  // among the logits
};

// What a selection leaves: the scale, and the id that it chose k-th, in lane k.
struct Selected {
    Scale scale;
    int id;
};

// Whether experts are ordered by scores, not by logits.
__device__ __forceinline__ bool by_score(const RouteRule& rule, const float* selection_bias) {
    return selection_bias != nullptr || (rule.selection == route_rule::kGroupLimited && rule.group_score == route_rule::kTop2Sum);
}

__device__ __forceinline__ bool by_score(const Token& token) {
    return by_score(token.rule, token.selection_bias);
}

// Whether the weights are a softmax over the selected logits alone.
__device__ __forceinline__ bool over_selected(const RouteRule& rule) {
    return rule.score == route_rule::kSoftmax && rule.normalisation == route_rule::kSum && rule.parameter == 0.0;
}

// The argument of a softmax's exp; at an infinite maximum it is the limit, all equal at the maximum.
__device__ __forceinline__ double below(double logit, double max) {
    return logit == max ? 0.0 : logit - max;
}

template <class Logits>
__device__ Scale scale_of(const Logits& logits, const Token& token) {
    using Value = typename Logits::Value;
    using Key = typename Logits::Key;
    const RouteRule& rule = token.rule;
    Scale scale = {0.0, 1.0, false};
    bool softmax = rule.score == route_rule::kSoftmax;
    if (token.best_score == nullptr && (!softmax || (!by_score(token) && over_selected(rule)))) {
        return scale;
    }
    Pick<Key> best = Pick<Key>::none();
    bool own_nan = false;
    logits.for_each(token.lane, [&](int id, Value logit) {
        own_nan |= logit != logit;
        rank::offer(best, Pick<Key>::before_all(), rank::key_of(logit), id);
    });
    best = rank::best_of_warp(best);
    scale.any_nan = __any_sync(rank::kAllLanes, own_nan);
    // Without a number: below all of them.
    Value max = best.key == rank::kNan ? static_cast<Value>(-special::infinity()) : rank::value_of(best.key);
    scale.max = max;
    if (softmax) {
        double sum = 0.0;
        logits.for_each(token.lane, [&](int, Value logit) {
            if (logit == logit) {
                sum += exp(below(logit, max));
            }
        });
        scale.sum = rank::sum_of_warp(sum);
    }
    return scale;
}

__device__ __forceinline__ bool is_undefined(const RouteRule& rule, const Scale& scale) {
    return rule.score == route_rule::kSoftmax &&
           (scale.any_nan || fabs(scale.max) == special::infinity());
}

__device__ __forceinline__ float bias_of(int id, const Token& token) {
    return token.selection_bias == nullptr ? 0.0f : token.selection_bias[id];
}

// The scores that are neither a softmax nor a sigmoid.
__device__ __forceinline__ double other_score(int score, double logit) {
    return score == route_rule::kSqrtSoftplus ? sqrt(fmax(logit, 0.0) + log1p(exp(-fabs(logit)))) : logit;
}

// What an expert is ordered by: its logit, or its score and the bias, both rounded to F32 so that every backend has the same
// equals. Of a NaN logit it is NaN. Without the sqrt(softplus), which few models have, it is short enough for unrolled loops.
template <bool any_score = true, class Value>
__device__ __forceinline__ Value candidate(Value logit, float bias, const Scale& scale, const Token& token) {
    if (!by_score(token)) {
        return logit;
    }
    bool softmax = token.rule.score == route_rule::kSoftmax;
    double score;
    if (any_score && token.rule.score > route_rule::kSigmoid) {
        score = other_score(token.rule.score, logit);
    } else if (token.rule.score > route_rule::kSigmoid) {
        score = logit;
    } else {
        double power = exp(softmax ? below(logit, scale.max) : -static_cast<double>(logit));
        score = (softmax ? power : 1.0) / (softmax ? scale.sum : 1.0 + power);
    }
    float rounded = static_cast<float>(score);
    return token.selection_bias == nullptr ? rounded : rounded + bias;
}

// ---- Weights

// The logit of any expert: of a row, or with second halves of product keys.
struct LogitOf {
    const float* first;
    const float* second;
    int num_keys;

    __device__ __forceinline__ double operator()(int id) const {
        return second == nullptr ? static_cast<double>(first[id])
                                 : static_cast<double>(first[id / num_keys]) + static_cast<double>(second[id % num_keys]);
    }
};

// The k-th choice, of this lane's: the first of them it still knows.
__device__ __forceinline__ int chosen(int k, const Selected& selected, const Token& token) {
    return k < 32 ? selected.id : token.ids[k];
}

// The largest selected logit, NaN if one of them is.
__device__ __forceinline__ double largest_selected(const LogitOf& logit_of, const Selected& selected, const Token& token) {
    double largest = -special::infinity();
    bool nan = false;
#pragma unroll 1
    for (int k = token.lane; k < token.rule.top_k; k += 32) {
        double logit = logit_of(chosen(k, selected, token));
        nan |= logit != logit;
        largest = fmax(largest, logit);
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        largest = fmax(largest, __shfl_xor_sync(rank::kAllLanes, largest, distance));
    }
    return __any_sync(rank::kAllLanes, nan) ? special::nan() : largest;
}

// What makes a score of a selected logit.
struct ScoreOf {
    int score;
    double max;
    double all;

    __device__ __forceinline__ double operator()(double logit) const {
        if (score > route_rule::kSigmoid) {
            return other_score(score, logit);
        }
        bool softmax = score == route_rule::kSoftmax;
        double power = exp(softmax ? logit - max : -logit);
        return softmax ? power / all : 1.0 / (1.0 + power);
    }
};

// Weighs the selected experts; each lane the ids that it wrote itself.
__device__ __forceinline__ void weigh(const LogitOf& logit_of, const Selected& selected, const Token& token) {
    const RouteRule& rule = token.rule;
    const Scale& scale = selected.scale;
    double undefined = special::nan();
    double sum_of_all = is_undefined(rule, scale) ? undefined : scale.sum;
    bool own_sum = over_selected(rule);
    ScoreOf score_of = {rule.score, own_sum ? largest_selected(logit_of, selected, token) : scale.max, own_sum ? 1.0 : sum_of_all};
    double divisor = 1.0;
    double factor = rule.normalise_later ? 1.0 : rule.factor;
    // The usual: nothing is computed twice.
    if (rule.top_k <= 32 && rule.normalisation != route_rule::kPNorm) {
        double score = token.lane < rule.top_k ? score_of(logit_of(selected.id)) : 0.0;
        if (!rule.normalise_later) {
            divisor = route_rule::linear_divisor(rule, rank::sum_of_warp(score));
        }
        if (token.lane < rule.top_k) {
            token.weights[token.lane] = route_rule::stored(score / divisor * factor);
        }
        return;
    }
    // Once for the sum, once for the weights: K may exceed the lanes.
#pragma unroll 1
    for (int pass = rule.normalise_later ? 1 : 0; pass < 2; pass++) {
        double sum = 0.0;
#pragma unroll 1
        for (int k = token.lane; k < rule.top_k; k += 32) {
            double score = score_of(logit_of(token.ids[k]));
            if (pass == 0) {
                sum += route_rule::term(rule, score);
            } else {
                token.weights[k] = route_rule::stored(score / divisor * factor);
            }
        }
        if (pass == 0) {
            divisor = route_rule::divisor(rule, rank::sum_of_warp(sum));
        }
    }
}

__device__ __forceinline__ void write_best_score(const Scale& scale, const Token& token) {
    if (token.best_score == nullptr || token.lane != 0) {
        return;
    }
    int score = token.rule.score;
    double best = score == route_rule::kSoftmax ? 1.0 / scale.sum : ScoreOf{score, 0.0, 1.0}(scale.max);
    *token.best_score = scale.any_nan || is_undefined(token.rule, scale) ? special::nan() : static_cast<float>(best);
}

// Two argmaxes, each with a softmax over the experts near it (Phi-3.5-MoE).
__device__ __forceinline__ void route_by_sparse_mixer(const logits::Row& logits, const Token& token) {
    const RouteRule& rule = token.rule;
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
    int taken = -1;
#pragma unroll 1
    for (int k = 0; k < 2; k++) {
        Pick<uint32_t> best = Pick<uint32_t>::none();
        logits.for_each(token.lane, [&](int id, float logit) { rank::offer(best, pick, rank::key_of(logit), id); });
        pick = rank::best_of_warp(best);
        double max = logits.at(pick.id);
        double sum = 0.0;
        logits.for_each(token.lane, [&](int id, float logit) {
            double z = logit;
            double distance = (max - z) / fmax(fabs(z), max);
            double rest = id == taken ? -special::infinity() : z;
            // As the negation says, a NaN distance is near.
            if (!(distance > 2.0 * rule.jitter)) {
                sum += exp(rest - max);
            }
        });
        sum = rank::sum_of_warp(sum);
        if (token.lane == k) {
            token.ids[k] = pick.id;
            token.weights[k] = route_rule::stored(rule.factor / sum);
        }
        taken = pick.id;
    }
}

__device__ __forceinline__ void route_nowhere(const Token& token) {
    for (int k = token.lane; k < token.rule.top_k; k += 32) {
        token.ids[k] = -1;
        token.weights[k] = 0.0f;
    }
    if (token.best_score != nullptr && token.lane == 0) {
        *token.best_score = 0.0f;
    }
}

}  // namespace route_token
