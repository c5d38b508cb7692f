// The rules of few models, and any rule over rows with inactive experts, against plain loops in double.
#include "route_definition.h"

namespace {

using namespace route_definition;

// Candidates closer than this may be ordered either way: both sides compute in double.
constexpr double kClose = 0x1p-40;

// What one token is routed from.
struct Row {
    const RouteRule& rule;
    std::vector<double> logits;
    std::vector<bool> active;
    std::vector<double> scores;      // as if NaN logits were not there
    std::vector<bool> undefined;     // whether the softmax that an expert is in is
    std::vector<double> candidates;  // what experts are ordered by
    bool close = false;              // whether rounding may have decided something

    int width() const { return rule.num_experts / std::max(rule.num_groups, 1); }

    void note(double gap) { close |= gap != 0 && std::fabs(gap) < kClose; }
};

double score_of(int score, double z) {
    switch (score) {
        case kSigmoid:
            return 1 / (1 + std::exp(-z));
        case route_rule::kSqrtSoftplus:
            return std::sqrt(z > 0 ? z + std::log1p(std::exp(-z)) : std::log1p(std::exp(z)));
        default:
            return z;
    }
}

// A softmax over the active experts of a range; at an infinite maximum the limit.
void write_softmax(Row& row, int from, int to) {
    double max = -INFINITY;
    double sum = 0;
    bool any_nan = false;
    for (int e = from; e < to; e++) {
        any_nan |= row.active[e] && std::isnan(row.logits[e]);
        max = row.active[e] && row.logits[e] > max ? row.logits[e] : max;
    }
    for (int e = from; e < to; e++) {
        row.scores[e] = std::exp(row.logits[e] == max ? 0 : row.logits[e] - max);
        sum += row.active[e] && !std::isnan(row.logits[e]) ? row.scores[e] : 0;
    }
    for (int e = from; e < to; e++) {
        row.scores[e] /= sum;
        row.undefined[e] = any_nan || std::isinf(max);
    }
}

void write_scores(Row& row, const std::vector<float>& bias) {
    const RouteRule& rule = row.rule;
    int experts = rule.num_experts;
    row.scores.resize(experts);
    row.undefined.resize(experts);
    int width = rule.selection == route_rule::kPrototypes ? row.width() : experts;
    for (int from = 0; from < experts; from += width) {
        if (rule.score == route_rule::kSoftmax) {
            write_softmax(row, from, from + width);
        }
    }
    bool sums = rule.selection == route_rule::kGroupLimited && rule.group_score != route_rule::kMax;
    bool by_score = !bias.empty() || sums || rule.selection == route_rule::kTwoLevel;
    for (int e = 0; e < experts; e++) {
        if (rule.score != route_rule::kSoftmax) {
            row.scores[e] = score_of(rule.score, row.logits[e]);
            row.undefined[e] = std::isnan(row.logits[e]);
        }
        row.candidates.push_back(by_score ? row.scores[e] + (bias.empty() ? 0 : bias[e]) : row.logits[e]);
    }
}

// Those of a range that are there, the best first; how close the first few come to those behind them is noted.
std::vector<int> ranked(Row& row, const std::vector<double>& values, const std::vector<bool>& there, int from, int to, int few) {
    std::vector<int> ids;
    for (int id = from; id < to; id++) {
        if (there[id]) {
            ids.push_back(id);
        }
    }
    std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return ranks_above(values[a], values[b]); });
    for (int i = 0; i < few && i + 1 < static_cast<int>(ids.size()); i++) {
        row.note(values[ids[i]] - values[ids[i + 1]]);
    }
    return ids;
}

std::vector<int> members(Row& row, int group, int few) {
    return ranked(row, row.candidates, row.active, group * row.width(), (group + 1) * row.width(), few);
}

// The best groups that have an active expert: by the sum of their numbers, or of their best candidates.
std::vector<int> best_groups(Row& row, bool by_all) {
    std::vector<double> judged(row.rule.num_groups);
    std::vector<bool> there(row.rule.num_groups);
    for (int group = 0; group < row.rule.num_groups; group++) {
        std::vector<int> own = members(row, group, row.rule.judged);
        bool any_number = false;
        there[group] = !own.empty();
        std::sort(own.begin(), by_all ? own.end() : own.begin());
        for (size_t i = 0; i < own.size() && (by_all || static_cast<int>(i) < row.rule.judged); i++) {
            double candidate = row.candidates[own[i]];
            any_number |= !std::isnan(candidate);
            judged[group] += by_all && std::isnan(candidate) ? 0 : candidate;
        }
        judged[group] = any_number ? judged[group] : NAN;
    }
    std::vector<int> best = ranked(row, judged, there, 0, row.rule.num_groups, row.rule.top_groups);
    best.resize(std::min<size_t>(best.size(), row.rule.top_groups));
    return best;
}

// How many experts the entropy of the softmax over active experts asks for, whatever the scores are.
int wanted(Row& row) {
    Row softmax = row;
    write_softmax(softmax, 0, row.rule.num_experts);
    double entropy = 0;
    for (int e = 0; e < row.rule.num_experts; e++) {
        double p = row.active[e] && !std::isnan(row.logits[e]) ? softmax.scores[e] : 0;
        entropy -= p > 0 ? p * std::log(p) : 0;
    }
    double count = row.rule.amount * entropy;
    row.note(count - std::round(count));
    return static_cast<int>(std::min(std::max<double>(row.rule.least, std::ceil(count)), double(row.rule.top_k)));
}

std::vector<int> select_until(Row& row) {
    std::vector<int> ids;
    double sum = 0;
    for (int id : ranked(row, row.candidates, row.active, 0, row.rule.num_experts, row.rule.top_k)) {
        int count = static_cast<int>(ids.size());
        bool number = !std::isnan(row.logits[id]);
        row.note(sum - row.rule.amount);
        if (count == row.rule.top_k || (count >= row.rule.least && (!number || sum >= row.rule.amount))) {
            break;
        }
        ids.push_back(id);
        sum += number ? row.scores[id] : 0;
    }
    return ids;
}

// Experts by slot; -1 where nobody is left.
std::vector<int> select(Row& row) {
    const RouteRule& rule = row.rule;
    std::vector<int> ids;
    std::vector<bool> there = row.active;
    size_t count = rule.top_k;
    switch (rule.selection) {
        case route_rule::kOnePerGroup:
        case route_rule::kPrototypes:
            for (int group = 0; group < rule.num_groups; group++) {
                std::vector<int> own = members(row, group, 1);
                ids.push_back(own.empty() ? -1 : own[0]);
            }
            return ids;
        case route_rule::kTwoLevel:
            for (int group : best_groups(row, true)) {
                std::vector<int> own = members(row, group, rule.least);
                own.resize(rule.least, -1);
                ids.insert(ids.end(), own.begin(), own.end());
            }
            ids.resize(count, -1);
            return ids;
        case route_rule::kTopP:
            ids = select_until(row);
            ids.resize(count, -1);
            return ids;
        case route_rule::kEntropyK:
            count = wanted(row);
            break;
        case route_rule::kGroupLimited: {
            std::vector<int> groups = best_groups(row, false);
            for (int e = 0; e < rule.num_experts; e++) {
                bool kept = std::find(groups.begin(), groups.end(), e / row.width()) != groups.end();
                there[e] = there[e] && kept;
            }
            break;
        }
        default:
            break;
    }
    ids = ranked(row, row.candidates, there, 0, rule.num_experts, rule.top_k);
    ids.resize(std::min(ids.size(), count));
    ids.resize(rule.top_k, -1);
    return ids;
}

// Of two levels: P(group among those selected) P(expert among those of its group).
std::vector<double> levels(const Row& row, const std::vector<int>& ids, const std::vector<double>& selected) {
    int least = row.rule.least;
    std::vector<double> shares;
    std::vector<double> sums(ids.size() / least);
    double all = 0;
    for (size_t k = 0; k < ids.size(); k++) {
        sums[k / least] += selected[k];
        if (k % least == 0) {
            double share = 0;
            int from = ids[k] < 0 ? 0 : ids[k] / row.width() * row.width();
            for (int e = from; ids[k] >= 0 && e < from + row.width(); e++) {
                share += row.active[e] && !std::isnan(row.scores[e]) ? row.scores[e] : 0;
            }
            shares.push_back(share);
            all += share;
        }
    }
    std::vector<double> weights;
    for (size_t k = 0; k < ids.size(); k++) {
        double weight = shares[k / least] / all * (selected[k] / sums[k / least]);
        weights.push_back(selected[k] == 0 ? 0 : weight * row.rule.factor);
    }
    return weights;
}

std::vector<double> weigh(const Row& row, const std::vector<int>& ids) {
    const RouteRule& rule = row.rule;
    bool two_levels = rule.selection == route_rule::kTwoLevel;
    bool of_selected = rule.score == route_rule::kSoftmax && rule.normalisation == route_rule::kSum && rule.parameter == 0 &&
                       rule.selection != route_rule::kPrototypes && !two_levels;
    double max = -INFINITY;
    for (int id : ids) {
        max = id < 0 ? max : std::isnan(max) || std::isnan(row.logits[id]) ? NAN : std::max(max, row.logits[id]);
    }
    std::vector<double> weights;
    for (int id : ids) {
        double score = id < 0 ? 0 : row.undefined[id] ? NAN : row.scores[id];
        weights.push_back(id >= 0 && of_selected ? std::exp(row.logits[id] - max) : score);
    }
    if (two_levels && rule.normalisation == route_rule::kSum) {
        return levels(row, ids, weights);
    }
    double divisor = rule.normalise_later || two_levels ? 1 : divisor_of(rule, weights);
    for (size_t k = 0; k < ids.size(); k++) {
        weights[k] = ids[k] < 0 ? 0 : weights[k] / divisor * (rule.normalise_later ? 1 : rule.factor);
    }
    return weights;
}

Routed define_rare(const RouteRule& rule, const std::vector<double>& logits, const std::vector<float>& bias,
                   const std::vector<bool>& active) {
    Row row = {rule, logits, active, {}, {}, {}};
    write_scores(row, bias);
    Routed routed;
    routed.ids = select(row);
    routed.weights = weigh(row, routed.ids);
    routed.margin = row.close ? 0 : INFINITY;
    routed.best_score = -INFINITY;
    for (int e = 0; e < rule.num_experts; e++) {
        if (active[e]) {
            bool nan = row.undefined[e] || std::isnan(routed.best_score);
            routed.best_score = nan ? NAN : std::max(routed.best_score, row.scores[e]);
        }
    }
    return routed;
}

// ---- Cases

enum Inactive { kNoTensor, kNobody, kSome, kAllButOne, kAll };

struct Case {
    RouteRule rule;
    int tokens;
    int kind;
    double bias_scale;  // negative for none
    int inactive;
    bool types;
    unsigned blocks;  // 0 for one warp per token
    size_t misaligned;
};

// Any number but 0 is active.
std::vector<int> active_experts(int inactive, int experts) {
    std::vector<int> active(inactive == kNoTensor ? 0 : experts);
    for (size_t e = 0; e < active.size(); e++) {
        const int numbers[] = {1, -7, 0x10000};
        bool is_active = inactive == kNobody || (inactive == kSome && e * e % 7 % 3 != 1) ||
                         (inactive == kAllButOne && e == active.size() / 2);
        active[e] = is_active ? numbers[e % 3] : 0;
    }
    return active;
}

std::string run(const Case& c) {
    const RouteRule& rule = c.rule;
    size_t experts = rule.num_experts;
    std::vector<float> values = logits_of(c.kind, c.tokens * experts, experts * 37 + rule.top_k);
    std::vector<float> bias = c.bias_scale < 0 ? std::vector<float>() : logits_of(kNormal, experts, 7);
    for (float& value : bias) {
        value *= static_cast<float>(c.bias_scale);
    }
    std::vector<int> types(c.types ? c.tokens : 0);
    for (size_t token = 0; token < types.size(); token++) {
        types[token] = static_cast<int>(token) % 4 - 1;
    }
    std::vector<int> active = active_experts(c.inactive, rule.num_experts);
    size_t slots = static_cast<size_t>(c.tokens) * rule.top_k;
    unsigned blocks = c.blocks == 0 ? host::blocks("route_rare", c.tokens) : c.blocks;
    size_t warps = static_cast<size_t>(blocks) * host::launch_info("route_rare").items_per_block;
    Array<float> logits(values, c.misaligned);
    Array<float> device_bias(bias, c.misaligned);
    Array<int> device_types(types, c.misaligned);
    Array<int> device_active(active, c.misaligned);
    Array<int> ids(slots, c.misaligned);
    Array<float> weights(slots, c.misaligned);
    Array<float> best(c.tokens, c.misaligned);
    Array<uint64_t> keys(warps * (experts + rule.num_groups));
    std::string why = host::launch(
        "route_rare", {blocks}, logits.input(), bias.empty() ? nullptr : device_bias.input(),
        types.empty() ? nullptr : device_types.input(), active.empty() ? nullptr : device_active.input(), ids.data(),
        weights.data(), c.tokens % 2 == 0 ? nullptr : best.data(), keys.data(), c.tokens, rule);
    if (!why.empty()) {
        return why;
    }
    std::vector<bool> is_active(experts, true);
    for (size_t e = 0; e < active.size(); e++) {
        is_active[e] = active[e] != 0;
    }
    std::vector<Routed> want;
    std::vector<double> want_best;
    std::vector<double> got_best;
    for (int token = 0; token < c.tokens; token++) {
        bool here = types.empty() || (types[token] >= 0 && (rule.token_type == -1 || types[token] == rule.token_type));
        want.push_back(here ? define_rare(rule, logits_of_token(rule, values, token, c.tokens), bias, is_active) : nowhere(rule));
        // Without an active expert nobody queues.
        if (c.tokens % 2 == 1 && (c.inactive != kAll || !here)) {
            want_best.push_back(want.back().best_score);
            got_best.push_back(best.at(token));
        }
    }
    why = compare_routing(rule, want, ids, weights);
    return why.empty() ? host::compare(Floats(host::kF32, got_best), want_best, rule.num_experts) : why;
}

void check_route(const Case& c) {
    std::string name = "rare " + name_of(c.rule) + " least " + to_string(c.rule.least) + " T=" + to_string(c.tokens) +
                       " logits " + to_string(c.kind) + " bias " + to_string(c.bias_scale) + " inactive " +
                       to_string(c.inactive) + (c.types ? " types" : "") + " blocks " + to_string(c.blocks);
    host::report(name, run(c));
}

RouteRule judged_by(RouteRule rule, int groups, int top_groups, int group_score) {
    rule = in_groups(rule, groups, top_groups, group_score);
    rule.judged = group_score == route_rule::kMax ? 1 : group_score == route_rule::kTop2Sum ? 2 : rule.top_k / top_groups;
    return rule;
}

RouteRule one_of_each(RouteRule rule, int selection) {
    rule.selection = selection;
    rule.num_groups = rule.top_k;
    return rule;
}

RouteRule up_to(RouteRule rule, int selection, int least, double amount) {
    rule.selection = selection;
    rule.least = least;
    rule.amount = amount;
    return rule;
}

RouteRule two_levels(RouteRule rule, int groups, int top_groups) {
    rule.selection = route_rule::kTwoLevel;
    rule.num_groups = groups;
    rule.top_groups = top_groups;
    rule.least = rule.top_k / top_groups;
    return rule;
}

// Every selection that these scores and this normalisation are possible with.
std::vector<RouteRule> rules_of(const RouteRule& plain) {
    std::vector<RouteRule> rules = {plain,
                                    judged_by(plain, 4, 2, route_rule::kMax),
                                    judged_by(plain, 8, 3, route_rule::kTop2Sum),
                                    judged_by(plain, 4, 2, route_rule::kTopShareSum),
                                    one_of_each(plain, route_rule::kOnePerGroup),
                                    up_to(plain, route_rule::kTopP, 1, 0.6),
                                    up_to(plain, route_rule::kTopP, 2, 0.1),
                                    up_to(plain, route_rule::kEntropyK, 1, 1.1)};
    if (plain.score == route_rule::kSoftmax) {
        rules.push_back(one_of_each(plain, route_rule::kPrototypes));
        if (plain.normalisation < route_rule::kClampedSum && plain.parameter == 0) {
            rules.push_back(two_levels(plain, 4, 2));
            rules.push_back(two_levels(plain, 8, 4));
        }
    }
    return rules;
}

void check_rules() {
    RouteRule plains[] = {rule_of(16, 4, route_rule::kSoftmax, route_rule::kNone, 0, 2.5),
                          rule_of(16, 4, route_rule::kSoftmax, route_rule::kSum, 0, 2.5),
                          rule_of(16, 4, kSigmoid, route_rule::kSum, 1e-3, 1),
                          rule_of(16, 4, route_rule::kSqrtSoftplus, route_rule::kPNorm, 2, 1.5),
                          rule_of(16, 4, route_rule::kPlain, route_rule::kNone, 0, 1)};
    for (const RouteRule& plain : plains) {
        for (RouteRule rule : rules_of(plain)) {
            for (int kind = 0; kind < kKinds; kind++) {
                check_route({rule, 3, kind, -1, kind % 2 == 0 ? kNoTensor : kSome, false, 0, 0});
            }
            check_route({rule, 6, kNormal, 0.3, kSome, true, 1, 4});
            check_route({rule, 5, kTies, -1, kAllButOne, false, 0, 0});
            check_route({rule, 5, kNormal, -1, kAll, false, 0, 0});
            rule.token_type = 1;
            check_route({rule, 9, kSomeNan, -1, kNobody, true, 2, 4});
            rule.normalise_later = rule.selection == route_rule::kTwoLevel ? 0 : 1;
            check_route({rule, 9, kNormal, -1, kNoTensor, true, 0, 0});
        }
    }
}

void check_sizes() {
    RouteRule one = rule_of(1, 1, route_rule::kSoftmax, route_rule::kSum, 0, 1);
    for (const RouteRule& rule : {one, one_of_each(one, route_rule::kPrototypes), up_to(one, route_rule::kTopP, 1, 0.5),
                                  up_to(one, route_rule::kEntropyK, 1, 2), two_levels(one, 1, 1)}) {
        check_route({rule, 0, kNormal, -1, kNoTensor, false, 1, 0});
        check_route({rule, 33, kSomeNan, -1, kNoTensor, false, 2, 0});
    }
    // More slots than lanes, more groups than lanes, and rows that no lane sees alone.
    RouteRule wide = rule_of(210, 70, route_rule::kSoftmax, route_rule::kSum, 0, 1);
    check_route({wide, 3, kTies, -1, kSome, false, 0, 0});
    check_route({one_of_each(wide, route_rule::kOnePerGroup), 3, kTies, -1, kSome, false, 0, 0});
    check_route({one_of_each(wide, route_rule::kPrototypes), 3, kNormal, -1, kSome, false, 0, 0});
    check_route({up_to(wide, route_rule::kTopP, 40, 0.9), 3, kNormal, -1, kSome, false, 0, 0});
    check_route({two_levels(wide, 42, 35), 3, kNormal, -1, kSome, false, 0, 0});
    check_route({judged_by(wide, 42, 35, route_rule::kTopShareSum), 3, kNormal, -1, kSome, false, 0, 0});
    RouteRule many = rule_of(2048, 8, route_rule::kSoftmax, route_rule::kNone, 0, 1);
    check_route({many, 2, kNormal, -1, kSome, false, 0, 0});
    check_route({up_to(many, route_rule::kEntropyK, 1, 0.9), 1, kNormal, -1, kNoTensor, false, 0, 0});
    check_route({two_levels(many, 32, 4), 1, kNormal, -1, kSome, false, 0, 0});
}

}  // namespace

int main() {
    check_rules();
    check_sizes();
    return check::result();
}
