// The rules that look at the whole batch, against plain loops in double over matrices of the tokens that are served.
#include "route_definition.h"

namespace {

using namespace route_definition;

using Matrix = std::vector<std::vector<double>>;

// Experts of each token, fewer than top_k where it has no more.
using Choice = std::vector<std::vector<int>>;

constexpr double kLargestScale = 1e30;

// One more normalisation: by the number of the token's experts.
constexpr int kCount = 4;

struct Bounds {
    double capacity_factor;
    double tolerance;
    int iterations;
    double epsilon;
    int least = 1;
};

// ---- Definitions

// A NaN has none, not even where nothing is larger.
double power(double z, double max) { return std::isnan(z) ? 0 : std::exp(z == max ? 0 : z - max); }

double largest(const std::vector<double>& row) {
    double max = -INFINITY;
    for (double z : row) {
        max = z > max ? z : max;
    }
    return max;
}

// By falling value, of equals the first; NaN last.
std::vector<int> falling(const std::vector<double>& values) {
    std::vector<int> order(values.size());
    for (size_t i = 0; i < order.size(); i++) {
        order[i] = static_cast<int>(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return ranks_above(values[a], values[b]); });
    return order;
}

// Each expert takes the tokens with its largest scores.
Choice by_scores(const RouteRule& rule, const Matrix& z, const Matrix& scores, const Bounds& bounds) {
    double tokens = static_cast<double>(z.size());
    double share = std::floor(bounds.capacity_factor * tokens / rule.num_experts);
    share = std::min(std::max(share, static_cast<double>(bounds.least)), tokens);
    std::vector<std::vector<double>> taken(z.size(), std::vector<double>(rule.num_experts, NAN));
    for (int e = 0; e < rule.num_experts; e++) {
        std::vector<double> candidates;
        for (const std::vector<double>& row : scores) {
            candidates.push_back(static_cast<float>(row[e]));
        }
        int count = 0;
        for (int token : falling(candidates)) {
            if (count++ < share && !std::isnan(candidates[token])) {
                taken[token][e] = z[token][e];
            }
        }
    }
    Choice choice;
    for (const std::vector<double>& own : taken) {
        choice.emplace_back();
        for (int e : falling(own)) {
            if (!std::isnan(own[e]) && static_cast<int>(choice.back().size()) < rule.top_k) {
                choice.back().push_back(e);
            }
        }
    }
    return choice;
}

Choice by_experts(const RouteRule& rule, const Matrix& z, const Bounds& bounds) {
    Matrix scores;
    for (const std::vector<double>& row : z) {
        scores.push_back(rule.score == kSigmoid ? row : score_all(rule, row).at);
    }
    return by_scores(rule, z, scores, bounds);
}

// A softmax over tokens orders them as their logits.
Choice by_columns(const RouteRule& rule, const Matrix& z, const Bounds& bounds) { return by_scores(rule, z, z, bounds); }

// d0_t = 1 / (T sum_e K_te d1_e), d1_e = 1 / (E sum_t K_te d0_t); then the best of K_te d1_e.
Choice by_plan(const RouteRule& rule, const Matrix& z, const Bounds& bounds) {
    Matrix plan = z;
    for (std::vector<double>& row : plan) {
        double max = largest(row);
        for (double& entry : row) {
            entry = static_cast<float>(power(entry, max));
        }
    }
    int experts = rule.num_experts;
    std::vector<double> d1(experts, 1);
    double change = INFINITY;
    for (int i = 0; i < bounds.iterations && !(change < bounds.tolerance); i++) {
        std::vector<double> sums(experts);
        for (const std::vector<double>& row : plan) {
            double sum = 0;
            for (int e = 0; e < experts; e++) {
                sum += row[e] * d1[e];
            }
            for (int e = 0; e < experts && sum > 0; e++) {
                sums[e] += row[e] / (static_cast<double>(z.size()) * sum);
            }
        }
        change = 0;
        for (int e = 0; e < experts; e++) {
            double scale = std::min(1 / (experts * sums[e]), kLargestScale);
            change += std::fabs(scale - d1[e]) / experts;
            d1[e] = scale;
        }
    }
    Choice choice;
    for (size_t t = 0; t < z.size(); t++) {
        std::vector<double> shares;
        for (int e = 0; e < experts; e++) {
            shares.push_back(std::isnan(z[t][e]) ? NAN : static_cast<float>(plan[t][e] * d1[e]));
        }
        choice.push_back(falling(shares));
        choice.back().resize(rule.top_k);
    }
    return choice;
}

// All tokens without an expert bid, then experts keep the highest bids; until all have one.
Choice by_auction(const RouteRule& rule, const Matrix& z, const Bounds& bounds) {
    double min = INFINITY;
    double max = -INFINITY;
    for (const std::vector<double>& row : z) {
        for (double logit : row) {
            min = std::isfinite(logit) ? std::min(min, logit) : min;
            max = std::isfinite(logit) ? std::max(max, logit) : max;
        }
    }
    auto value = [&](double logit) {
        double share = max > min ? (logit - min) / (max - min) : 0;
        return std::isfinite(logit) ? share : logit > 0 ? 2 : -1;
    };
    int experts = rule.num_experts;
    size_t limit = (z.size() + experts - 1) / experts;
    std::vector<double> prices(experts);
    std::vector<double> bids(z.size());
    std::vector<std::vector<int>> kept(experts);
    std::vector<int> waiting = falling(std::vector<double>(z.size()));
    while (!waiting.empty()) {
        for (int token : waiting) {
            std::vector<double> profits;
            for (int e = 0; e < experts; e++) {
                profits.push_back(value(z[token][e]) - prices[e]);
            }
            std::vector<int> order = falling(profits);
            int best = order[0];
            bids[token] = experts == 1 ? bounds.epsilon : value(z[token][best]) - profits[order[1]] + bounds.epsilon;
            kept[best].push_back(token);
        }
        waiting.clear();
        for (int e = 0; e < experts; e++) {
            std::sort(kept[e].begin(), kept[e].end(),
                      [&](int a, int b) { return bids[a] > bids[b] || (bids[a] == bids[b] && a < b); });
            while (kept[e].size() > limit) {
                waiting.push_back(kept[e].back());
                kept[e].pop_back();
            }
            prices[e] = kept[e].size() == limit ? bids[kept[e].back()] : 0;
        }
    }
    Choice choice(z.size());
    for (int e = 0; e < experts; e++) {
        for (int token : kept[e]) {
            choice[token] = {e};
        }
    }
    return choice;
}

// The softmax of each expert over tokens; NaN where it has none.
Matrix softmax_of_columns(const RouteRule& rule, const Matrix& z) {
    Matrix scores = z;
    for (int e = 0; e < rule.num_experts; e++) {
        double max = -INFINITY;
        for (const std::vector<double>& row : z) {
            max = std::isnan(max) || std::isnan(row[e]) ? NAN : std::max(max, row[e]);
        }
        double sum = 0;
        for (const std::vector<double>& row : z) {
            sum += std::exp(row[e] - max);
        }
        for (size_t token = 0; token < z.size(); token++) {
            scores[token][e] = std::isfinite(max) ? std::exp(z[token][e] - max) / sum : NAN;
        }
    }
    return scores;
}

// Weights by a softmax over tokens where there are such, otherwise by the scores of the token's logits.
Routed weigh(const RouteRule& rule, const std::vector<double>& z, const std::vector<int>& ids,
             const std::vector<double>* over_tokens) {
    Scores scores = score_all(rule, z);
    if (over_tokens != nullptr) {
        scores.at = *over_tokens;
        scores.undefined = false;
    }
    bool of_selected = over_tokens == nullptr && rule.score == route_rule::kSoftmax && rule.normalisation == route_rule::kSum && rule.parameter == 0;
    double max = -INFINITY;
    for (int id : ids) {
        max = std::isnan(max) || std::isnan(z[id]) ? NAN : std::max(max, z[id]);
    }
    Routed routed;
    routed.ids = ids;
    for (int id : ids) {
        routed.weights.push_back(of_selected ? std::exp(z[id] - max) : scores.undefined ? NAN : scores.at[id]);
    }
    double divisor =
        rule.normalisation == kCount ? static_cast<double>(ids.size()) : divisor_of(rule, routed.weights);
    for (double& weight : routed.weights) {
        weight = weight / divisor * rule.factor;
    }
    routed.ids.resize(rule.top_k, -1);
    routed.weights.resize(rule.top_k, 0);
    return routed;
}

// ---- The kernels, as the host launches them

struct Batch {
    const RouteRule& rule;
    const Bounds& bounds;
    int tokens;
    const float* logits;
    const int* types;
    int* ids;
    float* weights;
};

std::string launch_choice(const Batch& on, bool over_tokens) {
    size_t tokens = on.tokens;
    size_t experts = on.rule.num_experts;
    Array<uint32_t> candidates(tokens * experts);
    Array<uint32_t> takes(tokens * ((experts + 31) / 32));
    Array<float> maxima(experts);
    Array<double> sums(experts);
    RouteRule order = on.rule;
    order.score = over_tokens ? kSigmoid : on.rule.score;
    std::string why = over_tokens ? host::launch("route_expert_choice_columns",
                                                 {host::blocks("route_expert_choice_columns", experts)}, on.logits, on.types,
                                                 maxima.data(), sums.data(), on.tokens, on.rule)
                                  : "";
    why += why.empty() ? host::launch("route_expert_choice_order", {host::blocks("route_expert_choice_order", on.tokens)},
                                      on.logits, on.types, candidates.data(), takes.data(), on.tokens, order)
                       : "";
    why += why.empty() ? host::launch("route_expert_choice_select", {host::blocks("route_expert_choice_select", experts)},
                                      candidates.input(), on.types, takes.data(), on.tokens, on.bounds.capacity_factor,
                                      on.bounds.least, on.rule)
                       : "";
    return why.empty() ? host::launch("route_expert_choice_weigh", {host::blocks("route_expert_choice_weigh", on.tokens)},
                                      on.logits, const_cast<const uint32_t*>(takes.data()),
                                      over_tokens ? const_cast<const float*>(maxima.data()) : nullptr,
                                      over_tokens ? const_cast<const double*>(sums.data()) : nullptr, on.ids, on.weights,
                                      on.tokens, on.rule)
                       : why;
}

std::string launch_experts(const Batch& on) { return launch_choice(on, false); }

std::string launch_columns(const Batch& on) { return launch_choice(on, true); }

std::string launch_plan(const Batch& on) {
    size_t tokens = on.tokens;
    size_t experts = on.rule.num_experts;
    unsigned chunks = host::blocks("route_sinkhorn_powers", on.tokens);
    Array<float> powers(tokens * experts);
    Array<int> served(chunks);
    Array<double> sums(chunks * experts);
    Array<double> scales(experts);
    Array<int> done(1);
    Array<unsigned> counter(std::vector<unsigned>{0});
    std::string why = host::launch("route_sinkhorn_powers", {chunks}, on.logits, on.types, powers.data(), served.data(),
                                   scales.data(), done.data(), on.tokens, on.rule);
    for (int i = 0; why.empty() && i < on.bounds.iterations; i++) {
        why = host::launch("route_sinkhorn_scale", {chunks}, powers.input(), served.input(), sums.data(), scales.data(),
                           done.data(), counter.data(), on.tokens, on.rule.num_experts, on.bounds.tolerance);
    }
    if (why.empty() && counter.at(0) != 0) {
        why = "the counter is " + to_string(counter.at(0)) + " afterwards";
    }
    return why.empty() ? host::launch("route_sinkhorn_choose", {host::blocks("route_sinkhorn_choose", on.tokens)}, on.logits,
                                      on.types, powers.input(), const_cast<const double*>(scales.data()), on.ids, on.weights,
                                      on.tokens, on.rule)
                       : why;
}

std::string launch_auction(const Batch& on) {
    size_t tokens = on.tokens;
    size_t experts = on.rule.num_experts;
    Array<double> bids(tokens);
    Array<double> kept_bids(tokens + experts);
    Array<int> kept_tokens(tokens + experts);
    Array<double> prices(experts);
    Array<int> counts(experts);
    Array<int> waiting(tokens);
    Array<int> losing(tokens);
    std::string why = host::launch("route_balanced_auction", {1}, on.logits, on.types, on.ids, bids.data(), kept_bids.data(),
                                   kept_tokens.data(), prices.data(), counts.data(), waiting.data(), losing.data(), on.tokens,
                                   on.bounds.epsilon, on.rule);
    return why.empty() ? host::launch("route_balanced_weigh", {host::blocks("route_balanced_weigh", on.tokens)}, on.logits,
                                      on.ids, on.weights, on.tokens, on.rule)
                       : why;
}

// ---- Cases

struct Scheme {
    const char* name;
    Choice (*define)(const RouteRule&, const Matrix&, const Bounds&);
    std::string (*launch)(const Batch&);
    bool one_expert;
    bool over_tokens;
};

constexpr Scheme kExpertChoice = {"expert choice", by_experts, launch_experts, false, false};
constexpr Scheme kOverTokens = {"expert choice over tokens", by_columns, launch_columns, false, true};
constexpr Scheme kSinkhorn = {"sinkhorn", by_plan, launch_plan, false, false};
constexpr Scheme kBalanced = {"balanced", by_auction, launch_auction, true, false};

struct Case {
    RouteRule rule;
    int tokens;
    int kind;
    Bounds bounds;
    bool types;
    size_t misaligned;
};

std::string run(const Scheme& scheme, const Case& c) {
    const RouteRule& rule = c.rule;
    size_t experts = rule.num_experts;
    std::vector<float> values = logits_of(c.kind, c.tokens * experts, experts * 41 + c.tokens);
    std::vector<int> types(c.types ? c.tokens : 0);
    for (size_t token = 0; token < types.size(); token++) {
        types[token] = static_cast<int>(token * token) % 5 - 1;
    }
    size_t slots = static_cast<size_t>(c.tokens) * rule.top_k;
    Array<float> logits(values, c.misaligned);
    Array<int> device_types(types, c.misaligned);
    Array<int> ids(slots, c.misaligned);
    Array<float> weights(slots, c.misaligned);
    std::string why = scheme.launch({rule, c.bounds, c.tokens, logits.input(), c.types ? device_types.input() : nullptr,
                                     ids.data(), weights.data()});
    Matrix served;
    std::vector<int> places;
    for (int token = 0; token < c.tokens; token++) {
        bool here = !c.types || (types[token] >= 0 && (rule.token_type == -1 || types[token] == rule.token_type));
        places.push_back(here ? static_cast<int>(served.size()) : -1);
        if (here) {
            served.push_back(logits_of_token(rule, values, token, c.tokens));
        }
    }
    Choice choice = scheme.define(rule, served, c.bounds);
    Matrix over_tokens = scheme.over_tokens ? softmax_of_columns(rule, served) : Matrix();
    std::vector<Routed> want;
    for (int place : places) {
        const std::vector<double>* scores = place < 0 || !scheme.over_tokens ? nullptr : &over_tokens[place];
        want.push_back(place < 0 ? nowhere(rule) : weigh(rule, served[place], choice[place], scores));
    }
    return why.empty() ? compare_routing(rule, want, ids, weights) : why;
}

void check_scheme(const Scheme& scheme, Case c) {
    c.rule.top_k = scheme.one_expert ? 1 : c.rule.top_k;
    std::string name = std::string(scheme.name) + " " + name_of(c.rule) + " T=" + to_string(c.tokens) + " logits " +
                       to_string(c.kind) + (c.types ? " types" : "") + " factor " + to_string(c.bounds.capacity_factor) +
                       " iterations " + to_string(c.bounds.iterations);
    host::report(name, run(scheme, c));
}

void check_all(const Case& c) {
    for (const Scheme& scheme : {kExpertChoice, kSinkhorn, kBalanced}) {
        check_scheme(scheme, c);
    }
    Case over_tokens = c;
    over_tokens.bounds.least = 4;
    over_tokens.rule.score = route_rule::kSoftmax;
    over_tokens.rule.normalisation = c.tokens % 2 == 0 ? kCount : c.rule.normalisation;
    check_scheme(kOverTokens, over_tokens);
}

}  // namespace

int main() {
    const int sizes[][2] = {{1, 1}, {3, 2}, {33, 33}, {40, 4}};
    int round = 0;
    for (const auto& size : sizes) {
        for (int tokens : {0, 1, 2, 31, 65, 130}) {
            RouteRule rule = rule_of(size[0], size[1], round % 2, round % 4, round % 4 == route_rule::kSum ? 0 : 1.5, 2.5);
            Bounds bounds = {0.7 * (1 + round % 3), round % 3 == 0 ? 0 : 1e-4, 1 + 4 * (round % 3), 0.1};
            rule.token_type = round % 3 - 1;
            check_all({rule, tokens, tokens < 3 ? kNormal : round % kKinds, bounds, round % 3 != 0, 4u * (round % 2)});
            round++;
        }
    }
    for (int kind = 0; kind < kKinds; kind++) {
        for (int score = 0; score < 2; score++) {
            RouteRule rule = rule_of(8, 2, score, score, 0, 1);
            check_all({rule, 40, kind, {1.5, 1e-6, 20, 0.1}, kind % 2 == 0, 0});
        }
    }
    // More tokens than threads; tokens that all want the same.
    RouteRule few = rule_of(4, 2, route_rule::kSoftmax, route_rule::kSum, 0, 1);
    check_all({few, 600, kNormal, {1, 1e-3, 3, 1}, false, 0});
    check_all({few, 300, kAllEqual, {1, 1e-3, 3, 1}, true, 0});
    RouteRule many = rule_of(2048, 8, route_rule::kSoftmax, route_rule::kNone, 0, 1);
    check_scheme(kSinkhorn, {many, 5, kNormal, {1, 1e-4, 2, 0.5}, false, 0});
    check_scheme(kBalanced, {many, 5, kNormal, {1, 1e-4, 2, 0.5}, false, 0});
    return check::result();
}
