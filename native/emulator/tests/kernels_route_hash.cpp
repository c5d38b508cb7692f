// Experts by the ids of tokens, and what scales their weights, against plain loops.
#include "route_definition.h"

namespace {

using namespace route_definition;

uint32_t murmur_finaliser(uint32_t x) {
    x ^= x >> 16;
    x *= 0x85ebca6bu;
    x ^= x >> 13;
    x *= 0xc2b2ae35u;
    return x ^ x >> 16;
}

// The k-th expert of a token: where its hash falls, or the next that is free, around the ring.
std::vector<int> hashed(int id, int experts, int top_k) {
    std::vector<int> ids;
    std::vector<bool> taken(experts);
    for (int k = 0; k < top_k; k++) {
        uint64_t expert = murmur_finaliser(static_cast<uint32_t>(static_cast<uint64_t>(id) + k * 0x9e3779b9ull)) % experts;
        while (taken[expert]) {
            expert = (expert + 1) % experts;
        }
        taken[expert] = true;
        ids.push_back(static_cast<int>(expert));
    }
    return ids;
}

struct Case {
    RouteRule rule;
    int tokens;
    int vocabulary;  // negative without a table
    bool types;
    size_t misaligned;
};

// Some ids are nobody's, some entries of the table no experts.
std::string run(const Case& c) {
    const RouteRule& rule = c.rule;
    host::Numbers numbers(c.tokens + 3 * rule.num_experts);
    const int hostile[] = {-1, INT32_MIN, INT32_MAX, std::max(c.vocabulary, 0)};
    std::vector<int> token_ids;
    std::vector<int> types;
    for (int token = 0; token < c.tokens; token++) {
        bool odd = c.vocabulary == 0 || numbers.below(4) == 0;
        token_ids.push_back(odd ? hostile[numbers.below(4)] : numbers.below(c.vocabulary < 0 ? INT32_MAX : c.vocabulary));
        types.push_back(token % 4 - 1);
    }
    std::vector<int> table;
    for (long long i = 0; i < static_cast<long long>(c.vocabulary) * rule.top_k; i++) {
        const int nobody[] = {-1, INT32_MIN, INT32_MAX, rule.num_experts};
        table.push_back(numbers.below(5) == 0 ? nobody[numbers.below(4)] : numbers.below(rule.num_experts));
    }
    size_t slots = static_cast<size_t>(c.tokens) * rule.top_k;
    Array<int> device_ids(token_ids, c.misaligned);
    Array<int> device_types(types, c.misaligned);
    Array<int> device_table(table, c.misaligned);
    Array<int> ids(slots, c.misaligned);
    Array<float> weights(slots, c.misaligned);
    std::string why =
        host::launch("route_hash", {host::blocks("route_hash", c.tokens)}, device_ids.input(),
                     c.types ? device_types.input() : nullptr, c.vocabulary < 0 ? nullptr : device_table.input(), ids.data(),
                     weights.data(), c.tokens, static_cast<long long>(std::max(c.vocabulary, 0)), rule);
    std::vector<Routed> want;
    for (int token = 0; token < c.tokens; token++) {
        int id = token_ids[token];
        bool here = !c.types || (types[token] >= 0 && (rule.token_type == -1 || types[token] == rule.token_type));
        want.push_back(nowhere(rule));
        if (!here || id < 0 || (c.vocabulary >= 0 && id >= c.vocabulary)) {
            continue;
        }
        std::vector<int>& own = want.back().ids;
        own = c.vocabulary < 0 ? hashed(id, rule.num_experts, rule.top_k)
                               : std::vector<int>(table.begin() + static_cast<long>(id) * rule.top_k,
                                                  table.begin() + (id + 1l) * rule.top_k);
        std::vector<double>& scores = want.back().weights;
        for (int k = 0; k < rule.top_k; k++) {
            own[k] = own[k] < rule.num_experts ? std::max(own[k], -1) : -1;
            scores[k] = own[k] < 0 ? 0 : 1;
        }
        double divisor = rule.normalise_later ? 1 : divisor_of(rule, scores);
        for (int k = 0; k < rule.top_k; k++) {
            scores[k] = own[k] < 0 ? 0 : scores[k] / divisor * (rule.normalise_later ? 1 : rule.factor);
        }
    }
    return why.empty() ? compare_routing(rule, want, ids, weights) : why;
}

void check_hash(const Case& c) {
    host::report("hash " + name_of(c.rule) + " T=" + to_string(c.tokens) + " vocabulary " + to_string(c.vocabulary) +
                     (c.types ? " types" : ""),
                 run(c));
}

// Slots without an expert keep what they have, which need not be 0.
void check_scale(int tokens, int top_k, int experts, size_t misaligned) {
    host::Numbers numbers(tokens + experts);
    size_t slots = static_cast<size_t>(tokens) * top_k;
    std::vector<int> ids;
    std::vector<float> given;
    for (size_t slot = 0; slot < slots; slot++) {
        ids.push_back(numbers.below(4) == 0 ? (numbers.below(2) == 0 ? -1 : INT32_MIN) : numbers.below(experts));
        given.push_back(numbers.below(9) == 0 ? NAN : static_cast<float>(numbers.normal()));
    }
    std::vector<float> scales = logits_of(kNormal, experts, 5);
    scales[experts / 2] = NAN;
    Array<int> device_ids(ids, misaligned);
    Array<float> device_scales(scales, misaligned);
    Array<float> weights(given, misaligned);
    std::string why = host::launch("route_scale", {host::blocks("route_scale", static_cast<long long>(slots))},
                                   device_ids.input(), device_scales.input(), weights.data(), static_cast<long long>(slots));
    for (size_t slot = 0; why.empty() && slot < slots; slot++) {
        float want = ids[slot] < 0 ? given[slot] : given[slot] * scales[ids[slot]];
        float got = weights.at(slot);
        if (std::isnan(want) ? !std::isnan(got) : got != want) {
            why = "slot " + to_string(slot) + ": got " + to_string(got) + ", want " + to_string(want);
        }
    }
    host::report("scale T=" + to_string(tokens) + " K=" + to_string(top_k) + " E=" + to_string(experts),
                 why.empty() ? check_nans(weights) : why);
}

}  // namespace

int main() {
    const int sizes[][2] = {{1, 1}, {7, 2}, {8, 8}, {60, 4}, {2048, 6}, {65536, 2}};
    for (const auto& size : sizes) {
        RouteRule rules[] = {rule_of(size[0], size[1], route_rule::kSoftmax, route_rule::kSum, 0, 2.5),
                             rule_of(size[0], size[1], route_rule::kSoftmax, route_rule::kPNorm, 3, 1),
                             rule_of(size[0], size[1], route_rule::kSoftmax, route_rule::kNone, 0, 0.5)};
        for (RouteRule rule : rules) {
            for (int vocabulary : {-1, 0, 1, 50}) {
                check_hash({rule, 0, vocabulary, false, 0});
                check_hash({rule, 127, vocabulary, false, 4});
                rule.token_type = rule.normalisation == route_rule::kNone ? 1 : -1;
                check_hash({rule, 129, vocabulary, true, 0});
            }
            rule.normalise_later = 1;
            check_hash({rule, 33, 50, false, 0});
        }
    }
    check_scale(0, 2, 5, 0);
    check_scale(1, 1, 1, 4);
    check_scale(255, 1, 9, 0);
    check_scale(64, 4, 60, 4);
    check_scale(37, 7, 2048, 0);
    return check::result();
}
