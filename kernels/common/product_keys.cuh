// The best sums of product keys, for a warp: expert i n + j has the logit first[i] + second[j].
//
// Where all logits are finite, few rows i and columns j can hold one of the K best sums. With m * m >= K, the m best of either
// half make K sums of at least t = the sum of their last ones. A row belongs to none of the K best if even its sum with the
// largest of the other half is below t, since rounding keeps the order of sums; a column likewise. Rows and columns that are
// left are listed by rising id, so that of equal sums the lower id still wins.
#pragma once

#include "route_select.cuh"

namespace product_keys {

using rank::Pick;
using route_token::Scale;
using route_token::Token;

// Rows or columns that may hold one of the best sums: all, or those that are listed.
struct Listed {
    const uint32_t* ids;  // null for all
    int count;

    __device__ __forceinline__ int at(int index) const { return ids == nullptr ? index : static_cast<int>(ids[index]); }
};

// The largest of a half and the m-th largest.
struct Best {
    float first;
    float last;
};

__device__ __forceinline__ Best best_of_half(const float* half, int count, int m, int lane) {
    Best result = {};
    Pick<uint32_t> pick = Pick<uint32_t>::before_all();
#pragma unroll 1
    for (int p = 0; p < m; p++) {
        Pick<uint32_t> best = Pick<uint32_t>::none();
        for (int i = lane; i < count; i += 32) {
            rank::offer(best, pick, rank::key_of(half[i]), i);
        }
        pick = rank::best_of_warp(best);
        result.last = rank::value_of(pick.key);
        result.first = p == 0 ? result.last : result.first;
    }
    return result;
}

__device__ __forceinline__ bool all_finite(const float* half, int count, int lane) {
    bool finite = true;
    for (int i = lane; i < count; i += 32) {
        finite &= fabsf(half[i]) < special::infinity();
    }
    return __all_sync(rank::kAllLanes, finite);
}

// Lists what reaches the least sum together with the largest of the other half.
__device__ __forceinline__ Listed list(const float* half, int count, double other, double least, uint32_t* ids, int lane) {
    Listed listed = {ids, 0};
    for (int base = 0; base < count; base += 32) {
        int i = base + lane;
        bool kept = i < count && static_cast<double>(half[i]) + other >= least;
        uint32_t lanes = __ballot_sync(rank::kAllLanes, kept);
        if (kept) {
            ids[listed.count + __popc(lanes & ((1u << lane) - 1))] = static_cast<uint32_t>(i);
        }
        listed.count += __popc(lanes);
    }
    return listed;
}

// Returns the id that this lane remembers; rows beyond a bound, which holds for logits alone, are not looked into.
__device__ int select_among(const logits::ProductKeys& logits, const Listed& rows, const Listed& columns, double bound,
                            const Scale& scale, const Token& token) {
    Pick<uint64_t> pick = Pick<uint64_t>::before_all();
    int first = -1;
#pragma unroll 1
    for (int k = 0; k < token.rule.top_k; k++) {
        Pick<uint64_t> best = Pick<uint64_t>::none();
        for (int r = token.lane; r < rows.count; r += 32) {
            int i = rows.at(r);
            uint64_t most = rank::key_of(static_cast<double>(logits.first[i]) + bound);
            if (most != rank::kNan && most <= best.key) {
                continue;
            }
#pragma unroll 1
            for (int c = 0; c < columns.count; c++) {
                int id = i * logits.count + columns.at(c);
                double own = candidate(logits.at(id), bias_of(id, token), scale, token);
                rank::offer(best, pick, rank::key_of(own), id);
            }
        }
        pick = rank::best_of_warp(best);
        route_select::note(k, pick.id, first, token);
    }
    return first;
}

// memory has room for as many ids as room says, and is this warp's alone.
__device__ int select(const logits::ProductKeys& logits, uint32_t* memory, int room, const Scale& scale, const Token& token) {
    Listed all = {nullptr, logits.count};
    if (by_score(token)) {
        // Bounds are of logits; a bias is added to scores.
        return select_among(logits, all, all, special::infinity(), scale, token);
    }
    int lane = token.lane;
    bool finite = all_finite(logits.first, logits.count, lane) && all_finite(logits.second, logits.count, lane);
    if (!finite || 2 * logits.count > room) {
        // A NaN bound holds for no row, since -infinity may meet infinity.
        return select_among(logits, all, all, best_of_half(logits.second, logits.count, 1, lane).first, scale, token);
    }
    int m = 1;
    while (m * m < token.rule.top_k) {
        m++;
    }
    Best first = best_of_half(logits.first, logits.count, m, lane);
    Best second = best_of_half(logits.second, logits.count, m, lane);
    double least = static_cast<double>(first.last) + static_cast<double>(second.last);
    Listed rows = list(logits.first, logits.count, second.first, least, memory, lane);
    Listed columns = list(logits.second, logits.count, first.first, least, memory + logits.count, lane);
    __syncwarp();
    return select_among(logits, rows, columns, second.first, scale, token);
}

}  // namespace product_keys
