// topkIds, topkWeights = rule(logits), by the rules of few models: one expert per group, top-p, a number by the entropy, two
// levels, groups judged by any number of candidates; and any rule over rows with inactive experts
//
// Shapes    as in route.cu, without product keys; active_experts [E] or null; keys [warps of the grid, E + num_groups].
// Grid      any: warps share the tokens, each with keys of its own.
// Numerics  all of it in F64, rounded once; scores and sums that decide are compared as F32. Sums over all experts in an order that depends on nothing but E, over groups and
//           runs of experts in theirs, so that equal groups are equal to the last bit.
// Requires  nothing of sizes. Not for SparseMixer, product keys and Hash.
// Adjoint   routeBackward.
#include "common/route_token.cuh"

namespace {

using route_token::Token;
using Pick = rank::Pick<uint64_t>;

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr uint64_t kAbsent = rank::kAbsent;

// A softmax over some of the experts that are active.
struct Softmax {
    double max;  // of the numbers; -infinity without any
    double sum;  // of exp(logit - max)
    bool nan;    // whether one of the logits is NaN

    __device__ __forceinline__ bool undefined() const { return nan || fabs(max) == special::infinity(); }

    // At an infinite maximum the limit, all equal at the maximum.
    __device__ __forceinline__ double power(double logit) const { return exp(logit == max ? 0.0 : logit - max); }
};

struct Row {
    const Token& token;
    const float* logits;
    const int* active;
    uint64_t* keys;    // [E]: candidates, absent where they may not be selected
    uint64_t* groups;  // [num_groups]: what groups are ordered by, later the shares of those selected
    int width;         // experts of a group

    __device__ __forceinline__ bool is_active(int id) const { return active == nullptr || active[id] != 0; }
    __device__ __forceinline__ double logit(int id) const { return logits[id]; }
};

// ---- Scores

// Of the experts from, from + step, ...: all by the lanes of a warp together, or a group by one lane.
template <bool by_warp>
__device__ Softmax softmax_of(const Row& row, int from, int to) {
    long long first = by_warp ? from + row.token.lane : from;
    int step = by_warp ? 32 : 1;
    Softmax all = {-special::infinity(), 0.0, false};
#pragma unroll 1
    for (long long id = first; id < to; id += step) {
        if (row.is_active(static_cast<int>(id))) {
            double logit = row.logit(static_cast<int>(id));
            all.nan |= logit != logit;
            all.max = fmax(all.max, logit);
        }
    }
    if (by_warp) {
        for (int distance = 16; distance > 0; distance /= 2) {
            all.max = fmax(all.max, __shfl_xor_sync(rank::kAllLanes, all.max, distance));
        }
        all.nan = __any_sync(rank::kAllLanes, all.nan);
    }
#pragma unroll 1
    for (long long id = first; id < to; id += step) {
        double logit = row.logit(static_cast<int>(id));
        if (row.is_active(static_cast<int>(id)) && logit == logit) {
            all.sum += all.power(logit);
        }
    }
    all.sum = by_warp ? rank::sum_of_warp(all.sum) : all.sum;
    return all;
}

// In nats, of all active experts.
__device__ double entropy_of(const Row& row, const Softmax& all) {
    double moment = 0.0;
#pragma unroll 1
    for (long long id = row.token.lane; id < row.token.rule.num_experts; id += 32) {
        double logit = row.logit(static_cast<int>(id));
        double power = all.power(logit);
        if (row.is_active(static_cast<int>(id)) && power > 0.0 && logit != all.max) {
            moment += power * (logit - all.max);
        }
    }
    moment = rank::sum_of_warp(moment);
    return all.sum == 0.0 ? 0.0 : log(all.sum) - moment / all.sum;
}

__device__ __forceinline__ double score_of(int score, double logit, const Softmax& softmax) {
    if (score == route_rule::kSoftmax) {
        return softmax.power(logit) / softmax.sum;
    }
    return route_token::ScoreOf{score, 0.0, 1.0}(logit);
}

// The softmax that an expert is in.
__device__ __forceinline__ Softmax softmax_with(const Row& row, int id, const Softmax& all) {
    bool local = row.token.rule.selection == route_rule::kPrototypes;
    int from = id / row.width * row.width;
    return local ? softmax_of<false>(row, from, from + row.width) : all;
}

// ---- Candidates

__device__ __forceinline__ bool ordered_by_score(const Token& token) {
    const RouteRule& rule = token.rule;
    bool sums = rule.selection == route_rule::kGroupLimited && rule.group_score != route_rule::kMax;
    return token.selection_bias != nullptr || sums || rule.selection == route_rule::kTwoLevel;
}

__device__ void write_keys(const Row& row, const Softmax& softmax, int from, int to, int step) {
    const Token& token = row.token;
    bool scored = ordered_by_score(token);
#pragma unroll 1
    for (long long i = from; i < to; i += step) {
        int id = static_cast<int>(i);
        double logit = row.logit(id);
        double own = scored ? static_cast<float>(score_of(token.rule.score, logit, softmax)) + bias_of(id, token) : logit;
        row.keys[id] = row.is_active(id) ? rank::key_of(own) : kAbsent;
    }
}

__device__ void write_all_keys(const Row& row, const Softmax& all) {
    const RouteRule& rule = row.token.rule;
    if (rule.selection != route_rule::kPrototypes) {
        write_keys(row, all, row.token.lane, rule.num_experts, 32);
    } else {
#pragma unroll 1
        for (int group = row.token.lane; group < rule.num_groups; group += 32) {
            int from = group * row.width;
            write_keys(row, softmax_of<false>(row, from, from + row.width), from, from + row.width, 1);
        }
    }
    __syncwarp();
}

// ---- Choices

// The best of some keys that ranks after previous, for one lane.
__device__ __forceinline__ Pick next_of(const uint64_t* keys, const Pick& previous, int from, int to, int step) {
    Pick best = Pick::none();
#pragma unroll 1
    for (long long id = from; id < to; id += step) {
        rank::offer(best, previous, keys[id], static_cast<int>(id));
    }
    return best;
}

// The same for all lanes together.
__device__ __forceinline__ Pick next_of_warp(const uint64_t* keys, const Pick& previous, int from, int to, int lane) {
    return rank::best_of_warp(next_of(keys, previous, from + lane, to, 32));
}

__device__ __forceinline__ void note(const Token& token, int k, const Pick& pick) {
    if (token.lane == 0) {
        token.ids[k] = pick.key == kAbsent ? -1 : pick.id;
    }
}

// Sums of candidates are compared as F32 like these.
__device__ __forceinline__ uint64_t key_of_sum(double sum) {
    return rank::key_of(static_cast<double>(static_cast<float>(sum)));
}

// What a group with an active expert is judged by: its best candidates.
__device__ uint64_t judge_by_best(const Row& row, int group) {
    int from = group * row.width;
    Pick last = Pick::before_all();
    double sum = 0.0;
    uint64_t judged = kAbsent;
#pragma unroll 1
    for (int i = 0; i < row.token.rule.judged; i++) {
        last = next_of(row.keys, last, from, from + row.width, 1);
        if (last.key == kAbsent) {
            break;
        }
        sum += rank::value_of(last.key);
        judged = key_of_sum(sum);
    }
    return judged;
}

// The same by all candidates that are numbers.
__device__ uint64_t judge_by_all(const Row& row, int group) {
    double sum = 0.0;
    uint64_t judged = kAbsent;
#pragma unroll 1
    for (int id = group * row.width; id < (group + 1) * row.width; id++) {
        uint64_t key = row.keys[id];
        if (key != kAbsent && key != rank::kNan) {
            sum += rank::value_of(key);
            judged = key_of_sum(sum);
        } else if (key == rank::kNan && judged == kAbsent) {
            judged = rank::kNan;
        }
    }
    return judged;
}

__device__ void write_groups(const Row& row, bool by_all) {
#pragma unroll 1
    for (int group = row.token.lane; group < row.token.rule.num_groups; group += 32) {
        row.groups[group] = by_all ? judge_by_all(row, group) : judge_by_best(row, group);
    }
    __syncwarp();
}

// Makes the experts absent whose group is not among the best.
__device__ void keep_best_groups(const Row& row) {
    const RouteRule& rule = row.token.rule;
    write_groups(row, false);
    Pick last = Pick::before_all();
#pragma unroll 1
    for (int i = 0; i < rule.top_groups; i++) {
        last = next_of_warp(row.groups, last, 0, rule.num_groups, row.token.lane);
    }
#pragma unroll 1
    for (long long id = row.token.lane; id < rule.num_experts; id += 32) {
        int group = static_cast<int>(id) / row.width;
        if (Pick{row.groups[group], group}.ranks_after(last)) {
            row.keys[id] = kAbsent;
        }
    }
    __syncwarp();
}

__device__ void take_best(const Row& row, int from, int to, int k, int count) {
    Pick pick = Pick::before_all();
#pragma unroll 1
    for (int i = 0; i < count; i++) {
        pick = next_of_warp(row.keys, pick, from, to, row.token.lane);
        note(row.token, k + i, pick);
    }
}

__device__ void take_one_per_group(const Row& row) {
    const Token& token = row.token;
#pragma unroll 1
    for (int group = token.lane; group < token.rule.num_groups; group += 32) {
        Pick best = next_of(row.keys, Pick::before_all(), group * row.width, (group + 1) * row.width, 1);
        token.ids[group] = best.key == kAbsent ? -1 : best.id;
    }
}

__device__ void take_until(const Row& row, const Softmax& all) {
    const RouteRule& rule = row.token.rule;
    Pick pick = Pick::before_all();
    double sum = 0.0;
#pragma unroll 1
    for (int k = 0; k < rule.top_k; k++) {
        pick = next_of_warp(row.keys, pick, 0, rule.num_experts, row.token.lane);
        double logit = pick.key == kAbsent ? 0.0 : row.logit(pick.id);
        if (pick.key == kAbsent || (k >= rule.least && (sum >= rule.amount || logit != logit))) {
            return;
        }
        note(row.token, k, pick);
        sum += logit == logit ? score_of(rule.score, logit, all) : 0.0;
    }
}

__device__ void take_in_groups(const Row& row) {
    const RouteRule& rule = row.token.rule;
    write_groups(row, true);
    Pick pick = Pick::before_all();
#pragma unroll 1
    for (int i = 0; i < rule.top_groups; i++) {
        pick = next_of_warp(row.groups, pick, 0, rule.num_groups, row.token.lane);
        if (pick.key == kAbsent) {
            return;
        }
        take_best(row, pick.id * row.width, (pick.id + 1) * row.width, i * rule.least, rule.least);
    }
}

__device__ void select(const Row& row, const Softmax& all) {
    const Token& token = row.token;
    const RouteRule& rule = token.rule;
    // By the lane that writes all ids but those of one per group.
#pragma unroll 1
    for (int k = 0; k < rule.top_k && token.lane == 0; k++) {
        token.ids[k] = -1;
    }
    __syncwarp();
    switch (rule.selection) {
        case route_rule::kOnePerGroup:
        case route_rule::kPrototypes:
            take_one_per_group(row);
            break;
        case route_rule::kTopP:
            take_until(row, all);
            break;
        case route_rule::kEntropyK: {
            double wanted = fmax(static_cast<double>(rule.least), ceil(rule.amount * entropy_of(row, all) - 1e-9));
            take_best(row, 0, rule.num_experts, 0, static_cast<int>(fmin(static_cast<double>(rule.top_k), wanted)));
            break;
        }
        case route_rule::kTwoLevel:
            take_in_groups(row);
            break;
        case route_rule::kGroupLimited:
            keep_best_groups(row);
            [[fallthrough]];
        default:
            take_best(row, 0, rule.num_experts, 0, rule.top_k);
    }
    __syncwarp();
}

// ---- Weights

// Whether the weights are a softmax over the selected logits alone.
__device__ __forceinline__ bool over_selected(const RouteRule& rule) {
    return route_token::over_selected(rule) && rule.selection != route_rule::kPrototypes && rule.selection != route_rule::kTwoLevel;
}

// The largest selected logit; its NaN is that of its own slot.
__device__ double largest_selected(const Row& row) {
    double largest = -special::infinity();
    bool nan = false;
#pragma unroll 1
    for (int k = row.token.lane; k < row.token.rule.top_k; k += 32) {
        int id = row.token.ids[k];
        double logit = id < 0 ? -special::infinity() : row.logit(id);
        nan |= logit != logit;
        largest = fmax(largest, logit);
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        largest = fmax(largest, __shfl_xor_sync(rank::kAllLanes, largest, distance));
    }
    return __any_sync(rank::kAllLanes, nan) ? special::nan() : largest;
}

// Keys are not needed any more: their memory holds numbers of slots, and that of groups the shares of groups.
__device__ __forceinline__ void put(uint64_t* memory, double value) { *memory = static_cast<uint64_t>(__double_as_longlong(value)); }

__device__ __forceinline__ double taken(const uint64_t* memory) { return __longlong_as_double(static_cast<long long>(*memory)); }

// What slots weigh before normalisation, each lane those that it goes on with.
__device__ void put_scores(const Row& row, const Softmax& all) {
    const Token& token = row.token;
    const RouteRule& rule = token.rule;
    bool of_selected = over_selected(rule);
    double largest = of_selected ? largest_selected(row) : 0.0;
#pragma unroll 1
    for (int k = token.lane; k < rule.top_k; k += 32) {
        int id = token.ids[k];
        double score = 0.0;
        if (id >= 0 && of_selected) {
            score = exp(row.logit(id) - largest);
        } else if (id >= 0) {
            Softmax own = softmax_with(row, id, all);
            bool undefined = rule.score == route_rule::kSoftmax && own.undefined();
            score = undefined ? special::nan() : score_of(rule.score, row.logit(id), own);
        }
        put(row.keys + k, score);
    }
    __syncwarp();
}

// Of two levels: what the share of a group is of that of all selected, times what the expert's is of its group's.
__device__ void weigh_levels(const Row& row, const Softmax& all) {
    const Token& token = row.token;
    const RouteRule& rule = token.rule;
#pragma unroll 1
    for (int i = token.lane; i < rule.top_groups; i += 32) {
        int id = token.ids[i * rule.least];
        int from = id / row.width * row.width;
        double share = 0.0;
#pragma unroll 1
        for (int e = from; id >= 0 && e < from + row.width; e++) {
            double logit = row.logit(e);
            share += row.is_active(e) && logit == logit ? all.power(logit) / all.sum : 0.0;
        }
        put(row.groups + i, share);
    }
    __syncwarp();
    double shares = 0.0;
#pragma unroll 1
    for (int i = 0; i < rule.top_groups; i++) {
        shares += taken(row.groups + i);
    }
#pragma unroll 1
    for (int k = token.lane; k < rule.top_k; k += 32) {
        int group = k / rule.least;
        double selected = 0.0;
#pragma unroll 1
        for (int other = group * rule.least; other < (group + 1) * rule.least; other++) {
            selected += taken(row.keys + other);
        }
        double own = taken(row.keys + k);
        double weight = taken(row.groups + group) / shares * (own / selected) * rule.factor;
        // The weight of a group without weight is 0, whatever its experts share.
        token.weights[k] = own == 0.0 ? 0.0f : route_rule::stored(weight);
    }
}

__device__ void weigh(const Row& row) {
    const Token& token = row.token;
    const RouteRule& rule = token.rule;
    bool normalises = !rule.normalise_later && rule.selection != route_rule::kTwoLevel;
    double divisor = 1.0;
    if (normalises) {
        double sum = 0.0;
#pragma unroll 1
        for (int k = token.lane; k < rule.top_k; k += 32) {
            sum += route_rule::term(rule, taken(row.keys + k));
        }
        divisor = route_rule::divisor(rule, rank::sum_of_warp(sum));
    }
    double factor = rule.normalise_later ? 1.0 : rule.factor;
#pragma unroll 1
    for (int k = token.lane; k < rule.top_k; k += 32) {
        token.weights[k] = token.ids[k] < 0 ? 0.0f : route_rule::stored(taken(row.keys + k) / divisor * factor);
    }
}

// The best score, NaN if one is.
__device__ void write_best_score(const Row& row, const Softmax& all) {
    const Token& token = row.token;
    if (token.best_score == nullptr) {
        return;
    }
    bool softmax = token.rule.score == route_rule::kSoftmax;
    bool nan = softmax ? all.undefined() : all.nan;
    double best = softmax ? 1.0 / all.sum : score_of(token.rule.score, all.max, all);
    if (token.rule.selection == route_rule::kPrototypes) {
        best = 0.0;
        nan = false;
#pragma unroll 1
        for (int group = token.lane; group < token.rule.num_groups; group += 32) {
            Softmax own = softmax_of<false>(row, group * row.width, (group + 1) * row.width);
            bool empty = own.sum == 0.0 && !own.nan;
            nan |= !empty && own.undefined();
            best = empty ? best : fmax(best, 1.0 / own.sum);
        }
        for (int distance = 16; distance > 0; distance /= 2) {
            best = fmax(best, __shfl_xor_sync(rank::kAllLanes, best, distance));
        }
        nan = __any_sync(rank::kAllLanes, nan);
    }
    if (token.lane == 0) {
        *token.best_score = nan ? special::nan() : static_cast<float>(best);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 4)
    route_rare(const float* __restrict__ logits, const float* __restrict__ selection_bias, const int* __restrict__ token_types,
               const int* __restrict__ active_experts, int* __restrict__ topk_ids, float* __restrict__ topk_weights,
               float* __restrict__ best_scores, uint64_t* __restrict__ keys, int tokens, const __grid_constant__ RouteRule rule) {
    long long warp = static_cast<long long>(blockIdx.x) * kWarps + threadIdx.x / 32;
    uint64_t* own_keys = keys + warp * (static_cast<long long>(rule.num_experts) + rule.num_groups);
    int width = rule.num_groups == 0 ? rule.num_experts : rule.num_experts / rule.num_groups;
    for (long long index = warp; index < tokens; index += static_cast<long long>(gridDim.x) * kWarps) {
        Token token = {rule,
                       selection_bias,
                       topk_ids + index * rule.top_k,
                       topk_weights + index * rule.top_k,
                       best_scores == nullptr ? nullptr : best_scores + index,
                       static_cast<int>(threadIdx.x % 32)};
        if (token_types != nullptr && route_token::belongs_elsewhere(rule, token_types[index])) {
            route_nowhere(token);
            continue;
        }
        Row row = {token, logits + index * rule.num_experts, active_experts, own_keys, own_keys + rule.num_experts, width};
        Softmax all = softmax_of<true>(row, 0, rule.num_experts);
        write_all_keys(row, all);
        select(row, all);
        put_scores(row, all);
        if (rule.selection == route_rule::kTwoLevel && rule.normalisation == route_rule::kSum) {
            weigh_levels(row, all);
        } else {
            weigh(row);
        }
        write_best_score(row, all);
        // The next token's keys may come.
        __syncwarp();
    }
}
JMOE_EXPORT(route_rare, kThreads, kWarps, 0);
