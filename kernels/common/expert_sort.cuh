// What every way to sort slots by expert is made of, and the whole of it for one block.
//
// Stability without sorting: the warps of a block take consecutive slots and count each into a row of a table [warps, E].
// The counts are then turned into first rows, expert by expert and within it warp by warp, and every warp goes through its
// slots once more, handing out rows. The table lies in shared memory, with as many warps as fit. Where not even one row
// fits, one warp works alone on counters in global memory.
#pragma once

#include "device.cuh"

namespace expert_sort {

constexpr int kTable = 8192;
constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ bool is_expert(int id, int num_experts) {
    return static_cast<uint32_t>(id) < static_cast<uint32_t>(num_experts);
}

// Warps for whose counts there is room in shared memory.
template <int kThreads>
__device__ __forceinline__ int table_warps(int num_experts) {
    return min(kThreads / 32, kTable / max(num_experts, 1));
}

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

// Lanes whose slots have the same expert; of them, those before this lane.
struct Peers {
    uint32_t lanes;
    int before;
};

__device__ __forceinline__ Peers peers_of(int id, int lane) {
    uint32_t lanes = __match_any_sync(kAllLanes, id);
    return {lanes, __popc(lanes & ((1u << lane) - 1))};
}

// Calls visit(slot, id) for the slots of a run, in steps of a whole warp; the id behind the run is -1. Several ids are asked
// for at once, which hides latency.
template <class Visit>
__device__ __forceinline__ void for_each_slot(const int* topk_ids, Run run, int lane, Visit visit) {
    constexpr int batch = 4;
    for (int base = run.from; base < run.to; base += 32 * batch) {
        int ids[batch];
#pragma unroll
        for (int i = 0; i < batch; i++) {
            int slot = base + 32 * i + lane;
            ids[i] = slot < run.to ? topk_ids[slot] : -1;
        }
#pragma unroll
        for (int i = 0; i < batch; i++) {
            if (base + 32 * i < run.to) {
                visit(base + 32 * i + lane, ids[i]);
            }
        }
    }
}

// Adds a warp's slots to its counts.
__device__ __forceinline__ void count_run(const int* topk_ids, int* counts, Run run, int num_experts, int lane) {
    for_each_slot(topk_ids, run, lane, [&](int, int id) {
        Peers peers = peers_of(id, lane);
        if (peers.before == 0 && is_expert(id, num_experts)) {
            counts[id] += __popc(peers.lanes);
        }
        __syncwarp();
    });
}

// Hands out rows from next[e] on, where counts stood.
__device__ __forceinline__ void place_run(const int* topk_ids, int* next, int* row_to_slot, int* slot_to_row, Run run,
                                          int num_experts, int lane) {
    for_each_slot(topk_ids, run, lane, [&](int slot, int id) {
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
    });
}

// The sum of the values of all threads before this one; total gets the sum of all.
template <int kThreads>
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
    for (int other = 0; other < kThreads / 32; other++) {
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
__device__ __forceinline__ void spread_rows(int* column, int table_rows, int num_experts, int row) {
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
template <int kThreads>
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
        int row = first + scan_block<kThreads>(count, warp_sums, &total);
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

// What a block shares while it sorts.
template <int kThreads>
struct Scratch {
    int table[kTable];
    int warp_sums[kThreads / 32];
};

// Sorts all slots; every thread of the block calls it.
template <int kThreads>
__device__ void sort_slots(const int* topk_ids, int* tokens_per_expert, int* expert_offsets, int* row_to_slot, int* slot_to_row,
                           int slots, int num_experts, Scratch<kThreads>& scratch) {
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    bool in_shared = table_warps<kThreads>(num_experts) > 0;
    // Warps without slots would only lengthen the table.
    int warps = max(min(table_warps<kThreads>(num_experts), (slots + 31) / 32), 1);
    // Without room in shared memory the histogram is the table: counts, then rows, and at the end counts again.
    int* counts = in_shared ? scratch.table : tokens_per_expert;
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
    int* histogram = in_shared ? tokens_per_expert : nullptr;
    scan_table<kThreads>(counts, warps, histogram, expert_offsets, num_experts, scratch.warp_sums);
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

}  // namespace expert_sort
