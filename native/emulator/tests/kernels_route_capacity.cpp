// What a capacity drops, against the queue as it is defined.
#include "common/route_rule.cuh"
#include "kernels_host.h"

namespace {

using host::Array;
using host::Numbers;
using std::to_string;

// By falling score, NaN first, of equals the earlier token.
std::vector<int> queue(const std::vector<float>& scores) {
    std::vector<int> order(scores.size());
    for (size_t token = 0; token < order.size(); token++) {
        order[token] = static_cast<int>(token);
    }
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
        return !std::isnan(scores[b]) && (std::isnan(scores[a]) || scores[a] > scores[b]);
    });
    return order;
}

void check_order(int tokens) {
    Numbers numbers(tokens);
    std::vector<float> scores(tokens);
    for (float& score : scores) {
        int die = numbers.below(6);
        score = die == 0 ? NAN : die == 1 ? 0.0f : die < 4 ? 0.125f * static_cast<float>(numbers.below(9)) : static_cast<float>(numbers.uniform());
    }
    Array<float> device_scores(scores);
    Array<int> order(tokens);
    std::string why = host::launch("route_capacity_order", {host::blocks("route_capacity_order", tokens)},
                                   device_scores.input(), order.data(), tokens);
    std::vector<int> want = queue(scores);
    for (int place = 0; why.empty() && place < tokens; place++) {
        if (order.at(place) != want[place]) {
            why = "place " + to_string(place) + ": got " + to_string(order.at(place)) + ", want " + to_string(want[place]);
        }
    }
    host::report("order of " + to_string(tokens), why);
}

void check_drop(int tokens, int top_k, int experts, long long limit, bool ordered) {
    Numbers numbers(tokens * 7 + top_k);
    size_t slots = static_cast<size_t>(tokens) * top_k;
    std::vector<int> ids(slots);
    for (int& id : ids) {
        id = numbers.below(5) == 0 ? -1 : std::min(numbers.below(experts), numbers.below(experts));
    }
    std::vector<int> order(tokens);
    for (int token = 0; token < tokens; token++) {
        order[token] = token;
    }
    for (int token = tokens - 1; ordered && token > 0; token--) {
        std::swap(order[token], order[numbers.below(token + 1)]);
    }
    Array<int> device_ids(ids);
    Array<int> device_order(order);
    Array<float> weights(std::vector<float>(slots, 0.5f));
    std::string why = host::launch("route_capacity_drop", {host::blocks("route_capacity_drop", experts)}, device_ids.input(),
                                   ordered ? device_order.input() : nullptr, weights.data(), tokens, top_k, experts, limit);
    std::vector<long long> queued(experts);
    for (int k = 0; why.empty() && k < top_k; k++) {
        for (int token : order) {
            size_t slot = static_cast<size_t>(token) * top_k + k;
            float want = ids[slot] >= 0 && queued[ids[slot]]++ >= limit ? 0.0f : 0.5f;
            if (weights.at(slot) != want) {
                why = "slot " + to_string(slot) + ": got " + to_string(weights.at(slot)) + ", want " + to_string(want);
            }
        }
    }
    host::report("drop beyond " + to_string(limit) + " of T=" + to_string(tokens) + " K=" + to_string(top_k) + " E=" +
                     to_string(experts) + (ordered ? " ordered" : ""),
                 why);
}

void check_normalise(int tokens, int top_k, int normalisation, double parameter) {
    Numbers numbers(tokens + top_k);
    RouteRule rule = {};
    rule.top_k = top_k;
    rule.normalisation = normalisation;
    rule.parameter = parameter;
    rule.factor = 2.5;
    std::vector<float> given(static_cast<size_t>(tokens) * top_k);
    for (size_t slot = 0; slot < given.size(); slot++) {
        given[slot] = numbers.below(3) == 0 ? 0.0f : static_cast<float>(numbers.uniform());
        given[slot] = slot / top_k % 5 == 4 ? 0.0f : slot % 23 == 7 ? NAN : given[slot];
    }
    Array<float> weights(given);
    std::string why = host::launch("route_capacity_normalise", {host::blocks("route_capacity_normalise", tokens)},
                                   weights.data(), tokens, rule);
    std::vector<double> want;
    for (int token = 0; token < tokens; token++) {
        const float* own = &given[static_cast<size_t>(token) * top_k];
        double sum = 0;
        double powers = 0;
        for (int k = 0; k < top_k; k++) {
            sum += own[k];
            powers += std::pow(std::fabs(static_cast<double>(own[k])), parameter);
        }
        double divisors[] = {1, sum + parameter, std::isnan(sum) ? sum : std::max(sum, parameter),
                             std::pow(powers, 1 / parameter)};
        for (int k = 0; k < top_k; k++) {
            want.push_back(own[k] == 0 ? 0 : own[k] / divisors[normalisation] * rule.factor);
        }
    }
    std::vector<float> got = weights.values();
    why = why.empty() ? host::compare(host::Floats(host::kF32, {got.begin(), got.end()}), want, top_k) : why;
    host::report("normalise T=" + to_string(tokens) + " K=" + to_string(top_k) + " by " + to_string(normalisation), why);
}

}  // namespace

int main() {
    for (int tokens : {0, 1, 2, 33, 255, 256, 257, 600}) {
        check_order(tokens);
        for (int top_k : {1, 3}) {
            for (long long limit : {0ll, 1ll, 20ll, 1ll << 40}) {
                check_drop(tokens, top_k, 5, limit, tokens % 2 == 0);
            }
            check_normalise(tokens, top_k, route_rule::kSum, 0);
            check_normalise(tokens, top_k, route_rule::kClampedSum, 0.75);
            check_normalise(tokens, top_k, route_rule::kPNorm, 3.5);
            check_normalise(tokens, top_k, route_rule::kNone, 0);
        }
    }
    check_drop(2100, 2, 2, 300, true);
    check_drop(33, 64, 64, 3, false);
    return check::result();
}
