// At most limit slots per queue, of an expert or of a device: the k-th choices of all tokens queue behind all earlier choices,
// or all slots by weight; what comes later goes elsewhere or gets weight 0
//
// Shapes    best_scores, order, protected_tokens [tokens]; topkIds, topkWeights, asks, keys, placed [tokens, topK]; ranked
//           [tokens, num_ranked]; used [queues]. Where slots queue by weight, order and drop are given slots for tokens, and a
//           topK of 1.
// Grid      order, ask, normalise: ceil(tokens / items_per_block); drop: one block per queue; move: one block.
// Numerics  comparisons and integers; weights in F64, rounded once.
// Requires  order null if tokens queue by position; ranked null if slots move to neighbours; protected_tokens null if there are
//           none.
// Adjoint   none: what is dropped has no gradient.
//
// order ranks each token by counting those before it, drop reads all ids once per expert: quadratic in the tokens and linear
// in the experts, but without scratch memory, and cheap beside the layer for as many tokens as have a capacity. Where slots
// move, each depends on those before it: move lets one thread decide, but gathers those that still wait in parallel.
#include "common/route_token.cuh"
#include "common/split_mix.cuh"

namespace {

constexpr int kThreads = 256;
constexpr int kDropThreads = 512;
constexpr int kDropWarps = kDropThreads / 32;
constexpr int kDropBatch = 4;

// NaN first, then by falling score.
__device__ __forceinline__ uint32_t queue_key(float score) {
    uint32_t key = rank::key_of(score);
    return key == rank::kNan ? 0xffffffffu : key;
}

// How many of the threads before this one say yes, of all warps; total gets the number of all.
__device__ int count_before(bool yes, int* warp_counts, int* total) {
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    uint32_t votes = __ballot_sync(rank::kAllLanes, yes);
    if (lane == 0) {
        warp_counts[warp] = __popc(votes);
    }
    __syncthreads();
    int before = __popc(votes & ((1u << lane) - 1));
    int all = 0;
    for (int other = 0; other < kDropWarps; other++) {
        before += other < warp ? warp_counts[other] : 0;
        all += warp_counts[other];
    }
    __syncthreads();
    *total = all;
    return before;
}

// How a slot asks that has a place in a queue whatever the limit.
__device__ __forceinline__ int protected_in(int queue) {
    return -2 - queue;
}

// What comes at a place of the queues of all slots.
__device__ __forceinline__ int slot_at(const int* order, bool by_slot, int place, int tokens, int top_k) {
    if (by_slot) {
        return order[place];
    }
    int token = place % tokens;
    return (order == nullptr ? token : order[token]) * top_k + place / tokens;
}

// e + 1, e - 1, e + 2, ... modulo the number of experts, from round 1 on.
__device__ __forceinline__ int neighbour(int expert, int round, int num_experts) {
    int distance = (round / 2 + round % 2) % num_experts;
    return (expert + (round % 2 == 1 ? distance : num_experts - distance)) % num_experts;
}

// What one slot needs to move.
struct Mover {
    const RouteRule& rule;
    int* topk_ids;
    float* topk_weights;
    float* placed;
    const int* ranked;
    const float* logits;
    int* used;
    int tokens;
    int num_ranked;
    int experts_per_queue;
    long long limit;

    __device__ double logit(int token, int id) const {
        long long width = rule.selection == route_rule::kProductKeys ? rule.num_keys : rule.num_experts;
        const float* first = logits + token * width;
        bool keys = rule.selection == route_rule::kProductKeys;
        return route_token::LogitOf{first, keys ? first + tokens * width : nullptr, rule.num_keys}(id);
    }

    // Score of one logit / score of another; 1 for equals, infinite ones too.
    __device__ double ratio(double logit, double other) const {
        if (logit == other) {
            return 1.0;
        }
        return rule.score == route_rule::kSoftmax ? exp(logit - other) : (1.0 + exp(-other)) / (1.0 + exp(-logit));
    }

    __device__ bool has(int token, int id) const {
        const int* own = topk_ids + static_cast<long long>(token) * rule.top_k;
        for (int k = 0; k < rule.top_k; k++) {
            if (own[k] == id) {
                return true;
            }
        }
        return false;
    }

    __device__ void move(int slot, int round) const {
        int token = slot / rule.top_k;
        int from = topk_ids[slot];
        double scale = 1.0;
        int to;
        if (ranked == nullptr) {
            to = neighbour(from, round, rule.num_experts);
        } else {
            to = ranked[static_cast<long long>(token) * num_ranked + rule.top_k + round - 1];
            if (to < 0) {  // no more experts are active
                return;
            }
            double next = logit(token, to);
            if (next != next) {
                return;
            }
            scale = ratio(next, logit(token, from));
        }
        int* queue = used + to / experts_per_queue;
        if (*queue >= limit || has(token, to)) {
            return;
        }
        *queue += 1;
        topk_ids[slot] = to;
        placed[slot] = 1.0f;
        float weight = topk_weights[slot];
        topk_weights[slot] = weight == 0.0f ? 0.0f : route_rule::stored(weight * scale);
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    route_capacity_order(const float* __restrict__ best_scores, int* __restrict__ order, int tokens) {
    JMOE_SHARED(uint32_t, keys, [kThreads]);
    long long token = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    uint32_t own = token < tokens ? queue_key(best_scores[token]) : 0;
    int place = 0;
    for (long long base = 0; base < tokens; base += kThreads) {
        long long other = base + threadIdx.x;
        keys[threadIdx.x] = other < tokens ? queue_key(best_scores[other]) : 0;
        __syncthreads();
        int count = static_cast<int>(min(static_cast<long long>(kThreads), tokens - base));
#pragma unroll 8
        for (int i = 0; i < count; i++) {
            place += keys[i] > own || (keys[i] == own && base + i < token);
        }
        __syncthreads();
    }
    if (token < tokens) {
        order[place] = static_cast<int>(token);
    }
}
JMOE_EXPORT(route_capacity_order, kThreads, kThreads, 0);

extern "C" __global__ void __launch_bounds__(kDropThreads, 1)
    route_capacity_drop(const int* __restrict__ topk_ids, const int* __restrict__ order, float* __restrict__ topk_weights,
                        int tokens, int top_k, int num_experts, int protects, long long limit) {
    JMOE_SHARED(int, warp_counts, [kDropWarps]);
    int expert = static_cast<int>(blockIdx.x);
    if (expert >= num_experts) {
        return;
    }
    long long queued = 0;
    long long slots = static_cast<long long>(tokens) * top_k;
    for (long long base = 0; protects != 0 && base < slots; base += kDropThreads) {
        long long slot = base + threadIdx.x;
        int total;
        count_before(slot < slots && topk_ids[slot] == protected_in(expert), warp_counts, &total);
        queued += total;
    }
    for (int k = 0; k < top_k; k++) {
        for (long long base = 0; base < tokens; base += kDropThreads * kDropBatch) {
            // Loads of several tokens are in flight together.
            int waiting[kDropBatch];
            bool wants[kDropBatch];
#pragma unroll
            for (int i = 0; i < kDropBatch; i++) {
                long long place = base + i * kDropThreads + threadIdx.x;
                bool exists = place < tokens;
                waiting[i] = exists && order != nullptr ? order[place] : static_cast<int>(place);
                wants[i] = exists && topk_ids[static_cast<long long>(waiting[i]) * top_k + k] == expert;
            }
#pragma unroll
            for (int i = 0; i < kDropBatch && base + i * kDropThreads < tokens; i++) {
                int total;
                int before = count_before(wants[i], warp_counts, &total);
                if (wants[i] && queued + before >= limit) {
                    topk_weights[static_cast<long long>(waiting[i]) * top_k + k] = 0.0f;
                }
                queued += total;
            }
        }
    }
}
JMOE_EXPORT(route_capacity_drop, kDropThreads, 1, 0);

extern "C" __global__ void __launch_bounds__(kThreads)
    route_capacity_normalise(float* __restrict__ topk_weights, int tokens, RouteRule rule) {
    long long token = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (token >= tokens) {
        return;
    }
    float* weights = topk_weights + token * rule.top_k;
    double sum = 0.0;
    for (int k = 0; k < rule.top_k; k++) {
        sum += route_rule::term(rule, weights[k]);
    }
    double divisor = route_rule::divisor(rule, sum);
    for (int k = 0; k < rule.top_k; k++) {
        if (weights[k] != 0.0f) {
            weights[k] = route_rule::stored(weights[k] / divisor * rule.factor);
        }
    }
}
JMOE_EXPORT(route_capacity_normalise, kThreads, kThreads, 0);

// Which queue each slot asks, -1 for none: random routing leaves out some, with weight 0. Protected ones say that they are.
// keys are the weights that slots have if nothing is dropped, or null; placed is set to 1, unless null.
extern "C" __global__ void __launch_bounds__(kThreads)
    route_capacity_ask(const int* __restrict__ topk_ids, float* __restrict__ topk_weights,
                       const int* __restrict__ protected_tokens, int* __restrict__ asks,
                       float* __restrict__ keys, float* __restrict__ placed, int tokens, int experts_per_queue,
                       long long seed, double threshold, RouteRule rule) {
    long long token = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (token >= tokens) {
        return;
    }
    long long first = token * rule.top_k;
    double sum = 0.0;
    double terms = 0.0;
    for (int k = 0; k < rule.top_k; k++) {
        sum += topk_weights[first + k];
        terms += route_rule::term(rule, topk_weights[first + k]);
    }
    double divisor = rule.normalise_later ? route_rule::divisor(rule, terms) : 1.0;
    double factor = rule.normalise_later ? rule.factor : 1.0;
    bool is_protected = protected_tokens != nullptr && protected_tokens[token] != 0;
    for (long long slot = first; slot < first + rule.top_k; slot++) {
        double weight = topk_weights[slot];
        if (keys != nullptr) {
            keys[slot] = route_rule::stored(weight / divisor * factor);
        }
        if (placed != nullptr) {
            placed[slot] = 1.0f;
        }
        int id = topk_ids[slot];
        bool asked = id >= 0;
        // A threshold of 0 stands for none.
        if (asked && !is_protected && slot > first && threshold > 0.0 && split_mix::uniform(seed, slot) * threshold >= weight / sum) {
            asked = false;
            topk_weights[slot] = 0.0f;
        }
        int queue = id / experts_per_queue;
        asks[slot] = !asked ? -1 : is_protected ? protected_in(queue) : queue;
    }
}
JMOE_EXPORT(route_capacity_ask, kThreads, kThreads, 0);

// placed is 0 for slots that found no place at their own expert. Those of them that find none elsewhere get weight 0.
extern "C" __global__ void __launch_bounds__(kDropThreads, 1)
    route_capacity_move(int* __restrict__ topk_ids, float* __restrict__ topk_weights, const int* __restrict__ asks,
                        float* __restrict__ placed, const int* __restrict__ order, const int* __restrict__ ranked,
                        const float* __restrict__ logits, int* __restrict__ used, int tokens, int rounds, int num_ranked,
                        int experts_per_queue, int by_slot, long long limit, const __grid_constant__ RouteRule rule) {
    JMOE_SHARED(int, warp_counts, [kDropWarps]);
    JMOE_SHARED(int, waiting, [kDropThreads]);
    int slots = tokens * rule.top_k;
    for (int queue = threadIdx.x; queue < rule.num_experts / experts_per_queue; queue += kDropThreads) {
        used[queue] = 0;
    }
    __syncthreads();
    for (long long slot = threadIdx.x; slot < slots; slot += kDropThreads) {
        if (asks[slot] != -1 && placed[slot] != 0.0f) {
            atomicAdd(used + (asks[slot] >= 0 ? asks[slot] : protected_in(asks[slot])), 1);
        }
    }
    __syncthreads();
    Mover mover = {rule, topk_ids, topk_weights, placed,     ranked,            logits,
                   used, tokens,   num_ranked,   experts_per_queue, limit};
    for (int round = 1; round <= rounds; round++) {
        for (long long base = 0; base < slots; base += kDropThreads) {
            bool exists = threadIdx.x < slots - base;
            int place = static_cast<int>(base + threadIdx.x);
            int slot = exists ? slot_at(order, by_slot != 0, place, tokens, rule.top_k) : 0;
            bool waits = exists && asks[slot] >= 0 && placed[slot] == 0.0f;
            int total;
            int before = count_before(waits, warp_counts, &total);
            if (waits) {
                waiting[before] = slot;
            }
            __syncthreads();
            for (int i = 0; threadIdx.x == 0 && i < total; i++) {
                mover.move(waiting[i], round);
            }
            __syncthreads();
        }
    }
    for (long long slot = threadIdx.x; slot < slots; slot += kDropThreads) {
        if (asks[slot] >= 0 && placed[slot] == 0.0f) {
            topk_weights[slot] = 0.0f;
        }
    }
}
JMOE_EXPORT(route_capacity_move, kDropThreads, 1, 0);
