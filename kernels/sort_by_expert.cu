// rowToSlot = argsort(topkIds), stably; slotToRow is its inverse
//
// Shapes    topkIds, slotToRow [slots], rowToSlot [slots] (entries past the last row are not written), tokensPerExpert [E],
//           expertOffsets [E + 1], counts [chunks, E].
// Grid      small: one block. count, scatter: one block per chunk of chunk_slots, a number Java takes from items_per_block.
//           scan: one block.
// Numerics  integers. A slot whose id is outside 0..E-1 gets no row, and -1 in slotToRow.
// Requires  of small: slots at most items_per_block, else it is slow, not wrong; of scatter: counts as scan left them.
#include "common/expert_sort.cuh"

namespace {

using expert_sort::kTable;
using expert_sort::Peers;
using expert_sort::Run;

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kSmallSlots = 8192;
constexpr int kChunkSlots = 4096;

// The slots of this block.
__device__ __forceinline__ Run chunk_of(int slots, int chunk_slots) {
    long long from = static_cast<long long>(blockIdx.x) * chunk_slots;
    long long end = slots;
    return {static_cast<int>(min(from, end)), static_cast<int>(min(from + chunk_slots, end))};
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    sort_by_expert_small(const int* __restrict__ topk_ids, int* __restrict__ tokens_per_expert,
                         int* __restrict__ expert_offsets, int* __restrict__ row_to_slot, int* __restrict__ slot_to_row,
                         int slots, int num_experts) {
    JMOE_SHARED(expert_sort::Scratch<kThreads>, scratch, );
    expert_sort::sort_slots<kThreads>(topk_ids, tokens_per_expert, expert_offsets, row_to_slot, slot_to_row, slots, num_experts,
                                      scratch);
}
JMOE_EXPORT(sort_by_expert_small, kThreads, kSmallSlots, 0);

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    sort_by_expert_count(const int* __restrict__ topk_ids, int* __restrict__ counts, int slots, int num_experts,
                         int chunk_slots) {
    JMOE_SHARED(int, table, [kTable]);
    bool in_shared = num_experts <= kTable;
    int* chunk_counts = counts + static_cast<long long>(blockIdx.x) * num_experts;
    int* row = in_shared ? table : chunk_counts;
    for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
        row[expert] = 0;
    }
    __syncthreads();
    Run chunk = chunk_of(slots, chunk_slots);
    // Whole warps go around together, since they vote.
    for (long long base = chunk.from; base < chunk.to; base += kThreads) {
        long long slot = base + threadIdx.x;
        int id = slot < chunk.to ? topk_ids[slot] : -1;
        Peers peers = expert_sort::peers_of(id, threadIdx.x % 32);
        if (peers.before == 0 && expert_sort::is_expert(id, num_experts)) {
            // The order of additions does not change an integer sum.
            atomicAdd(&row[id], __popc(peers.lanes));
        }
    }
    if (!in_shared) {
        return;
    }
    __syncthreads();
    for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
        chunk_counts[expert] = row[expert];
    }
}
JMOE_EXPORT(sort_by_expert_count, kThreads, kChunkSlots, 0);

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    sort_by_expert_scan(int* __restrict__ counts, int* __restrict__ tokens_per_expert, int* __restrict__ expert_offsets,
                        int num_experts, int chunks) {
    JMOE_SHARED(int, warp_sums, [kWarps]);
    expert_sort::scan_table<kThreads>(counts, chunks, tokens_per_expert, expert_offsets, num_experts, warp_sums);
}
JMOE_EXPORT(sort_by_expert_scan, kThreads, 1, 0);

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    sort_by_expert_scatter(const int* __restrict__ topk_ids, int* __restrict__ counts, int* __restrict__ row_to_slot,
                           int* __restrict__ slot_to_row, int slots, int num_experts, int chunk_slots) {
    JMOE_SHARED(int, table, [kTable]);
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    bool in_shared = expert_sort::table_warps<kThreads>(num_experts) > 0;
    int warps = max(expert_sort::table_warps<kThreads>(num_experts), 1);
    int* first_rows = counts + static_cast<long long>(blockIdx.x) * num_experts;
    int* next = (in_shared ? table : first_rows) + static_cast<long long>(warp) * num_experts;
    Run chunk = chunk_of(slots, chunk_slots);
    Run run = expert_sort::run_of(warp, warps, chunk.from, chunk.to);
    if (in_shared) {
        for (int i = threadIdx.x; i < warps * num_experts; i += kThreads) {
            table[i] = 0;
        }
        __syncthreads();
        if (warp < warps) {
            expert_sort::count_run(topk_ids, next, run, num_experts, lane);
        }
        __syncthreads();
        for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
            expert_sort::spread_rows(table + expert, warps, num_experts, first_rows[expert]);
        }
        __syncthreads();
    }
    if (warp < warps) {
        expert_sort::place_run(topk_ids, next, row_to_slot, slot_to_row, run, num_experts, lane);
    }
}
JMOE_EXPORT(sort_by_expert_scatter, kThreads, kChunkSlots, 0);
