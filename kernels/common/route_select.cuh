// The experts of one token, chosen by one warp from a row of logits. The keys of the candidates stay in registers, or in memory
// that the caller lends; where neither is enough, they are computed again for each choice.
#pragma once

#include "route_token.cuh"

namespace route_select {

using rank::Pick;
using route_token::Scale;
using route_token::Selected;
using route_token::Token;

constexpr int kLaneGroups = 32;

// Up to so many experts are kept in registers; fewer if they are ordered by scores, which take registers to compute.
constexpr int kRegisterExperts = 512;
constexpr int kScoredRegisterExperts = 256;

__device__ __forceinline__ bool in_registers(const RouteRule& rule, const float* selection_bias) {
    if (!route_token::by_score(rule, selection_bias)) {
        return rule.num_experts <= kRegisterExperts;
    }
    return rule.num_experts <= kScoredRegisterExperts && rule.score != route_rule::kSqrtSoftplus;
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

// Writes down the k-th choice; a lane remembers the first of its own.
__device__ __forceinline__ void note(int k, int id, int& first, const Token& token) {
    if (token.lane == k % 32) {
        token.ids[k] = id;
        first = k < 32 ? id : first;
    }
}

// The best candidate that ranks after previous.
template <class Keys>
__device__ __forceinline__ Pick<uint32_t> next_best(Keys& keys, const Pick<uint32_t>& previous, int lane) {
    Pick<uint32_t> best = Pick<uint32_t>::none();
    keys.for_each(lane, [&](int id, uint32_t key) { rank::offer(best, previous, key, id); });
    return rank::best_of_warp(best);
}

// The same of the experts from..to-1.
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

// What a group with these two best is judged by.
__device__ __forceinline__ uint32_t sum_of_two(uint32_t first, uint32_t second) {
    return rank::key_of(rank::value_of(first) + rank::value_of(second));
}

// The key by which group g is judged, in lane g.
template <class Keys>
__device__ __forceinline__ uint32_t judge_groups(Keys& keys, const RouteRule& rule, bool by_sum, int lane) {
    int width = rule.num_experts / rule.num_groups;
    uint32_t own = rank::kAbsent;
#pragma unroll 1
    for (int group = 0; group < rule.num_groups; group++) {
        Pick<uint32_t> first = next_best(keys, Pick<uint32_t>::before_all(), group * width, group * width + width, lane);
        uint32_t judged = first.key;
        if (by_sum) {
            judged = sum_of_two(judged, next_best(keys, first, group * width, group * width + width, lane).key);
        }
        own = lane == group ? judged : own;
    }
    return own;
}

// Groups of 32 lie in one register each: all are judged at once.
template <int per_lane>
__device__ __forceinline__ uint32_t judge_registers(const RegisterKeys<per_lane>& keys, bool by_sum, int lane) {
    uint32_t own = rank::kAbsent;
#pragma unroll
    for (int group = 0; group < per_lane; group++) {
        uint32_t judged = __reduce_max_sync(rank::kAllLanes, keys.at[group]);
        if (by_sum) {
            int leader = __ffs(__ballot_sync(rank::kAllLanes, keys.at[group] == judged)) - 1;
            uint32_t others = lane == leader ? rank::kAbsent : keys.at[group];
            judged = sum_of_two(judged, __reduce_max_sync(rank::kAllLanes, others));
        }
        own = lane == group ? judged : own;
    }
    return own;
}

template <int per_lane>
__device__ __forceinline__ uint32_t judge_all(RegisterKeys<per_lane>& keys, const RouteRule& rule, bool by_sum, int lane) {
    bool by_register = rule.num_experts == 32 * rule.num_groups;
    return by_register ? judge_registers(keys, by_sum, lane) : judge_groups(keys, rule, by_sum, lane);
}

__device__ __forceinline__ uint32_t judge_all(SharedKeys& keys, const RouteRule& rule, bool by_sum, int lane) {
    return judge_groups(keys, rule, by_sum, lane);
}

// Makes the experts absent whose group is not among the best.
template <class Keys>
__device__ void keep_best_groups(Keys& keys, const RouteRule& rule, int lane) {
    int width = rule.num_experts / rule.num_groups;
    bool by_sum = rule.group_score == route_rule::kTop2Sum && width > 1;
    Pick<uint32_t> own = {judge_all(keys, rule, by_sum, lane), lane};
    int before = 0;
#pragma unroll 4
    for (int group = 0; group < rule.num_groups; group++) {
        Pick<uint32_t> other = {__shfl_sync(rank::kAllLanes, own.key, group), group};
        before += own.ranks_after(other);
    }
    uint32_t kept = __ballot_sync(rank::kAllLanes, before < rule.top_groups);
    keys.for_each(lane, [&](int id, uint32_t& key) {
        if (id < rule.num_experts && !(kept >> (id / width) & 1)) {
            key = rank::kAbsent;
        }
    });
}

// Returns the id that this lane remembers.
template <class Keys>
__device__ int select(Keys& keys, const Token& token) {
    const RouteRule& rule = token.rule;
    if (rule.selection == route_rule::kGroupLimited) {
        keep_best_groups(keys, rule, token.lane);
    }
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
    int first = -1;
#pragma unroll 1
    for (int k = 0; k < rule.top_k; k++) {
        pick = next_best(keys, pick, token.lane);
        note(k, pick.id, first, token);
    }
    return first;
}

template <int per_lane>
__device__ Selected route_in_registers(const logits::Row& row, const Token& token) {
    constexpr bool may_score = 32 * per_lane <= kScoredRegisterExperts;
    // Biases are asked for before anything is computed, so that they come together with the logits.
    float biases[per_lane];
#pragma unroll
    for (int i = 0; i < per_lane && may_score; i++) {
        int id = token.lane + 32 * i;
        biases[i] = id < row.count ? bias_of(id, token) : 0.0f;
    }
    logits::Registers<per_lane> logits(row, token.lane);
    Scale scale = scale_of(logits, token);
    RegisterKeys<per_lane> keys;
#pragma unroll
    for (int i = 0; i < per_lane; i++) {
        int id = token.lane + 32 * i;
        float own = logits.values[i];
        if constexpr (may_score) {
            own = candidate<false>(own, biases[i], scale, token);
        }
        keys.at[i] = id < row.count ? rank::key_of(own) : rank::kAbsent;
    }
    return {scale, select(keys, token)};
}

__device__ __forceinline__ Selected route_in_memory(const logits::Row& row, uint32_t* memory, const Token& token) {
    Scale scale = scale_of(row, token);
    SharedKeys keys = {memory, row.count};
    row.for_each(token.lane,
                 [&](int id, float logit) { memory[id] = rank::key_of(candidate(logit, bias_of(id, token), scale, token)); });
    return {scale, select(keys, token)};
}

// ---- Selection that computes candidates again whenever it needs them: seldom, so its loops stay small

// The best candidate of the experts from, from + step, ... that ranks after previous.
__device__ __forceinline__ Pick<uint32_t> next_of(const logits::Row& logits, const Scale& scale, const Token& token,
                                                     const Pick<uint32_t>& previous, int from, int to, int step) {
    Pick<uint32_t> best = Pick<uint32_t>::none();
#pragma unroll 1
    for (long long id = from; id < to; id += step) {
        int expert = static_cast<int>(id);
        rank::offer(best, previous, rank::key_of(candidate(logits.at(expert), bias_of(expert, token), scale, token)), expert);
    }
    return best;
}

__device__ __forceinline__ uint32_t judge_group(const logits::Row& logits, const Scale& scale, const Token& token, int group,
                                                int width) {
    int from = group * width;
    Pick<uint32_t> first = next_of(logits, scale, token, Pick<uint32_t>::before_all(), from, from + width, 1);
    if (token.rule.group_score == route_rule::kMax || width == 1) {
        return first.key;
    }
    Pick<uint32_t> second = next_of(logits, scale, token, first, from, from + width, 1);
    return sum_of_two(first.key, second.key);
}

// Each lane judges groups, and judges them again whenever it needs to know: there may be as many as experts. Returns the id
// that this lane remembers, as select does.
__device__ __forceinline__ int select_in_groups(const logits::Row& logits, const Scale& scale, const Token& token) {
    const RouteRule& rule = token.rule;
    int width = rule.num_experts / rule.num_groups;
    Pick<uint32_t> last = Pick<uint32_t>::before_all();
#pragma unroll 1
    for (int i = 0; i < rule.top_groups; i++) {
        Pick<uint32_t> best = Pick<uint32_t>::none();
#pragma unroll 1
        for (int group = token.lane; group < rule.num_groups; group += 32) {
            rank::offer(best, last, judge_group(logits, scale, token, group, width), group);
        }
        last = rank::best_of_warp(best);
    }
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
    int first = -1;
#pragma unroll 1
    for (int k = 0; k < rule.top_k; k++) {
        Pick<uint32_t> best = Pick<uint32_t>::none();
#pragma unroll 1
        for (int group = token.lane; group < rule.num_groups; group += 32) {
            Pick<uint32_t> judged = {judge_group(logits, scale, token, group, width), group};
            if (!judged.ranks_after(last)) {
                Pick<uint32_t> own = next_of(logits, scale, token, pick, group * width, group * width + width, 1);
                best = own.key > best.key ? own : best;
            }
        }
        pick = rank::best_of_warp(best);
        note(k, pick.id, first, token);
    }
    return first;
}

__device__ __forceinline__ int select_again(const logits::Row& logits, const Scale& scale, const Token& token) {
    if (token.rule.selection == route_rule::kGroupLimited) {
        return select_in_groups(logits, scale, token);
    }
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
    int first = -1;
#pragma unroll 1
    for (int k = 0; k < token.rule.top_k; k++) {
        pick = rank::best_of_warp(next_of(logits, scale, token, pick, token.lane, token.rule.num_experts, 32));
        note(k, pick.id, first, token);
    }
    return first;
}

// memory has room for as many keys as room says, and is this warp's alone.
__device__ __forceinline__ Selected route_row(const logits::Row& row, uint32_t* memory, int room, const Token& token) {
    const RouteRule& rule = token.rule;
    bool many_groups = rule.selection == route_rule::kGroupLimited && rule.num_groups > kLaneGroups;
    bool few = in_registers(rule, token.selection_bias);
    if (many_groups || (!few && row.count > room)) {
        Scale scale = scale_of(row, token);
        return {scale, select_again(row, scale, token)};
    }
    if (!few) {
        return route_in_memory(row, memory, token);
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

}  // namespace route_select
