// topkIds, topkWeights = rule(logits)
//
// Shapes    logits F32 [tokens, num_logits] (product keys: [2, tokens, num_keys]), selection_bias F32 [E] or null, token_types
//           [tokens] or null, topkIds, topkWeights [tokens, topK], best_scores [tokens] or null: the best score of each token,
//           which orders them where capacity goes by probability. Other and negative token types get ids -1, weights 0, best score 0.
// Grid      ceil(tokens / items_per_block), a warp per token.
// Numerics  order by logit is exact (product keys: by the sum in F64). Scores of all experts in F32, of the K selected ones
//           and their weights in F64, rounded once. Sums in an order that depends on nothing but E.
// Requires  nothing of sizes: up to 512 experts are kept in registers and up to 2048 in shared memory, in up to 32 groups; more
//           are read again for each of the K.
// Adjoint   routeBackward.
#include "common/logits.cuh"
#include "common/rank.cuh"
#include "common/route_rule.cuh"
#include "common/special.cuh"

namespace {

using rank::Pick;

constexpr int kThreads = 128;
constexpr int kTokens = kThreads / 32;
constexpr int kLaneGroups = 32;
constexpr int kSharedExperts = 2048;

// What one token is routed from and to, beside its logits.
struct Token {
    const RouteRule& rule;
    const float* selection_bias;
    int* ids;
    float* weights;
    float* best_score;
    int lane;
};

// What scores are relative to.
struct Scale {
    double max;    // largest logit that is a number
    float sum;     // of exp(logit - max), of a softmax where it is needed
    bool any_nan;  // among the logits
};

__device__ __forceinline__ bool by_score(const Token& token) {
    const RouteRule& rule = token.rule;
    return token.selection_bias != nullptr ||
           (rule.selection == route_rule::kGroupLimited && rule.group_score == route_rule::kTop2Sum);
}

// Whether the weights are a softmax over the selected logits alone.
__device__ __forceinline__ bool over_selected(const RouteRule& rule) {
    return rule.score == route_rule::kSoftmax && rule.normalisation == route_rule::kSum && rule.parameter == 0.0;
}

// The argument of a softmax's exp; at an infinite maximum it is the limit, all equal at the maximum.
template <class Value>
__device__ __forceinline__ float below(Value logit, Value max) {
    return logit == max ? 0.0f : static_cast<float>(logit - max);
}

template <class Logits>
__device__ Scale scale_of(const Logits& logits, const Token& token) {
    using Value = typename Logits::Value;
    using Key = typename Logits::Key;
    const RouteRule& rule = token.rule;
    Scale scale = {0.0, 1.0f, false};
    bool scores_all = by_score(token) || token.best_score != nullptr;
    if (!scores_all && (rule.score != route_rule::kSoftmax || over_selected(rule))) {
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
    if (rule.score == route_rule::kSoftmax) {
        float sum = 0.0f;
        logits.for_each(token.lane, [&](int, Value logit) {
            if (logit == logit) {
                sum += expf(below(logit, max));
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

// What an expert is ordered by; of a NaN logit it is NaN.
template <class Value>
__device__ __forceinline__ Value candidate(int id, Value logit, const Scale& scale, const Token& token) {
    if (!by_score(token)) {
        return logit;
    }
    bool softmax = token.rule.score == route_rule::kSoftmax;
    float power = expf(softmax ? below(logit, static_cast<Value>(scale.max)) : static_cast<float>(-logit));
    float score = (softmax ? power : 1.0f) / (softmax ? scale.sum : 1.0f + power);
    return token.selection_bias == nullptr ? score : score + token.selection_bias[id];
}

// ---- Selection among keys that are kept, each by its lane

// Expert id is in lane id % 32. Loops over registers must be unrolled, since registers cannot be indexed.
template <int per_lane>
struct RegisterKeys {
    uint32_t at[per_lane];

    template <class Visit>
    __device__ __forceinline__ void for_each(int lane, Visit visit) {
#pragma unroll
        for (int i = 0; i < per_lane; i++) {
            visit(lane + 32 * i, at[i]);
        }
    }
};

// In shared memory, for more experts than there are registers to spare.
struct SharedKeys {
    uint32_t* at;
    int count;

    template <class Visit>
    __device__ __forceinline__ void for_each(int lane, Visit visit) {
        for (int id = lane; id < count; id += 32) {
            visit(id, at[id]);
        }
    }
};

// The best candidate that ranks after previous, of the experts from..to-1.
template <class Keys>
__device__ __forceinline__ Pick<uint32_t> next_best(Keys& keys, const Pick<uint32_t>& previous, int from, int to, int lane) {
    Pick<uint32_t> best = Pick<uint32_t>::none();
    keys.for_each(lane, [&](int id, uint32_t key) {
        if (id >= from && id < to) {
            rank::offer(best, previous, key, id);
        }
    });
    return rank::best_of_warp(best);
}

// Makes the experts absent whose group is not among the best. Lane g judges group g.
template <class Keys>
__device__ void keep_best_groups(Keys& keys, const RouteRule& rule, int lane) {
    int width = rule.num_experts / rule.num_groups;
    bool by_sum = rule.group_score == route_rule::kTop2Sum && width > 1;
    uint32_t own = rank::kAbsent;
#pragma unroll 1
    for (int group = 0; group < rule.num_groups; group++) {
        Pick<uint32_t> last = Pick<uint32_t>::before_all();
        uint32_t judged = rank::kAbsent;
#pragma unroll 1
        for (int i = 0; i < (by_sum ? 2 : 1); i++) {
            last = next_best(keys, last, group * width, group * width + width, lane);
            judged = i == 0 ? last.key : rank::key_of(rank::value_of(judged) + rank::value_of(last.key));
        }
        own = lane == group ? judged : own;
    }
    RegisterKeys<1> groups = {{own}};
    Pick<uint32_t> last = Pick<uint32_t>::before_all();
#pragma unroll 1
    for (int i = 0; i < rule.top_groups; i++) {
        last = next_best(groups, last, 0, rule.num_groups, lane);
    }
    uint32_t kept = __ballot_sync(rank::kAllLanes, !Pick<uint32_t>{own, lane}.ranks_after(last));
    keys.for_each(lane, [&](int id, uint32_t& key) {
        if (id < rule.num_experts && !(kept >> (id / width) & 1)) {
            key = rank::kAbsent;
        }
    });
}

template <class Keys>
__device__ void select(Keys& keys, const Token& token) {
    const RouteRule& rule = token.rule;
    if (rule.selection == route_rule::kGroupLimited) {
        keep_best_groups(keys, rule, token.lane);
    }
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
#pragma unroll 1
    for (int k = 0; k < rule.top_k; k++) {
        pick = next_best(keys, pick, 0, rule.num_experts, token.lane);
        if (token.lane == k % 32) {
            token.ids[k] = pick.id;
        }
    }
}

template <int per_lane>
__device__ Scale route_in_registers(const logits::Row& row, const Token& token) {
    logits::Registers<per_lane> logits(row, token.lane);
    Scale scale = scale_of(logits, token);
    RegisterKeys<per_lane> keys;
#pragma unroll
    for (int i = 0; i < per_lane; i++) {
        int id = token.lane + 32 * i;
        keys.at[i] = id < row.count ? rank::key_of(candidate(id, logits.values[i], scale, token)) : rank::kAbsent;
    }
    select(keys, token);
    return scale;
}

__device__ Scale route_in_shared(const logits::Row& row, uint32_t* memory, const Token& token) {
    Scale scale = scale_of(row, token);
    SharedKeys keys = {memory, row.count};
    row.for_each(token.lane,
                 [&](int id, float logit) { memory[id] = rank::key_of(candidate(id, logit, scale, token)); });
    select(keys, token);
    return scale;
}

// ---- Selection that computes candidates again whenever it needs them

// The best candidate of the experts from, from + step, ... that ranks after previous.
__device__ Pick<uint32_t> next_of(const logits::Row& logits, const Scale& scale, const Token& token,
                                  const Pick<uint32_t>& previous, int from, int to, int step) {
    Pick<uint32_t> best = Pick<uint32_t>::none();
#pragma unroll 1
    for (long long id = from; id < to; id += step) {
        int expert = static_cast<int>(id);
        rank::offer(best, previous, rank::key_of(candidate(expert, logits.at(expert), scale, token)), expert);
    }
    return best;
}

__device__ uint32_t judge_group(const logits::Row& logits, const Scale& scale, const Token& token, int group, int width) {
    int from = group * width;
    Pick<uint32_t> first = next_of(logits, scale, token, Pick<uint32_t>::before_all(), from, from + width, 1);
    if (token.rule.group_score == route_rule::kMax || width == 1) {
        return first.key;
    }
    Pick<uint32_t> second = next_of(logits, scale, token, first, from, from + width, 1);
    return rank::key_of(rank::value_of(first.key) + rank::value_of(second.key));
}

// Each lane judges groups, and judges them again whenever it needs to know: there may be as many as experts.
__device__ void select_in_groups(const logits::Row& logits, const Scale& scale, const Token& token) {
    const RouteRule& rule = token.rule;
    int width = rule.num_experts / rule.num_groups;
    Pick<uint32_t> last = Pick<uint32_t>::before_all();
    for (int i = 0; i < rule.top_groups; i++) {
        Pick<uint32_t> best = Pick<uint32_t>::none();
        for (int group = token.lane; group < rule.num_groups; group += 32) {
            rank::offer(best, last, judge_group(logits, scale, token, group, width), group);
        }
        last = rank::best_of_warp(best);
    }
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
    for (int k = 0; k < rule.top_k; k++) {
        Pick<uint32_t> best = Pick<uint32_t>::none();
        for (int group = token.lane; group < rule.num_groups; group += 32) {
            Pick<uint32_t> judged = {judge_group(logits, scale, token, group, width), group};
            if (!judged.ranks_after(last)) {
                Pick<uint32_t> own = next_of(logits, scale, token, pick, group * width, group * width + width, 1);
                best = own.key > best.key ? own : best;
            }
        }
        pick = rank::best_of_warp(best);
        if (token.lane == k % 32) {
            token.ids[k] = pick.id;
        }
    }
}

__device__ void select_again(const logits::Row& logits, const Scale& scale, const Token& token) {
    if (token.rule.selection == route_rule::kGroupLimited) {
        select_in_groups(logits, scale, token);
        return;
    }
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
    for (int k = 0; k < token.rule.top_k; k++) {
        pick = rank::best_of_warp(next_of(logits, scale, token, pick, token.lane, token.rule.num_experts, 32));
        if (token.lane == k % 32) {
            token.ids[k] = pick.id;
        }
    }
}

// ---- Product keys

// The largest number among the second halves: with it, no sum of a row can be greater than the row's bound.
__device__ double largest_second(const logits::ProductKeys& logits, int lane) {
    Pick<uint32_t> best = Pick<uint32_t>::none();
    for (int j = lane; j < logits.count; j += 32) {
        rank::offer(best, Pick<uint32_t>::before_all(), rank::key_of(logits.second[j]), j);
    }
    return rank::value_of(rank::best_of_warp(best).key);
}

__device__ void select_sums(const logits::ProductKeys& logits, const Scale& scale, const Token& token) {
    using Best = Pick<uint64_t>;
    // Bounds are of logits; a bias is added to scores. A NaN bound holds for no row, since -infinity may meet infinity.
    double bound = by_score(token) ? special::infinity() : largest_second(logits, token.lane);
    Best pick = Best::before_all();
    for (int k = 0; k < token.rule.top_k; k++) {
        Best best = Best::none();
        for (int i = token.lane; i < logits.count; i += 32) {
            uint64_t most = rank::key_of(static_cast<double>(logits.first[i]) + bound);
            if (most != rank::kNan && most <= best.key) {
                continue;
            }
#pragma unroll 1
            for (int j = 0; j < logits.count; j++) {
                int id = i * logits.count + j;
                rank::offer(best, pick, rank::key_of(candidate(id, logits.at(id), scale, token)), id);
            }
        }
        pick = rank::best_of_warp(best);
        if (token.lane == k % 32) {
            token.ids[k] = pick.id;
        }
    }
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

// The largest selected logit, NaN if one of them is.
__device__ double largest_selected(const LogitOf& logit_of, const Token& token) {
    double largest = -special::infinity();
    bool nan = false;
    for (int k = token.lane; k < token.rule.top_k; k += 32) {
        double logit = logit_of(token.ids[k]);
        nan |= logit != logit;
        largest = fmax(largest, logit);
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        largest = fmax(largest, __shfl_xor_sync(rank::kAllLanes, largest, distance));
    }
    return __any_sync(rank::kAllLanes, nan) ? special::nan() : largest;
}

// Weighs the selected experts; each lane the ids that it wrote itself.
__device__ void weigh(const LogitOf& logit_of, const Scale& scale, const Token& token) {
    const RouteRule& rule = token.rule;
    bool softmax = rule.score == route_rule::kSoftmax;
    double max = over_selected(rule) ? largest_selected(logit_of, token) : scale.max;
    double undefined = special::nan();
    double all = over_selected(rule) ? 1.0 : is_undefined(rule, scale) ? undefined : static_cast<double>(scale.sum);
    double divisor = 1.0;
    double factor = rule.normalise_later ? 1.0 : rule.factor;
    // Once for the sum, once for the weights: K may exceed the lanes.
#pragma unroll 1
    for (int pass = rule.normalise_later ? 1 : 0; pass < 2; pass++) {
        double sum = 0.0;
#pragma unroll 1
        for (int k = token.lane; k < rule.top_k; k += 32) {
            double logit = logit_of(token.ids[k]);
            double power = exp(softmax ? logit - max : -logit);
            double score = softmax ? power / all : 1.0 / (1.0 + power);
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

__device__ void write_best_score(const Scale& scale, const Token& token) {
    if (token.best_score == nullptr || token.lane != 0) {
        return;
    }
    bool softmax = token.rule.score == route_rule::kSoftmax;
    float best = softmax ? 1.0f / scale.sum : static_cast<float>(1.0 / (1.0 + exp(-scale.max)));
    *token.best_score = scale.any_nan || is_undefined(token.rule, scale) ? special::nan() : best;
}

// Two argmaxes, each with a softmax over the experts near it (Phi-3.5-MoE).
__device__ void route_by_sparse_mixer(const logits::Row& logits, const Token& token) {
    const RouteRule& rule = token.rule;
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
    int taken = -1;
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

__device__ void route_nowhere(const Token& token) {
    for (int k = token.lane; k < token.rule.top_k; k += 32) {
        token.ids[k] = -1;
        token.weights[k] = 0.0f;
    }
    if (token.best_score != nullptr && token.lane == 0) {
        *token.best_score = 0.0f;
    }
}

__device__ Scale route_row(const logits::Row& row, uint32_t* memory, const Token& token) {
    const RouteRule& rule = token.rule;
    bool many_groups = rule.selection == route_rule::kGroupLimited && rule.num_groups > kLaneGroups;
    if (row.count > kSharedExperts || many_groups) {
        Scale scale = scale_of(row, token);
        select_again(row, scale, token);
        return scale;
    }
    if (row.count > 512) {
        return route_in_shared(row, memory, token);
    }
    if (row.count > 256) {
        return route_in_registers<16>(row, token);
    }
    if (row.count > 128) {
        return route_in_registers<8>(row, token);
    }
    if (row.count > 64) {
        return route_in_registers<4>(row, token);
    }
    return route_in_registers<2>(row, token);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    route(const float* __restrict__ logits, const float* __restrict__ selection_bias, const int* __restrict__ token_types,
          int* __restrict__ topk_ids, float* __restrict__ topk_weights, float* __restrict__ best_scores, int tokens,
          const __grid_constant__ RouteRule rule) {
    JMOE_SHARED(uint32_t, keys_of_warps, [kTokens][kSharedExperts]);
    long long index = static_cast<long long>(blockIdx.x) * kTokens + threadIdx.x / 32;
    if (index >= tokens) {
        return;
    }
    Token token = {rule,
                   selection_bias,
                   topk_ids + index * rule.top_k,
                   topk_weights + index * rule.top_k,
                   best_scores == nullptr ? nullptr : best_scores + index,
                   static_cast<int>(threadIdx.x % 32)};
    // A router of one type always has types. A negative type means that the token is absent.
    int type = token_types == nullptr ? 0 : token_types[index];
    if (type < 0 || (rule.token_type != -1 && type != rule.token_type)) {
        route_nowhere(token);
        return;
    }
    if (rule.selection == route_rule::kSparseMixer) {
        route_by_sparse_mixer({logits + index * rule.num_experts, rule.num_experts}, token);
        return;
    }
    Scale scale;
    LogitOf logit_of = {logits + index * rule.num_logits, nullptr, rule.num_keys};
    if (rule.selection == route_rule::kProductKeys) {
        logit_of.first = logits + index * rule.num_keys;
        logit_of.second = logit_of.first + static_cast<long long>(tokens) * rule.num_keys;
        logits::ProductKeys keys = {logit_of.first, logit_of.second, rule.num_keys};
        scale = scale_of(keys, token);
        select_sums(keys, scale, token);
    } else {
        scale = route_row({logit_of.first, rule.num_experts}, keys_of_warps[threadIdx.x / 32], token);
    }
    weigh(logit_of, scale, token);
    write_best_score(scale, token);
}
JMOE_EXPORT(route, kThreads, kTokens, 0);
