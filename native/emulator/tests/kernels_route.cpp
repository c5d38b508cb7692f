// Routing against plain loops in double, over the rules and all they can be combined with.
#include "route_definition.h"

namespace {

using namespace route_definition;

struct Case {
    RouteRule rule;
    int tokens;
    int kind;
    double bias_scale;  // negative for none
    int num_types;      // 0 for none
};

std::string run(const Case& c) {
    const RouteRule& rule = c.rule;
    std::vector<float> values =
        logits_of(c.kind, static_cast<size_t>(c.tokens) * rule.num_logits, rule.num_experts * 31ull + rule.top_k);
    std::vector<float> bias = c.bias_scale < 0 ? std::vector<float>() : logits_of(kNormal, rule.num_experts, 7);
    for (float& value : bias) {
        value *= static_cast<float>(c.bias_scale);
    }
    std::vector<int> types(c.num_types == 0 ? 0 : c.tokens);
    for (size_t token = 0; token < types.size(); token++) {
        types[token] = c.num_types < 0 ? -static_cast<int>(token) % 2 : static_cast<int>(token) % c.num_types;
    }
    size_t slots = static_cast<size_t>(c.tokens) * rule.top_k;
    Array<float> logits(values);
    Array<float> device_bias(bias);
    Array<int> device_types(types);
    Array<int> ids(slots);
    Array<float> weights(slots);
    Array<float> best(c.tokens);
    bool ranked = rule.selection != route_rule::kSparseMixer;
    std::string why = host::launch("route", {host::blocks("route", c.tokens)}, logits.input(),
                                   bias.empty() ? nullptr : device_bias.input(),
                                   types.empty() ? nullptr : device_types.input(), ids.data(), weights.data(),
                                   ranked ? best.data() : nullptr, c.tokens, rule);
    if (!why.empty()) {
        return why;
    }
    std::vector<Routed> want;
    std::vector<double> want_best;
    for (int token = 0; token < c.tokens; token++) {
        bool here = types.empty() || (types[token] >= 0 && (rule.token_type == -1 || types[token] == rule.token_type));
        want.push_back(here ? define(rule, logits_of_token(rule, values, token, c.tokens), bias) : nowhere(rule));
        want_best.push_back(want.back().best_score);
    }
    why = compare_routing(rule, want, ids, weights);
    if (why.empty() && ranked) {
        std::vector<float> got = best.values();
        why = host::compare(Floats(host::kF32, {got.begin(), got.end()}), want_best, rule.num_experts);
    }
    return why;
}

void check_route(const Case& c) {
    std::string name = name_of(c.rule) + " T=" + to_string(c.tokens) + " logits " + to_string(c.kind) + " bias " +
                       to_string(c.bias_scale) + " types " + to_string(c.num_types);
    host::report(name, run(c));
}

struct Normalisation {
    int kind;
    double parameter;
};

constexpr Normalisation kNormalisations[] = {
    {route_rule::kNone, 0},           {route_rule::kSum, 0},    {route_rule::kSum, 1e-20},
    {route_rule::kSum, 1e-3},         {route_rule::kClampedSum, 1e-12}, {route_rule::kClampedSum, 0.9},
    {route_rule::kPNorm, 1},          {route_rule::kPNorm, 2},  {route_rule::kPNorm, 3.5},
};

void check_rules() {
    for (int score = 0; score < 2; score++) {
        for (const Normalisation& normalisation : kNormalisations) {
            RouteRule plain = rule_of(16, 4, score, normalisation.kind, normalisation.parameter, 2.5);
            RouteRule rules[] = {plain,
                                 in_groups(plain, 4, 2, route_rule::kMax),
                                 in_groups(plain, 4, 2, route_rule::kTop2Sum),
                                 in_groups(plain, 8, 3, route_rule::kTop2Sum),
                                 in_groups(plain, 1, 1, route_rule::kMax),
                                 in_groups(plain, 16, 5, route_rule::kTop2Sum),
                                 by_keys(plain, 4)};
            for (RouteRule rule : rules) {
                check_route({rule, 33, kNormal, -1, 0});
                check_route({rule, 5, kNormal, 0.3, 0});
                rule.normalise_later = 1;
                check_route({rule, 5, kNormal, -1, 0});
                check_route({rule, 9, kNormal, -1, -1});
                rule.token_type = 1;
                check_route({rule, 9, kNormal, -1, 3});
            }
        }
    }
}

// Every place where candidates are kept: registers, shared memory, nowhere.
void check_sizes() {
    int sizes[][2] = {{1, 1},   {2, 2},    {5, 5},    {31, 3},   {33, 32},   {64, 64},   {97, 6},   {128, 8},
                      {256, 8}, {257, 40}, {512, 10}, {768, 12}, {1023, 32}, {2048, 32}, {2049, 3}, {5000, 70}};
    for (const auto& size : sizes) {
        for (int score = 0; score < 2; score++) {
            RouteRule rule = rule_of(size[0], size[1], score, score == 0 ? route_rule::kSum : route_rule::kNone, 0, 1);
            check_route({rule, 5, kNormal, -1, 0});
            check_route({rule, 2, kTies, -1, 0});
            check_route({rule, 2, kTies, 0, 0});
        }
    }
    RouteRule v3 = in_groups(rule_of(256, 8, kSigmoid, route_rule::kSum, 1e-20, 2.5), 8, 4, route_rule::kTop2Sum);
    check_route({v3, 33, kNormal, 0.2, 0});
    // Groups of 32 are judged by registers, of which 3 groups leave one over.
    for (int group_score : {route_rule::kMax, route_rule::kTop2Sum}) {
        for (int groups : {2, 3, 8, 16}) {
            RouteRule rule = in_groups(rule_of(32 * groups, 6, kSigmoid, route_rule::kSum, 0, 1), groups, 2, group_score);
            for (int kind : {kNormal, kTies, kSomeNan, kAllNan, kInfinite}) {
                check_route({rule, 3, kind, kind == kNormal ? 0.3 : -1, 0});
            }
        }
    }
    check_route({in_groups(rule_of(1024, 6, 0, route_rule::kSum, 0, 1), 16, 3, route_rule::kMax), 3, kNormal, -1, 0});
    check_route({in_groups(rule_of(200, 6, 0, route_rule::kSum, 0, 1), 40, 4, route_rule::kMax), 3, kNormal, -1, 0});
    check_route({in_groups(rule_of(200, 6, 1, route_rule::kSum, 0, 1), 40, 4, route_rule::kTop2Sum), 3, kNormal, 0.3, 0});
    check_route({in_groups(rule_of(4096, 6, 0, route_rule::kSum, 0, 1), 4, 2, route_rule::kMax), 2, kTies, -1, 0});
    check_route({in_groups(rule_of(4096, 6, 0, route_rule::kSum, 0, 1), 4096, 9, route_rule::kTop2Sum), 2, kTies, -1, 0});
}

void check_product_keys() {
    int sizes[][2] = {{1, 1}, {2, 4}, {3, 2}, {17, 8}, {32, 8}, {40, 70}, {100, 5}};
    for (const auto& size : sizes) {
        for (int score = 0; score < 2; score++) {
            for (int normalisation = 0; normalisation < 2; normalisation++) {
                RouteRule rule = rule_of(size[0] * size[0], size[1], score, normalisation, 0, 1);
                for (int kind = 0; kind < kKinds; kind++) {
                    check_route({by_keys(rule, size[0]), 2, kind, -1, 0});
                }
                check_route({by_keys(rule, size[0]), 2, kTies, 0.0, 0});
            }
        }
    }
}

void check_special_logits() {
    for (int kind : {kSomeNan, kAllNan, kInfinite, kHuge, kAllEqual}) {
        for (int score = 0; score < 2; score++) {
            for (int normalisation = 0; normalisation < 2; normalisation++) {
                for (int top_k : {1, 4, 16}) {
                    RouteRule rule = rule_of(16, top_k, score, normalisation, 0, 1);
                    check_route({rule, 33, kind, -1, 0});
                    if (kind != kHuge) {
                        check_route({rule, 9, kind, 0.3, 0});
                    }
                }
                RouteRule rule = rule_of(16, 4, score, normalisation, 0, 1);
                check_route({in_groups(rule, 4, 2, route_rule::kMax), 33, kind, -1, 0});
                if (kind != kHuge) {
                    check_route({in_groups(rule, 4, 2, route_rule::kTop2Sum), 33, kind, -1, 0});
                }
                check_route({rule_of(700, 4, score, normalisation, 0, 1), 2, kind, -1, 0});
                check_route({rule_of(2100, 4, score, normalisation, 0, 1), 2, kind, -1, 0});
            }
        }
    }
}

void check_sparse_mixer() {
    for (double jitter : {0.01, 0.1, 0.5}) {
        for (int experts : {2, 16, 60}) {
            RouteRule rule = rule_of(experts, 2, 0, route_rule::kNone, 0, 1);
            rule.selection = route_rule::kSparseMixer;
            rule.jitter = jitter;
            for (int kind = 0; kind < kKinds; kind++) {
                check_route({rule, 9, kind, -1, 0});
            }
        }
    }
}

}  // namespace

int main() {
    check_rules();
    check_sizes();
    check_product_keys();
    check_special_logits();
    check_sparse_mixer();
    return check::result();
}
