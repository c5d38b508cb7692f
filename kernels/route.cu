// topkIds, topkWeights = rule(logits)
//
// Shapes    logits F32 [tokens, num_logits] (product keys: [2, tokens, num_keys]), selection_bias F32 [E] or null, token_types
//           [tokens] or null, topkIds, topkWeights [tokens, topK], best_scores [tokens] or null: the best score of each token,
//           which orders them where capacity goes by probability. Other and negative token types get ids -1, weights 0, best score 0.
// Grid      ceil(tokens / items_per_block), a warp per token.
// Numerics  order by logit is exact (product keys: by the sum in F64), by score and bias as they are in F32. Scores and weights in
//           F64, rounded once. Sums in an order that depends on nothing but E.
// Requires  nothing of sizes: up to 512 experts, 256 if ordered by scores, are kept in registers and up to 2048 in shared memory,
//           in up to 32 groups; more are read again for each of the K.
// Adjoint   routeBackward.
#include "common/product_keys.cuh"
#include "common/route_select.cuh"

namespace {

using route_token::Selected;
using route_token::Token;

constexpr int kThreads = 128;
constexpr int kTokens = kThreads / 32;
constexpr int kSharedExperts = 2048;

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
    // A router of one type always has types.
    if (token_types != nullptr && route_token::belongs_elsewhere(rule, token_types[index])) {
        route_nowhere(token);
        return;
    }
    if (rule.selection == route_rule::kSparseMixer) {
        route_by_sparse_mixer({logits + index * rule.num_experts, rule.num_experts}, token);
        return;
    }
    Selected selected;
    uint32_t* memory = keys_of_warps[threadIdx.x / 32];
    route_token::LogitOf logit_of = {logits + index * rule.num_logits, nullptr, rule.num_keys};
    if (rule.selection == route_rule::kProductKeys) {
        logit_of.first = logits + index * rule.num_keys;
        logit_of.second = logit_of.first + static_cast<long long>(tokens) * rule.num_keys;
        logits::ProductKeys keys = {logit_of.first, logit_of.second, rule.num_keys};
        selected.scale = scale_of(keys, token);
        selected.id = product_keys::select(keys, memory, kSharedExperts, selected.scale, token);
    } else {
        selected = route_select::route_row({logit_of.first, rule.num_experts}, memory, kSharedExperts, token);
    }
    write_best_score(selected.scale, token);
    weigh(logit_of, selected, token);
}
JMOE_EXPORT(route, kThreads, kTokens, 0);
