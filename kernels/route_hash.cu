// topkIds = experts by the hash or the table row of a token's id, topkWeights = rule(1)
//
// Shapes    token_ids, token_types [tokens], the latter or null; table [vocabulary, topK] or null; topkIds, topkWeights
//           [tokens, topK].
// Grid      ceil(tokens / items_per_block), a thread per token.
// Numerics  integers; weights in F64, rounded once.
// Requires  nothing: ids outside the table have no expert, nor have entries that are not experts.
// Adjoint   none: nothing is learned.
#include "common/route_token.cuh"

namespace {

constexpr int kThreads = 128;

// The finaliser of MurmurHash3.
__device__ __forceinline__ uint32_t mix(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

__device__ __forceinline__ bool is_among(int expert, const int* ids, int count) {
    bool found = false;
    for (int k = 0; k < count; k++) {
        found |= ids[k] == expert;
    }
    return found;
}

// The k-th choice, which is none of those before.
__device__ __forceinline__ int hashed(uint32_t id, int num_experts, const int* before, int k) {
    uint32_t experts = static_cast<uint32_t>(num_experts);
    int expert = static_cast<int>(mix(id + static_cast<uint32_t>(k) * 0x9e3779b9u) % experts);
    while (is_among(expert, before, k)) {
        expert = expert + 1 == num_experts ? 0 : expert + 1;
    }
    return expert;
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    route_hash(const int* __restrict__ token_ids, const int* __restrict__ token_types, const int* __restrict__ table,
               int* __restrict__ topk_ids, float* __restrict__ topk_weights, int tokens, long long vocabulary,
               const __grid_constant__ RouteRule rule) {
    long long token = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (token >= tokens) {
        return;
    }
    int* ids = topk_ids + token * rule.top_k;
    float* weights = topk_weights + token * rule.top_k;
    int id = token_ids[token];
    bool elsewhere = token_types != nullptr && route_token::belongs_elsewhere(rule, token_types[token]);
    bool known = !elsewhere && id >= 0 && (table == nullptr || id < vocabulary);
    double sum = 0.0;
    for (int k = 0; k < rule.top_k; k++) {
        int expert = -1;
        if (known && table != nullptr) {
            int entry = table[static_cast<long long>(id) * rule.top_k + k];
            expert = entry >= 0 && entry < rule.num_experts ? entry : -1;
        } else if (known) {
            expert = hashed(static_cast<uint32_t>(id), rule.num_experts, ids, k);
        }
        ids[k] = expert;
        sum += expert < 0 ? 0.0 : route_rule::term(rule, 1.0);
    }
    double divisor = rule.normalise_later ? 1.0 : route_rule::divisor(rule, sum);
    double factor = rule.normalise_later ? 1.0 : rule.factor;
    for (int k = 0; k < rule.top_k; k++) {
        weights[k] = ids[k] < 0 ? 0.0f : route_rule::stored(1.0 / divisor * factor);
    }
}
JMOE_EXPORT(route_hash, kThreads, kThreads, 0);
