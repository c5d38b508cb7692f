// topkIds, topkWeights: one expert per token, no expert with more than its share, by auction (BASE layers; Bertsekas and Castanon 1989)
//
// Shapes    logits F32 [tokens, E], token_types [tokens] or null, bids F64 [tokens], kept_bids F64, kept_tokens [E, share], prices F64 [E],
//           counts [E], waiting, losing [tokens], topkIds, topkWeights [tokens, 1].
// Grid      auction: one block; weigh: ceil(tokens / items_per_block).
// Numerics  values, prices and bids in F64, added, subtracted and compared only, so that any order of tokens gives the same bits. Weights in
//           F64, rounded once.
// Requires  E share of at least tokens + E entries of kept_bids and kept_tokens.
// Adjoint   routeBackward.
#include "common/route_chosen.cuh"

namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kWeighThreads = 256;
constexpr int kWeighTokens = kWeighThreads / 32;

// What takes the place of an infinite logit among shares of the spread, and of one that is absent.
constexpr double kAbove = 2.0;
constexpr double kBelow = -1.0;

// The finite logits of all tokens that are served.
struct Spread {
    double min;
    double max;

    __device__ __forceinline__ double value(float logit) const {
        if (fabsf(logit) < special::infinity()) {
            return max > min ? (static_cast<double>(logit) - min) / (max - min) : 0.0;
        }
        return logit > 0.0f ? kAbove : kBelow;
    }
};

// The bids that experts keep, each those of share tokens.
struct Kept {
    double* bids;
    int* tokens;
    double* prices;
    int* counts;
    int share;
};

__device__ Spread spread_of(const float* logits, const int* waiting, int count, int num_experts, double* mins, double* maxes) {
    int lane = threadIdx.x % 32;
    float min = special::infinity();
    float max = -special::infinity();
    for (int i = threadIdx.x / 32; i < count; i += kWarps) {
        const float* row = logits + static_cast<long long>(waiting[i]) * num_experts;
        for (int expert = lane; expert < num_experts; expert += 32) {
            float logit = row[expert];
            if (fabsf(logit) < special::infinity()) {
                min = fminf(min, logit);
                max = fmaxf(max, logit);
            }
        }
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        min = fminf(min, __shfl_xor_sync(rank::kAllLanes, min, distance));
        max = fmaxf(max, __shfl_xor_sync(rank::kAllLanes, max, distance));
    }
    if (lane == 0) {
        mins[threadIdx.x / 32] = min;
        maxes[threadIdx.x / 32] = max;
    }
    __syncthreads();
    Spread spread = {mins[0], maxes[0]};
    for (int warp = 1; warp < kWarps; warp++) {
        spread.min = fmin(spread.min, mins[warp]);
        spread.max = fmax(spread.max, maxes[warp]);
    }
    return spread;
}

// A warp finds the expert with the largest profit, of equals the first, and the second largest profit.
struct Profits {
    double most;
    double second;
    int best;

    __device__ __forceinline__ void merge(double other_most, double other_second, int other_best) {
        if (other_most > most || (other_most == most && other_best < best)) {
            second = fmax(most, other_second);
            most = other_most;
            best = other_best;
        } else {
            second = fmax(second, other_most);
        }
    }
};

__device__ double bid_of(const float* row, const Spread& spread, const double* prices, double epsilon, int num_experts, int lane,
                         int* expert) {
    Profits profits = {-special::infinity(), -special::infinity(), 0x7fffffff};
    for (int e = lane; e < num_experts; e += 32) {
        profits.merge(spread.value(row[e]) - prices[e], -special::infinity(), e);
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        double most = __shfl_xor_sync(rank::kAllLanes, profits.most, distance);
        double second = __shfl_xor_sync(rank::kAllLanes, profits.second, distance);
        int best = __shfl_xor_sync(rank::kAllLanes, profits.best, distance);
        profits.merge(most, second, best);
    }
    *expert = profits.best;
    // A single expert has room for all, whatever they bid.
    return num_experts == 1 ? epsilon : spread.value(row[profits.best]) - profits.second + epsilon;
}

// The lowest of the bids that an expert keeps, of equals the latest token's; returns its place.
__device__ int lowest_place(const Kept& kept, long long first, int lane) {
    double bid = special::infinity();
    int token = -1;
    int place = 0;
    for (int i = lane; i < kept.share; i += 32) {
        double other = kept.bids[first + i];
        if (other < bid || (other == bid && kept.tokens[first + i] > token)) {
            bid = other;
            token = kept.tokens[first + i];
            place = i;
        }
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        double other_bid = __shfl_xor_sync(rank::kAllLanes, bid, distance);
        int other_token = __shfl_xor_sync(rank::kAllLanes, token, distance);
        int other_place = __shfl_xor_sync(rank::kAllLanes, place, distance);
        if (other_bid < bid || (other_bid == bid && other_token > token)) {
            bid = other_bid;
            token = other_token;
            place = other_place;
        }
    }
    return place;
}

// A warp keeps a bid for its expert or, if there is a lower one, in the place of that; returns the token that is sent away, -1 for none.
__device__ int keep(const Kept& kept, int expert, double bid, int token, int lane) {
    long long first = static_cast<long long>(expert) * kept.share;
    int count = kept.counts[expert];
    int place = count;
    int away = -1;
    if (count == kept.share) {
        place = lowest_place(kept, first, lane);
        double lowest = kept.bids[first + place];
        away = kept.tokens[first + place];
        if (bid < lowest || (bid == lowest && token > away)) {
            return token;
        }
    }
    __syncwarp();
    if (lane == 0) {
        kept.bids[first + place] = bid;
        kept.tokens[first + place] = token;
        kept.counts[expert] = count < kept.share ? count + 1 : count;
    }
    __syncwarp();
    return away;
}

// A warp keeps what was bid for its expert, lists who is sent away, and sets the price.
__device__ void keep_highest(const Kept& kept, int expert, const double* bids, const int* experts, const int* waiting, int count,
                             int* losing, int* losers, int lane) {
    for (int base = 0; base < count; base += 32) {
        int own = base + lane < count ? waiting[base + lane] : -1;
        uint32_t bidders = __ballot_sync(rank::kAllLanes, own >= 0 && experts[own] == expert);
        while (bidders != 0) {
            int token = __shfl_sync(rank::kAllLanes, own, __ffs(static_cast<int>(bidders)) - 1);
            bidders &= bidders - 1;
            int away = keep(kept, expert, bids[token], token, lane);
            if (away >= 0 && lane == 0) {
                losing[atomicAdd(losers, 1)] = away;
            }
        }
    }
    if (kept.counts[expert] == kept.share) {
        long long first = static_cast<long long>(expert) * kept.share;
        double price = kept.bids[first + lowest_place(kept, first, lane)];
        if (lane == 0) {
            kept.prices[expert] = price;
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    route_balanced_auction(const float* __restrict__ logits, const int* __restrict__ token_types, int* topk_ids, double* bids,
                           double* kept_bids, int* kept_tokens, double* prices, int* counts, int* waiting, int* losing, int tokens,
                           double epsilon, const __grid_constant__ RouteRule rule) {
    JMOE_SHARED(double, mins, [kWarps]);
    JMOE_SHARED(double, maxes, [kWarps]);
    JMOE_SHARED(int, listed, [2]);
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    int num_experts = rule.num_experts;
    if (threadIdx.x < 2) {
        listed[threadIdx.x] = 0;
    }
    for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
        prices[expert] = 0.0;
        counts[expert] = 0;
    }
    __syncthreads();
    for (long long token = threadIdx.x; token < tokens; token += kThreads) {
        if (route_chosen::is_served(rule, token_types, token)) {
            waiting[atomicAdd(&listed[0], 1)] = static_cast<int>(token);
        }
        topk_ids[token] = -1;
    }
    __syncthreads();
    int count = listed[0];
    Spread spread = spread_of(logits, waiting, count, num_experts, mins, maxes);
    Kept kept = {kept_bids, kept_tokens, prices, counts, (count + num_experts - 1) / num_experts};
    for (int round = 1; count > 0; round++) {
        // While this round is counted, nobody reads the other number any more.
        int* losers = &listed[round % 2];
        for (int i = warp; i < count; i += kWarps) {
            int token = waiting[i];
            int expert;
            double bid =
                bid_of(logits + static_cast<long long>(token) * num_experts, spread, prices, epsilon, num_experts, lane, &expert);
            if (lane == 0) {
                topk_ids[token] = expert;
                bids[token] = bid;
            }
        }
        if (threadIdx.x == 0) {
            *losers = 0;
        }
        __syncthreads();
        for (int expert = warp; expert < num_experts; expert += kWarps) {
            keep_highest(kept, expert, bids, topk_ids, waiting, count, losing, losers, lane);
        }
        __syncthreads();
        count = *losers;
        int* other = waiting;
        waiting = losing;
        losing = other;
    }
}
JMOE_EXPORT(route_balanced_auction, kThreads, 1, 0);

extern "C" __global__ void __launch_bounds__(kWeighThreads)
    route_balanced_weigh(const float* __restrict__ logits, int* __restrict__ topk_ids, float* __restrict__ topk_weights, int tokens,
                         const __grid_constant__ RouteRule rule) {
    int lane = threadIdx.x % 32;
    long long token = static_cast<long long>(blockIdx.x) * kWeighTokens + threadIdx.x / 32;
    if (token >= tokens) {
        return;
    }
    int count = __shfl_sync(rank::kAllLanes, lane == 0 && topk_ids[token] >= 0 ? 1 : 0, 0);
    route_chosen::weigh(rule, logits + token * rule.num_experts, topk_ids + token, topk_weights + token, count, lane);
}
JMOE_EXPORT(route_balanced_weigh, kWeighThreads, kWeighTokens, 0);
