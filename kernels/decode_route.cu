// ids, weights = rule(x router^T + bias), sorted by expert, in one launch for few tokens; sharedWeights = sigmoid(x sharedGate)
//
// Shapes    x [tokens, hidden], weight [num_logits, hidden] and sharedGate [hidden] or null of one 16-bit type; bias F32
//           [num_logits] or null; selection_bias F32 [E] or null, token_types [tokens] or null, num_tokens [1] or null: tokens at
//           or behind it are absent, as are those of negative type. logits F32 [tokens, num_logits] (absent ones by number are
//           not written), topkIds, topkWeights, slotToRow, rowToSlot [tokens, topK], sharedWeights F32 [tokens] (0 for tokens
//           absent by number), tokensPerExpert [sort_experts], expertOffsets [sort_experts + 1].
//           parts F32 [shares, tokens, rows] with rows = num_logits + (sharedGate ? 1 : 0), shares = ceil(hidden / 2048).
//           arrivals [groups of tokens + 1], of route_sort [1]: 0 before the launch and behind it.
// Grid      decode_route: x any; ceil(rows / items_per_block) * shares gives each tile of each share its block. y any, at most
//           32767: ceil(tokens / 16), but at least 1, gives each token its warp. It depends on nothing but sizes.
//           route_sort: ceil(tokens / items_per_block), at least 1; a warp per token.
// Numerics  F32 sums of exact products, 16 at a time in an order of the inputs that depends on nothing but hidden: of 128 inputs
//           each, those added in order to the bias, then shares of 2048 in order. Routing as in route, without best scores, the
//           gate as a router with the sigmoid; the sort is stable.
// Requires  sm_80. Nothing of sizes, but no product keys and no capacity. Any alignment; inputs are read 16 bytes at a time where
//           rows are aligned to that, else by elements. Slots beyond a few thousand are sorted slowly, not wrong.
// Adjoint   none: inference.
//
// A warp multiplies 16 rows of the router with up to 16 tokens over 128 inputs, straight from global memory: the order of inputs
// within a sum is free as long as both operands agree, so the 16 bytes that a lane loads are its fragments of two mma steps, and
// all that a warp needs is under way at once. The last block of a group of tokens to arrive routes them, the last of those sorts.
#include "common/arrivals.cuh"
#include "common/dtypes.cuh"
#include "common/expert_sort.cuh"
#include "common/route_select.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using route_select::kRegisterExperts;
using route_token::Token;

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kRows = 16;       // of a tile: rows of mma
constexpr int kTileTokens = 8;  // columns of mma
constexpr int kTokenTiles = 2;  // that share what a warp has loaded of the router
constexpr int kTokens = kTokenTiles * kTileTokens;
constexpr int kChunk = 8;                // elements that a lane loads at once
constexpr int kStep = 4 * kChunk;        // inputs that the four lanes of a row load at once
constexpr int kPiece = 128;              // inputs of a warp
constexpr int kSteps = kPiece / kStep;
constexpr int kShare = kWarps * kPiece;  // inputs of a block
constexpr int kTileSums = kRows * kTileTokens;

// One after the other.
union Memory {
    float pieces[kWarps][kTokenTiles][kTileSums];
    float logits[kWarps][kRegisterExperts];  // of the token that a warp routes, where they fit
    uint32_t keys[expert_sort::kTable];      // of its candidates, where they do not
    expert_sort::Scratch<kThreads> sort;
};

// What the logits are made of.
template <class T>
struct Product {
    const typename T::Bits* x;
    const typename T::Bits* weight;
    const float* bias;
    const typename T::Bits* shared_gate;
    float* parts;
    float* logits;
    float* shared_weights;
    int tokens;
    int hidden;
    int num_logits;

    __device__ __forceinline__ int rows() const { return num_logits + (shared_gate == nullptr ? 0 : 1); }
    __device__ __forceinline__ int shares() const {
        return static_cast<int>((static_cast<long long>(hidden) + kShare - 1) / kShare);
    }
    __device__ __forceinline__ bool aligned() const { return dtypes::vectors_fit(hidden, x, weight, shared_gate); }
    // Null for a row that does not exist.
    __device__ __forceinline__ const typename T::Bits* router_row(int row) const {
        return row < num_logits ? weight + static_cast<long long>(row) * hidden : row == num_logits ? shared_gate : nullptr;
    }
    __device__ __forceinline__ const typename T::Bits* x_row(int token, int present) const {
        return token < present ? x + static_cast<long long>(token) * hidden : nullptr;
    }
    __device__ __forceinline__ float* part(int share, int token) const {
        return parts + (static_cast<long long>(share) * tokens + token) * rows();
    }
};

// What tokens are routed with, and where to.
struct Routing {
    const RouteRule& rule;
    const float* selection_bias;
    const int* token_types;
    int* topk_ids;
    float* topk_weights;
    int* tokens_per_expert;
    int* expert_offsets;
    int* row_to_slot;
    int* slot_to_row;
    int tokens;
    int sort_experts;
};

// ---- Product

// Some inputs of a row, zeros where there are none.
template <class T, bool aligned>
__device__ __forceinline__ uint4 load_chunk(const typename T::Bits* row, long long column, int width) {
    if (row == nullptr || column >= width) {
        return make_uint4(0, 0, 0, 0);
    }
    if constexpr (aligned) {
        return ptx::load_streamed(reinterpret_cast<const uint4*>(row + column));
    } else {
        uint32_t words[4] = {};
#pragma unroll
        for (int i = 0; i < kChunk; i++) {
            words[i / 2] |= column + i < width ? static_cast<uint32_t>(row[column + i]) << i % 2 * 16 : 0u;
        }
        return make_uint4(words[0], words[1], words[2], words[3]);
    }
}

__device__ __forceinline__ void multiply_add(BF16, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    ptx::mma_m16n8k16_bf16(sums, a, b);
}

__device__ __forceinline__ void multiply_add(F16, float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    ptx::mma_m16n8k16_f16(sums, a, b);
}

// The inputs of this warp from `input` on. The router does not wait for the number of tokens, which has to be read first.
template <class T, bool aligned>
__device__ __forceinline__ void multiply_piece(const Product<T>& on, int first_row, long long input, int first_token, int present,
                                               float (&sums)[kTokenTiles][4]) {
    int lane = threadIdx.x % 32;
    long long column = input + lane % 4 * kChunk;
    uint4 rows[kSteps][2];
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const typename T::Bits* row = on.router_row(first_row + lane / 4 + half * 8);
            rows[i][half] = load_chunk<T, aligned>(row, column + i * kStep, on.hidden);
        }
    }
    // Keeps loads that wait for the number of tokens from being issued first.
    __syncwarp();
    uint4 x[kTokenTiles][kSteps];
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; tile++) {
        const typename T::Bits* row = on.x_row(first_token + tile * kTileTokens + lane / 4, present);
#pragma unroll
        for (int i = 0; i < kSteps; i++) {
            x[tile][i] = load_chunk<T, aligned>(row, column + i * kStep, on.hidden);
        }
    }
#pragma unroll
    for (int i = 0; i < kSteps; i++) {
        uint32_t first[4] = {rows[i][0].x, rows[i][1].x, rows[i][0].y, rows[i][1].y};
        uint32_t second[4] = {rows[i][0].z, rows[i][1].z, rows[i][0].w, rows[i][1].w};
#pragma unroll
        for (int tile = 0; tile < kTokenTiles; tile++) {
            uint32_t first_x[2] = {x[tile][i].x, x[tile][i].y};
            uint32_t second_x[2] = {x[tile][i].z, x[tile][i].w};
            multiply_add(T(), sums[tile], first, first_x);
            multiply_add(T(), sums[tile], second, second_x);
        }
    }
}

// Stores what a fragment of sums holds: rows of the tile by tokens.
__device__ __forceinline__ void store_piece(const float (&sums)[kTokenTiles][4], float (&pieces)[kTokenTiles][kTileSums]) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int tile = 0; tile < kTokenTiles; tile++) {
        float2* at = reinterpret_cast<float2*>(pieces[tile]) + lane;
        at[0] = make_float2(sums[tile][0], sums[tile][1]);
        at[kTileSums / 4] = make_float2(sums[tile][2], sums[tile][3]);
    }
}

// One tile of the router by one share of the inputs, for kTokens tokens from first_token on.
template <class T>
__device__ __forceinline__ void multiply_share(const Product<T>& on, int tile, int share, int first_token, int present,
                                               Memory& memory) {
    int warp = threadIdx.x / 32;
    long long share_input = static_cast<long long>(share) * kShare;
    long long input = share_input + warp * kPiece;
    // Which sum this thread adds up. The bias is asked for before the inputs.
    int sum = threadIdx.x % kTileSums;
    int token_tile = threadIdx.x / kTileSums;
    int row = tile * kRows + sum / kTileTokens;
    int token = first_token + token_tile * kTileTokens + sum % kTileTokens;
    bool adds = token_tile < kTokenTiles && row < on.rows();
    float value = adds && share == 0 && on.bias != nullptr && row < on.num_logits ? on.bias[row] : 0.0f;
    if (input < on.hidden) {
        float sums[kTokenTiles][4] = {};
        if (on.aligned()) {
            multiply_piece<T, true>(on, tile * kRows, input, first_token, present, sums);
        } else {
            multiply_piece<T, false>(on, tile * kRows, input, first_token, present, sums);
        }
        store_piece(sums, memory.pieces[warp]);
    }
    __syncthreads();
    if (adds && token < present) {
#pragma unroll 4
        for (int piece = 0; piece < kWarps && share_input + piece * kPiece < on.hidden; piece++) {
            value += memory.pieces[piece][token_tile][sum];
        }
        on.part(share, token)[row] = value;
    }
    // The pieces may be written anew.
    __syncthreads();
}

// What this block has to multiply for the tokens from..to-1.
template <class T>
__device__ __forceinline__ void multiply(const Product<T>& on, int from, int to, int present, Memory& memory) {
    int shares = on.shares();
    long long units = (static_cast<long long>(on.rows()) + kRows - 1) / kRows * shares;
    for (long long unit = blockIdx.x; unit < units; unit += gridDim.x) {
        // The first tokens go ahead before it is known whether there is one.
        for (int token = from; token < to && (token == 0 || token < present); token += kTokens) {
            int tile = static_cast<int>(unit / shares);
            multiply_share(on, tile, static_cast<int>(unit % shares), token, present, memory);
        }
    }
}

// ---- Logits

// Adds up the parts of a token's logits and of its gate; also_to gets the logits, too, unless it is null.
template <class T>
__device__ __forceinline__ void add_parts(const Product<T>& on, int token, float* also_to, int lane) {
    constexpr int batch = 8;
    int rows = on.rows();
    int shares = on.shares();
    float* logits = on.logits + static_cast<long long>(token) * on.num_logits;
    for (int base = lane; base < rows; base += 32 * batch) {
        float sums[batch] = {};
#pragma unroll 4
        for (int share = 0; share < shares; share++) {
            const float* part = on.part(share, token);
#pragma unroll
            for (int i = 0; i < batch; i++) {
                sums[i] += base + 32 * i < rows ? part[base + 32 * i] : 0.0f;
            }
        }
#pragma unroll
        for (int i = 0; i < batch; i++) {
            int row = base + 32 * i;
            if (row < on.num_logits) {
                logits[row] = sums[i];
                if (also_to != nullptr) {
                    also_to[row] = sums[i];
                }
            } else if (row < rows) {
                on.shared_weights[token] = route_rule::stored(1.0 / (1.0 + exp(-static_cast<double>(sums[i]))));
            }
        }
    }
}

// ---- Routing

// Whether shared memory has the candidates of tokens, and so not their logits.
__device__ __forceinline__ bool in_memory(const RouteRule& rule, const float* selection_bias) {
    return !route_select::in_registers(rule, selection_bias) && rule.num_experts <= expert_sort::kTable;
}

// Warps that have a place for the candidates of a token each.
__device__ __forceinline__ int routing_warps(const RouteRule& rule, const float* selection_bias) {
    return in_memory(rule, selection_bias) ? min(kWarps, expert_sort::kTable / rule.num_experts) : kWarps;
}

__device__ __forceinline__ Token token_of(const Routing& on, const float* selection_bias, int index) {
    long long slot = static_cast<long long>(index) * on.rule.top_k;
    return {on.rule, selection_bias, on.topk_ids + slot, on.topk_weights + slot, nullptr, static_cast<int>(threadIdx.x % 32)};
}

// Of a token that is present.
__device__ __forceinline__ void route_row(const Token& token, const float* logits, Memory& memory) {
    const RouteRule& rule = token.rule;
    logits::Row row = {logits, rule.num_experts};
    if (rule.selection == route_rule::kSparseMixer) {
        route_by_sparse_mixer(row, token);
        return;
    }
    int room = in_memory(rule, token.selection_bias) ? rule.num_experts : 0;
    uint32_t* keys = memory.keys + threadIdx.x / 32 * room;
    route_token::Selected selected = route_select::route_row(row, keys, room, token);
    weigh({logits, nullptr, 0}, selected, token);
}

__device__ __forceinline__ bool is_elsewhere(const Routing& on, int index) {
    return on.token_types != nullptr && route_token::belongs_elsewhere(on.rule, on.token_types[index]);
}

__device__ __forceinline__ void sort_slots(const Routing& on, Memory& memory) {
    expert_sort::sort_slots<kThreads>(on.topk_ids, on.tokens_per_expert, on.expert_offsets, on.row_to_slot, on.slot_to_row,
                                      on.tokens * on.rule.top_k, on.sort_experts, memory.sort);
}

template <class T>
__device__ __forceinline__ void route_tokens(const Product<T>& on, const Routing& routing, const float* selection_bias, int from,
                                             int to, int present, Memory& memory) {
    int warp = threadIdx.x / 32;
    int warps = routing_warps(routing.rule, selection_bias);
    bool fits = on.num_logits <= kRegisterExperts && !in_memory(routing.rule, selection_bias);
    for (int index = from + warp; index < to && warp < warps; index += warps) {
        Token token = token_of(routing, selection_bias, index);
        if (index >= present) {
            route_nowhere(token);
            if (on.shared_gate != nullptr && token.lane == 0) {
                on.shared_weights[index] = 0.0f;
            }
            continue;
        }
        bool elsewhere = is_elsewhere(routing, index);
        float* logits = fits ? memory.logits[warp] : on.logits + static_cast<long long>(index) * on.num_logits;
        add_parts(on, index, fits ? logits : nullptr, token.lane);
        // Every lane sees the logits.
        __syncwarp();
        if (elsewhere) {
            route_nowhere(token);
        } else {
            route_row(token, logits, memory);
        }
        // The next token's may come.
        __syncwarp();
    }
}

template <class T>
__device__ __forceinline__ void decode_route(const Product<T>& on, const Routing& routing, const int* num_tokens,
                                             unsigned* arrivals) {
    JMOE_SHARED(Memory, memory, );
    JMOE_SHARED(float, biases, [kRegisterExperts]);
    ptx::grid_dependency_launch();
    int turns = (on.tokens + kTokens - 1) / kTokens;
    long long group_tokens = static_cast<long long>((turns + gridDim.y - 1) / gridDim.y) * kTokens;
    int from = static_cast<int>(min(blockIdx.y * group_tokens, static_cast<long long>(on.tokens)));
    int to = static_cast<int>(min(from + group_tokens, static_cast<long long>(on.tokens)));
    int present = num_tokens == nullptr ? on.tokens : min(*num_tokens, on.tokens);
    // Whoever routes finds the biases of the selection in its own memory: they come while the router does.
    const float* selection_bias = routing.selection_bias;
    bool staged = selection_bias != nullptr && routing.rule.num_experts <= kRegisterExperts;
    int thread = threadIdx.x;
    bool stages = staged && thread < routing.rule.num_experts;
    float bias = stages ? selection_bias[thread] : 0.0f;
    multiply(on, from, to, present, memory);
    if (stages) {
        biases[thread] = bias;
    }
    if (!arrivals::is_last(arrivals + blockIdx.y, gridDim.x)) {
        return;
    }
    route_tokens(on, routing, staged ? biases : selection_bias, from, to, present, memory);
    if (!arrivals::is_last(arrivals + gridDim.y, gridDim.y)) {
        return;
    }
    sort_slots(routing, memory);
}

}  // namespace

#define DECODE_ROUTE(name, T)                                                                                                \
    extern "C" __global__ void __launch_bounds__(kThreads, 1)                                                                \
        name(const T::Bits* __restrict__ x, const T::Bits* __restrict__ weight, const float* __restrict__ bias,              \
             const T::Bits* __restrict__ shared_gate, const float* __restrict__ selection_bias,                              \
             const int* __restrict__ token_types, const int* __restrict__ num_tokens, float* parts, float* logits,           \
             int* topk_ids, float* topk_weights, float* shared_weights, int* tokens_per_expert, int* expert_offsets,         \
             int* row_to_slot, int* slot_to_row, unsigned* arrivals, int tokens, int hidden, int sort_experts,               \
             const __grid_constant__ RouteRule rule) {                                                                       \
        decode_route<T>({x, weight, bias, shared_gate, parts, logits, shared_weights, tokens, hidden, rule.num_logits},      \
                        {rule, selection_bias, token_types, topk_ids, topk_weights, tokens_per_expert, expert_offsets,       \
                         row_to_slot, slot_to_row, tokens, sort_experts},                                                    \
                        num_tokens, arrivals);                                                                               \
    }                                                                                                                        \
    JMOE_EXPORT(name, kThreads, kRows, 0)

DECODE_ROUTE(decode_route_f16, F16);
DECODE_ROUTE(decode_route_bf16, BF16);

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    route_sort(const float* __restrict__ logits, const float* __restrict__ selection_bias, const int* __restrict__ token_types,
               int* topk_ids, float* topk_weights, int* tokens_per_expert, int* expert_offsets, int* row_to_slot,
               int* slot_to_row, unsigned* arrivals, int tokens, int sort_experts, const __grid_constant__ RouteRule rule) {
    JMOE_SHARED(Memory, memory, );
    Routing routing = {rule,           selection_bias, token_types, topk_ids, topk_weights, tokens_per_expert,
                       expert_offsets, row_to_slot,    slot_to_row, tokens,   sort_experts};
    int warp = threadIdx.x / 32;
    int warps = routing_warps(rule, selection_bias);
    long long from = static_cast<long long>(blockIdx.x) * kTokens;
    long long to = min(from + kTokens, static_cast<long long>(tokens));
    for (long long index = from + warp; index < to && warp < warps; index += warps) {
        int number = static_cast<int>(index);
        Token token = token_of(routing, selection_bias, number);
        if (is_elsewhere(routing, number)) {
            route_nowhere(token);
        } else {
            route_row(token, logits + index * rule.num_logits, memory);
        }
        // The keys of the next token may come.
        __syncwarp();
    }
    if (arrivals::is_last(arrivals, gridDim.x)) {
        sort_slots(routing, memory);
    }
}
JMOE_EXPORT(route_sort, kThreads, kTokens, 0);
