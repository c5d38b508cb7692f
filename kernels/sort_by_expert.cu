// rowToSlot = argsort(topkIds), stably; slotToRow is its inverse
//
// Shapes    topkIds, slotToRow [slots], rowToSlot [slots] (entries past the last row are not written), tokensPerExpert [E],
//           expertOffsets [E + 1], counts [chunks, E].
// Grid      small: one block. count, scatter: one block per chunk of chunk_slots, a number Java takes from items_per_block.
//           scan: one block.
// Numerics  integers. A slot whose id is outside 0..E-1 gets no row, and -1 in slotToRow.
// Requires  of small: slots at most items_per_block, else it is slow, not wrong; of scatter: counts as scan left them.
//
// Stability without sorting: the warps of a block take consecutive slots and count each into a row of a table [warps, E].
// The counts are then turned into first rows, expert by expert and within it warp by warp, and every warp goes through its
// slots once more, handing out rows. The table lies in shared memory, with as many warps as fit. Where not even one row
// fits, one warp works alone on counters in global memory.
#include "common/device.cuh"

namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kSmallSlots = 8192;
constexpr int kChunkSlots = 4096;
constexpr int kTable = 8192;
constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ bool is_expert(int id, int num_experts) {
    return static_cast<uint32_t>(id) < static_cast<uint32_t>(num_experts);
}

// Warps for whose counts there is room in shared memory.
__device__ __forceinline__ int table_warps(int num_experts) { return min(kWarps, kTable / max(num_experts, 1)); }

// A run of slots that one warp goes through, 32 at a time.
struct Run {
    int from;
    int to;
};

__device__ __forceinline__ Run run_of(int warp, int warps, int from, int to) {
    int steps = ((to - from + 31) / 32 + warps - 1) / warps;
    long long first = from + static_cast<long long>(warp) * steps * 32;
    return {static_cast<int>(min(first, static_cast<long long>(to))),
            static_cast<int>(min(first + steps * 32, static_cast<long long>(to)))};
}

// The slots of this block.
__device__ __forceinline__ Run chunk_of(int slots, int chunk_slots) {
    long long from = static_cast<long long>(blockIdx.x) * chunk_slots;
    long long end = slots;
    return {static_cast<int>(min(from, end)), static_cast<int>(min(from + chunk_slots, end))};
}

// Lanes whose slots have the same expert; of them, those before this lane.
struct Peers {
    uint32_t lanes;
    int before;
};

__device__ __forceinline__ Peers peers_of(int id, int lane) {
    uint32_t lanes = __match_any_sync(kAllLanes, id);
    return {lanes, __popc(lanes & ((1u << lane) - 1))};
}

// Adds a warp's slots to its counts.
__device__ void count_run(const int* topk_ids, int* counts, Run run, int num_experts, int lane) {
    for (int base = run.from; base < run.to; base += 32) {
        int slot = base + lane;
        int id = slot < run.to ? topk_ids[slot] : -1;
        Peers peers = peers_of(id, lane);
        if (peers.before == 0 && is_expert(id, num_experts)) {
            counts[id] += __popc(peers.lanes);
        }
        __syncwarp();
    }
}

// Hands out rows from next[e] on, where counts stood.
__device__ void place_run(const int* topk_ids, int* next, int* row_to_slot, int* slot_to_row, Run run, int num_experts,
                          int lane) {
    for (int base = run.from; base < run.to; base += 32) {
        int slot = base + lane;
        int id = slot < run.to ? topk_ids[slot] : -1;
        Peers peers = peers_of(id, lane);
        bool valid = is_expert(id, num_experts);
        int row = valid ? next[id] + peers.before : -1;
        __syncwarp();
        if (valid && peers.before == 0) {
            next[id] = row + __popc(peers.lanes);
        }
        if (valid) {
            row_to_slot[row] = slot;
        }
        if (slot < run.to) {
            slot_to_row[slot] = row;
        }
        __syncwarp();
    }
}

// The sum of the values of all threads before this one; total gets the sum of all.
__device__ int scan_block(int value, int* warp_sums, int* total) {
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    int inclusive = value;
    for (int distance = 1; distance < 32; distance *= 2) {
        int other = __shfl_up_sync(kAllLanes, inclusive, distance);
        inclusive += lane >= distance ? other : 0;
    }
    if (lane == 31) {
        warp_sums[warp] = inclusive;
    }
    __syncthreads();
    int before = 0;
    int all = 0;
    for (int other = 0; other < kWarps; other++) {
        int sum = warp_sums[other];
        before += other < warp ? sum : 0;
        all += sum;
    }
    __syncthreads();
    *total = all;
    return before + inclusive - value;
}

// Turns the counts of one expert, a column of a table, into first rows. Reads several entries before it writes them, which
// hides latency.
__device__ void spread_rows(int* column, int table_rows, int num_experts, int row) {
    constexpr int batch = 8;
    for (int base = 0; base < table_rows; base += batch) {
        int counts[batch];
#pragma unroll
        for (int i = 0; i < batch; i++) {
            counts[i] = base + i < table_rows ? column[static_cast<long long>(base + i) * num_experts] : 0;
        }
#pragma unroll
        for (int i = 0; i < batch; i++) {
            if (base + i < table_rows) {
                column[static_cast<long long>(base + i) * num_experts] = row;
            }
            row += counts[i];
        }
    }
}

// Turns the counts of all rows of a table into first rows and writes the offsets and, unless it is null, the histogram.
__device__ void scan_table(int* table, int table_rows, int* tokens_per_expert, int* expert_offsets, int num_experts,
                           int* warp_sums) {
    int first = 0;
    for (int base = 0; base < num_experts; base += kThreads) {
        int expert = base + threadIdx.x;
        bool valid = expert < num_experts;
        int count = 0;
        if (valid) {
#pragma unroll 8
            for (int i = 0; i < table_rows; i++) {
                count += table[static_cast<long long>(i) * num_experts + expert];
            }
        }
        int total;
        int row = first + scan_block(count, warp_sums, &total);
        first += total;
        if (valid) {
            expert_offsets[expert] = row;
            spread_rows(table + expert, table_rows, num_experts, row);
        }
        if (valid && tokens_per_expert != nullptr) {
            tokens_per_expert[expert] = count;
        }
    }
    if (threadIdx.x == 0) {
        expert_offsets[num_experts] = first;
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    sort_by_expert_small(const int* __restrict__ topk_ids, int* __restrict__ tokens_per_expert,
                         int* __restrict__ expert_offsets, int* __restrict__ row_to_slot, int* __restrict__ slot_to_row,
                         int slots, int num_experts) {
    JMOE_SHARED(int, table, [kTable]);
    JMOE_SHARED(int, warp_sums, [kWarps]);
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    bool in_shared = table_warps(num_experts) > 0;
    int warps = max(table_warps(num_experts), 1);
    // Without room in shared memory the histogram is the table: counts, then rows, and at the end counts again.
    int* counts = in_shared ? table : tokens_per_expert;
    int* own_counts = counts + static_cast<long long>(warp) * num_experts;
    for (int i = threadIdx.x; i < warps * num_experts; i += kThreads) {
        counts[i] = 0;
    }
    __syncthreads();
    Run run = run_of(warp, warps, 0, slots);
    if (warp < warps) {
        count_run(topk_ids, own_counts, run, num_experts, lane);
    }
    __syncthreads();
    scan_table(counts, warps, in_shared ? tokens_per_expert : nullptr, expert_offsets, num_experts, warp_sums);
    __syncthreads();
    if (warp < warps) {
        place_run(topk_ids, own_counts, row_to_slot, slot_to_row, run, num_experts, lane);
    }
    if (in_shared) {
        return;
    }
    __syncthreads();
    for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
        tokens_per_expert[expert] = expert_offsets[expert + 1] - expert_offsets[expert];
    }
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
        Peers peers = peers_of(id, threadIdx.x % 32);
        if (peers.before == 0 && is_expert(id, num_experts)) {
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
    scan_table(counts, chunks, tokens_per_expert, expert_offsets, num_experts, warp_sums);
}
JMOE_EXPORT(sort_by_expert_scan, kThreads, 1, 0);

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    sort_by_expert_scatter(const int* __restrict__ topk_ids, int* __restrict__ counts, int* __restrict__ row_to_slot,
                           int* __restrict__ slot_to_row, int slots, int num_experts, int chunk_slots) {
    JMOE_SHARED(int, table, [kTable]);
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    bool in_shared = table_warps(num_experts) > 0;
    int warps = max(table_warps(num_experts), 1);
    int* first_rows = counts + static_cast<long long>(blockIdx.x) * num_experts;
    int* next = (in_shared ? table : first_rows) + static_cast<long long>(warp) * num_experts;
    Run chunk = chunk_of(slots, chunk_slots);
    Run run = run_of(warp, warps, chunk.from, chunk.to);
    if (in_shared) {
        for (int i = threadIdx.x; i < warps * num_experts; i += kThreads) {
            table[i] = 0;
        }
        __syncthreads();
        if (warp < warps) {
            count_run(topk_ids, next, run, num_experts, lane);
        }
        __syncthreads();
        for (int expert = threadIdx.x; expert < num_experts; expert += kThreads) {
            spread_rows(table + expert, warps, num_experts, first_rows[expert]);
        }
        __syncthreads();
    }
    if (warp < warps) {
        place_run(topk_ids, next, row_to_slot, slot_to_row, run, num_experts, lane);
    }
}
JMOE_EXPORT(sort_by_expert_scatter, kThreads, kChunkSlots, 0);
