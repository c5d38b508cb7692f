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

void check_drop(int tokens, int top_k, int experts, long long limit, bool ordered, bool protects = false) {
    Numbers numbers(tokens * 7 + top_k);
    size_t slots = static_cast<size_t>(tokens) * top_k;
    std::vector<int> ids(slots);
    for (int& id : ids) {
        id = numbers.below(5) == 0 ? -1 : std::min(numbers.below(experts), numbers.below(experts));
        id = protects && id >= 0 && numbers.below(3) == 0 ? -2 - id : id;
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
                                   ordered ? device_order.input() : nullptr, weights.data(), tokens, top_k, experts, protects ? 1 : 0,
                                   limit);
    std::vector<long long> queued(experts);
    for (int id : ids) {
        queued[id < -1 ? -2 - id : 0] += id < -1;
    }
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
                     to_string(experts) + (ordered ? " ordered" : "") + (protects ? " beside protected ones" : ""),
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

// The numbers that Vigna's splitmix64.c gives, one after the other.
uint64_t next(uint64_t& state) {
    uint64_t z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// What slots are asked from: ids, weights that are multiples of 1/64, and the rule.
struct Slots {
    std::vector<int> ids;
    std::vector<float> weights;
    RouteRule rule = {};

    Slots(int tokens, int top_k, int experts) {
        Numbers numbers(tokens * 5 + top_k);
        rule.num_experts = experts;
        rule.top_k = top_k;
        rule.factor = 1;
        for (int token = 0; token < tokens; token++) {
            bool absent = numbers.below(7) == 0;
            int first = std::min(numbers.below(experts), numbers.below(experts));
            for (int k = 0; k < top_k; k++) {
                ids.push_back(absent ? -1 : (first + k) % experts);
                weights.push_back(absent ? 0.0f : 0.015625f * static_cast<float>(1 + numbers.below(64)));
            }
        }
    }
};

void check_ask(int tokens, int top_k, int experts_per_queue, double threshold, bool protects) {
    Slots slots(tokens, top_k, 6);
    slots.rule.normalise_later = 1;
    slots.rule.normalisation = route_rule::kSum;
    Array<int> ids(slots.ids);
    Array<float> weights(slots.weights);
    Array<int> asks(slots.ids.size());
    Array<float> keys(slots.ids.size());
    Array<float> placed(slots.ids.size());
    std::vector<int> stays(tokens);
    for (int token = 0; token < tokens; token++) {
        stays[token] = protects && token % 3 == 1 ? token : 0;
    }
    Array<int> protected_tokens(stays);
    long long seed = -3;
    std::string why = host::launch("route_capacity_ask", {host::blocks("route_capacity_ask", tokens)}, ids.input(),
                                   weights.data(), protects ? protected_tokens.input() : nullptr, asks.data(), keys.data(), placed.data(), tokens, experts_per_queue, seed,
                                   threshold, slots.rule);
    uint64_t state = static_cast<uint64_t>(seed);
    for (size_t slot = 0; why.empty() && slot < slots.ids.size(); slot++) {
        double drawn = static_cast<double>(next(state) >> 40) / 16777216.0;
        size_t first = slot / top_k * top_k;
        double sum = 0;
        for (int k = 0; k < top_k; k++) {
            sum += slots.weights[first + k];
        }
        double share = slots.weights[slot] / sum;
        bool kept = stays[slot / top_k] != 0;
        bool out = slots.ids[slot] >= 0 && !kept && slot > first && threshold > 0 && drawn >= share / threshold;
        int queue = slots.ids[slot] / experts_per_queue;
        int want = slots.ids[slot] < 0 || out ? -1 : kept ? -2 - queue : queue;
        float weight = out ? 0.0f : slots.weights[slot];
        bool key = slots.ids[slot] < 0 || keys.at(slot) == static_cast<float>(share);
        if (asks.at(slot) != want || weights.at(slot) != weight || placed.at(slot) != 1.0f || !key) {
            why = "slot " + to_string(slot) + ": asks " + to_string(asks.at(slot)) + ", want " + to_string(want);
        }
    }
    host::report("ask T=" + to_string(tokens) + " K=" + to_string(top_k) + " by " + to_string(threshold) + (protects ? " with protected tokens" : ""), why);
}

// Slots that wait, one after the other, in each round.
struct Moves {
    int rounds;
    int experts_per_queue;
    bool by_slot;
    long long limit;
};

void check_move(int tokens, int top_k, int experts, const Moves& moves, bool ranks) {
    Slots slots(tokens, top_k, experts);
    size_t count = slots.ids.size();
    int num_ranked = ranks ? experts : 0;
    Numbers numbers(11);
    std::vector<int> asks(count);
    std::vector<float> placed(count);
    std::vector<int> order(moves.by_slot ? count : tokens);
    std::vector<int> used(experts / moves.experts_per_queue);
    for (size_t i = 0; i < order.size(); i++) {
        order[i] = static_cast<int>(order.size() - 1 - i);
    }
    for (size_t slot = 0; slot < count; slot++) {
        asks[slot] = slots.ids[slot] < 0 || numbers.below(9) == 0 ? -1 : slots.ids[slot] / moves.experts_per_queue;
        placed[slot] = asks[slot] >= 0 && used[asks[slot]] < moves.limit ? 1.0f : 0.0f;
        used[std::max(asks[slot], 0)] += placed[slot] != 0.0f;
    }
    // Logits fall by 1 from each expert of a ranking to the next, so that a score is a power of e.
    std::vector<int> ranked;
    std::vector<float> logits(static_cast<size_t>(tokens) * experts);
    for (int token = 0; token < tokens; token++) {
        int first = std::max(slots.ids[static_cast<size_t>(token) * top_k], 0);
        for (int i = 0; i < num_ranked; i++) {
            ranked.push_back((first + i) % experts);
            logits[static_cast<size_t>(token) * experts + (first + i) % experts] = -static_cast<float>(i);
        }
    }
    Array<int> device_ids(slots.ids);
    Array<float> device_weights(slots.weights);
    Array<int> device_asks(asks);
    Array<float> device_placed(placed);
    Array<int> device_order(order);
    Array<int> device_ranked(ranked);
    Array<float> device_logits(logits);
    Array<int> device_used(used.size());
    std::string why = host::launch(
        "route_capacity_move", {1}, device_ids.data(), device_weights.data(), device_asks.input(), device_placed.data(),
        device_order.input(), ranks ? device_ranked.input() : nullptr, device_logits.input(), device_used.data(), tokens,
        moves.rounds, num_ranked, moves.experts_per_queue, moves.by_slot ? 1 : 0, moves.limit, slots.rule);
    std::vector<int> ids = slots.ids;
    std::vector<double> want(slots.weights.begin(), slots.weights.end());
    for (int round = 1; round <= moves.rounds; round++) {
        for (size_t place = 0; place < count; place++) {
            size_t slot = moves.by_slot ? order[place] : static_cast<size_t>(order[place % tokens]) * top_k + place / tokens;
            size_t token = slot / top_k;
            if (asks[slot] < 0 || placed[slot] != 0.0f) {
                continue;
            }
            int away = round % 2 == 1 ? (round + 1) / 2 : -round / 2;
            int to = ranks ? ranked[token * num_ranked + top_k + round - 1]
                           : ((ids[slot] + away) % experts + experts) % experts;
            const int* own = &ids[token * top_k];
            if (used[to / moves.experts_per_queue] >= moves.limit || std::find(own, own + top_k, to) != own + top_k) {
                continue;
            }
            used[to / moves.experts_per_queue]++;
            want[slot] *= ranks ? std::exp(static_cast<double>(logits[token * experts + to]) - logits[token * experts + ids[slot]]) : 1.0;
            ids[slot] = to;
            placed[slot] = 1.0f;
        }
    }
    for (size_t slot = 0; slot < count; slot++) {
        want[slot] = asks[slot] >= 0 && placed[slot] == 0.0f ? 0.0 : want[slot];
        if (why.empty() && device_ids.at(slot) != ids[slot]) {
            why = "slot " + to_string(slot) + ": got " + to_string(device_ids.at(slot)) + ", want " + to_string(ids[slot]);
        }
    }
    std::vector<float> got = device_weights.values();
    why = why.empty() ? host::compare(host::Floats(host::kF32, {got.begin(), got.end()}), want, top_k) : why;
    host::report("move T=" + to_string(tokens) + " K=" + to_string(top_k) + " E=" + to_string(experts) + " rounds " +
                     to_string(moves.rounds) + (ranks ? " by rank" : " around the ring"),
                 why);
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
    for (int tokens : {0, 1, 33, 300}) {
        check_ask(tokens, 1, 1, 0.5, false);
        check_ask(tokens, 3, 2, 0.5, true);
        check_ask(tokens, 3, 1, 0, tokens == 33);
        check_drop(tokens, 3, 5, 4, tokens == 33, true);
        for (bool ranks : {false, true}) {
            check_move(tokens, 2, 6, {4, 1, false, tokens / 4}, ranks);
            check_move(tokens, 2, 6, {3, 3, true, tokens / 3}, ranks);
            check_move(tokens, 1, 5, {2, 1, false, 1}, ranks);
        }
    }
    check_drop(2100, 2, 2, 300, true);
    check_drop(33, 64, 64, 3, false);
    return check::result();
}
