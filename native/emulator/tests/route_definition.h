// Routing as its definition says it, one token at a time in double, and the rules and logits that check programs try.
#pragma once

#include "common/route_rule.cuh"
#include "kernels_host.h"

namespace route_definition {

using host::Array;
using host::Floats;
using std::to_string;

constexpr int kSigmoid = 1;

// Candidates closer than this are not decided the same way by F32 and double.
constexpr double kDecided = 0x1p-20;

inline RouteRule rule_of(int experts, int top_k, int score, int normalisation, double parameter, double factor) {
    RouteRule rule = {};
    rule.num_experts = experts;
    rule.top_k = top_k;
    rule.num_logits = experts;
    rule.score = score;
    rule.normalisation = normalisation;
    rule.parameter = parameter;
    rule.factor = factor;
    rule.token_type = -1;
    return rule;
}

inline RouteRule in_groups(RouteRule rule, int groups, int top_groups, int group_score) {
    rule.selection = route_rule::kGroupLimited;
    rule.num_groups = groups;
    rule.top_groups = top_groups;
    rule.group_score = group_score;
    return rule;
}

inline RouteRule by_keys(RouteRule rule, int keys) {
    rule.selection = route_rule::kProductKeys;
    rule.num_keys = keys;
    rule.num_logits = 2 * keys;
    return rule;
}

inline std::string name_of(const RouteRule& rule) {
    return "E=" + to_string(rule.num_experts) + " K=" + to_string(rule.top_k) + " score " + to_string(rule.score) +
           " selection " + to_string(rule.selection) + " groups " + to_string(rule.top_groups) + " of " +
           to_string(rule.num_groups) + " judged " + to_string(rule.group_score) + " normalisation " +
           to_string(rule.normalisation) + " " + to_string(rule.parameter) + (rule.normalise_later ? " later" : "");
}

// ---- The definition, one token at a time

struct Routed {
    std::vector<int> ids;
    std::vector<double> weights;
    double best_score = 0;
    double margin = INFINITY;  // smallest distance that decided something by score
};

inline bool ranks_above(double a, double b) { return a > b || (std::isnan(b) && !std::isnan(a)); }

inline int take_best(const std::vector<double>& values, std::vector<bool>& free, int from, int to) {
    int best = -1;
    for (int i = from; i < to; i++) {
        if (free[i] && (best < 0 || ranks_above(values[i], values[best]))) {
            best = i;
        }
    }
    free[best] = false;
    return best;
}

// Takes several, and notes how close the last one taken came to what is left.
inline std::vector<int> take(const std::vector<double>& values, std::vector<bool>& free, int count, int from, int to, double& margin) {
    std::vector<int> taken;
    for (int i = 0; i < count; i++) {
        taken.push_back(take_best(values, free, from, to));
        for (int other = from; other < to; other++) {
            double gap = values[taken.back()] - values[other];
            margin = free[other] && gap > 0 ? std::min(margin, gap) : margin;
        }
    }
    return taken;
}

inline void keep_best_groups(const RouteRule& rule, const std::vector<double>& candidates, std::vector<bool>& free, double& margin) {
    int width = rule.num_experts / rule.num_groups;
    std::vector<double> judged;
    for (int group = 0; group < rule.num_groups; group++) {
        std::vector<bool> all(free.size(), true);
        int members = rule.group_score == route_rule::kTop2Sum && width > 1 ? 2 : 1;
        double sum = 0;
        for (int member : take(candidates, all, members, group * width, (group + 1) * width, margin)) {
            sum += candidates[member];
        }
        judged.push_back(sum);
    }
    std::vector<bool> out(rule.num_groups, true);
    take(judged, out, rule.top_groups, 0, rule.num_groups, margin);
    for (size_t e = 0; e < free.size(); e++) {
        free[e] = !out[e / width];
    }
}

inline double divisor_of(const RouteRule& rule, const std::vector<double>& scores) {
    double sum = 0;
    double powers = 0;
    for (double score : scores) {
        sum += score;
        powers += std::pow(std::fabs(score), rule.parameter);
    }
    switch (rule.normalisation) {
        case route_rule::kNone:
            return 1;
        case route_rule::kSum:
            return sum + rule.parameter;
        case route_rule::kClampedSum:
            return std::isnan(sum) ? sum : std::max(sum, rule.parameter);
        default:
            return std::pow(powers, 1 / rule.parameter);
    }
}

inline Routed sparse_mixer(const RouteRule& rule, const std::vector<double>& logits) {
    Routed routed;
    std::vector<double> rest = logits;
    std::vector<bool> free(logits.size(), true);
    for (int k = 0; k < 2; k++) {
        int id = take_best(rest, free, 0, rule.num_experts);
        double max = rest[id];
        double sum = 0;
        for (size_t e = 0; e < rest.size(); e++) {
            double distance = (max - logits[e]) / std::fmax(std::fabs(logits[e]), max);
            sum += distance > 2 * rule.jitter ? 0 : std::exp(rest[e] - max);
        }
        routed.ids.push_back(id);
        routed.weights.push_back(rule.factor / sum);
        rest[id] = -INFINITY;
    }
    return routed;
}

struct Scores {
    std::vector<double> at;
    double max = -INFINITY;
    bool undefined = false;
};

// As if NaN logits were not there; at an infinite maximum the limit.
inline Scores score_all(const RouteRule& rule, const std::vector<double>& logits) {
    Scores scores;
    bool any_nan = false;
    for (double z : logits) {
        any_nan |= std::isnan(z);
        scores.max = z > scores.max ? z : scores.max;
    }
    bool softmax = rule.score == route_rule::kSoftmax;
    double sum = 0;
    for (double z : logits) {
        scores.at.push_back(softmax ? std::exp(z == scores.max ? 0 : z - scores.max) : 1 / (1 + std::exp(-z)));
        sum += std::isnan(z) ? 0 : scores.at.back();
    }
    for (double& score : scores.at) {
        score /= softmax ? sum : 1;
    }
    scores.undefined = softmax && (any_nan || std::isinf(scores.max));
    return scores;
}

inline Routed define(const RouteRule& rule, const std::vector<double>& logits, const std::vector<float>& bias) {
    if (rule.selection == route_rule::kSparseMixer) {
        return sparse_mixer(rule, logits);
    }
    Routed routed;
    Scores scores = score_all(rule, logits);
    bool by_score = !bias.empty() ||
                    (rule.selection == route_rule::kGroupLimited && rule.group_score == route_rule::kTop2Sum);
    std::vector<double> candidates = by_score ? scores.at : logits;
    for (size_t e = 0; e < bias.size(); e++) {
        candidates[e] += bias[e];
    }
    std::vector<bool> free(logits.size(), true);
    double margin = INFINITY;
    if (rule.selection == route_rule::kGroupLimited) {
        keep_best_groups(rule, candidates, free, margin);
    }
    routed.ids = take(candidates, free, rule.top_k, 0, rule.num_experts, margin);
    routed.margin = by_score ? margin : INFINITY;
    bool over_selected = rule.score == route_rule::kSoftmax && rule.normalisation == route_rule::kSum && rule.parameter == 0;
    double max = -INFINITY;
    for (int id : routed.ids) {
        max = std::isnan(max) || std::isnan(logits[id]) ? NAN : std::max(max, logits[id]);
    }
    for (int id : routed.ids) {
        routed.weights.push_back(over_selected ? std::exp(logits[id] - max) : scores.undefined ? NAN : scores.at[id]);
    }
    double divisor = rule.normalise_later ? 1 : divisor_of(rule, routed.weights);
    for (double& weight : routed.weights) {
        weight = weight / divisor * (rule.normalise_later ? 1 : rule.factor);
    }
    routed.best_score = -INFINITY;
    for (double score : scores.at) {
        bool nan = scores.undefined || std::isnan(score) || std::isnan(routed.best_score);
        routed.best_score = nan ? NAN : std::max(routed.best_score, score);
    }
    return routed;
}

// ---- Inputs

enum Logits { kNormal, kTies, kAllEqual, kSomeNan, kAllNan, kInfinite, kHuge, kKinds };

inline std::vector<float> logits_of(int kind, size_t count, uint64_t seed) {
    host::Numbers numbers(seed);
    std::vector<float> logits(count);
    for (float& logit : logits) {
        double normal = numbers.normal();
        int die = numbers.below(35);
        double value = normal;
        switch (kind) {
            case kTies:
                // Both zeros, which are equals.
                value = die % 5 == 2 ? std::copysign(0.0, normal) : die % 5 - 2;
                break;
            case kAllEqual:
                value = 0.75;
                break;
            case kSomeNan:
                value = die % 5 == 0 ? NAN : normal;
                break;
            case kAllNan:
                value = NAN;
                break;
            case kInfinite:
                value = die % 7 == 0 ? std::copysign(INFINITY, normal) : normal;
                break;
            case kHuge:
                value = normal * (die % 2 == 0 ? 1e30 : 3.4e38 / 8);
                break;
            default:
                break;
        }
        logit = static_cast<float>(value);
    }
    return logits;
}

inline std::vector<double> logits_of_token(const RouteRule& rule, const std::vector<float>& logits, int token, int tokens) {
    std::vector<double> z(rule.num_experts);
    for (int e = 0; e < rule.num_experts; e++) {
        if (rule.selection == route_rule::kProductKeys) {
            int keys = rule.num_keys;
            z[e] = static_cast<double>(logits[token * keys + e / keys]) + logits[(tokens + token) * keys + e % keys];
        } else {
            z[e] = logits[static_cast<size_t>(token) * rule.num_experts + e];
        }
    }
    return z;
}

// ---- Checks

// Ids of the tokens that are decided; how many those are.
inline std::string compare_ids(const RouteRule& rule, const Routed& want, const Array<int>& ids, int token, int& decided) {
    if (want.margin < kDecided) {
        return "";
    }
    decided++;
    for (int k = 0; k < rule.top_k; k++) {
        int got = ids.at(static_cast<size_t>(token) * rule.top_k + k);
        if (got != want.ids[k]) {
            return "ids[" + to_string(token) + ", " + to_string(k) + "]: got " + to_string(got) + ", want " +
                   to_string(want.ids[k]);
        }
    }
    return "";
}

// What a token is not routed to that belongs to nobody here.
inline Routed nowhere(const RouteRule& rule) {
    Routed routed;
    routed.ids.assign(rule.top_k, -1);
    routed.weights.assign(rule.top_k, 0);
    return routed;
}

inline std::string check_nans(const Array<float>& weights) {
    for (size_t i = 0; i < weights.size(); i++) {
        uint32_t bits;
        std::memcpy(&bits, weights.data() + i, 4);
        if (std::isnan(weights.at(i)) && bits != 0x7fc00000u) {
            return "a NaN of other bits";
        }
    }
    return "";
}

// Ids and weights of all tokens against what they should be.
inline std::string compare_routing(const RouteRule& rule, const std::vector<Routed>& want, const Array<int>& ids,
                                   const Array<float>& weights) {
    std::vector<double> got_weights;
    std::vector<double> want_weights;
    int tokens = static_cast<int>(want.size());
    int decided = 0;
    for (int token = 0; token < tokens; token++) {
        std::string why = compare_ids(rule, want[token], ids, token, decided);
        if (!why.empty()) {
            return why;
        }
        for (int k = 0; k < rule.top_k && want[token].margin >= kDecided; k++) {
            got_weights.push_back(weights.at(static_cast<size_t>(token) * rule.top_k + k));
            want_weights.push_back(want[token].weights[k]);
        }
    }
    if (2 * decided < tokens) {
        return "the case itself: hardly any token is decided";
    }
    std::string why = host::compare(Floats(host::kF32, got_weights), want_weights, rule.num_experts);
    return why.empty() ? check_nans(weights) : why;
}

}  // namespace route_definition
