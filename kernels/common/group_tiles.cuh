// The tiles of a grouped product: where in the result a block works. How many rows a group has is known on the device only, so
// blocks count the tiles of the groups themselves.
#pragma once

#include "device.cuh"

namespace group_tiles {

constexpr uint32_t kAllLanes = 0xffffffffu;

// Row tiles that share a tile of the weight, one after the other: so many blocks find it in L2.
constexpr int kBand = 8;

// A group and one of its tiles.
struct Found {
    int group;
    int from;        // its first row
    int to;          // behind its last row
    long long tile;  // among the tiles of the group, or -1 if there is none with the number asked for
};

// The tiles of all groups below a group. Blocks ask for rising numbers, so it only moves forward.
struct Cursor {
    int group;
    long long tiles;
};

// What the threads of a block share while they count.
template <int kThreads>
struct Scratch {
    long long warp_sums[kThreads / 32];
    Found found;
};

// The sum of the values of the threads up to this one; total gets the sum of all.
template <int kThreads>
__device__ __forceinline__ long long scan_block(long long value, long long* warp_sums, long long* total) {
    int lane = threadIdx.x % 32;
    int warp = threadIdx.x / 32;
    long long inclusive = value;
    for (int distance = 1; distance < 32; distance *= 2) {
        long long other = __shfl_up_sync(kAllLanes, inclusive, distance);
        inclusive += lane >= distance ? other : 0;
    }
    if (lane == 31) {
        warp_sums[warp] = inclusive;
    }
    __syncthreads();
    long long before = 0;
    *total = 0;
    for (int other = 0; other < kThreads / 32; other++) {
        before += other < warp ? warp_sums[other] : 0;
        *total += warp_sums[other];
    }
    return before + inclusive;
}

// Finds a tile of kRows rows by its number, looking at as many groups at a time as there are threads. column_tiles is how many
// tiles lie beside each other. All threads call it, with a barrier between two calls; unless the groups have come to an end, it
// contains one itself, behind which nobody works on the tile before.
template <int kThreads, int kRows>
__device__ __forceinline__ Found find(long long number, Cursor& cursor, const int* expert_offsets, int rows, int groups,
                                      long long column_tiles, Scratch<kThreads>& scratch) {
    if (cursor.group >= groups) {
        return {0, 0, 0, -1};
    }
    if (threadIdx.x == 0) {
        scratch.found = {0, 0, 0, -1};
    }
    bool passed = true;
    while (passed && cursor.group < groups) {
        int group = cursor.group + static_cast<int>(threadIdx.x);
        int from = group < groups ? expert_offsets[group] : 0;
        int to = group < groups ? min(expert_offsets[group + 1], rows) : 0;
        long long tiles = (max(to - from, 0) + kRows - 1) / kRows * column_tiles;
        long long total;
        long long end = cursor.tiles + scan_block<kThreads>(tiles, scratch.warp_sums, &total);
        long long tile = number - (end - tiles);
        if (tile >= 0 && tile < tiles) {
            scratch.found = {group, from, to, tile};
        }
        passed = number >= cursor.tiles + total;
        if (passed) {
            cursor = {cursor.group + kThreads, cursor.tiles + total};
        }
        __syncthreads();
    }
    return scratch.found;
}

// Row and column of a tile within its group: bands of kBand row tiles, in a band down the rows first.
struct Place {
    int row_tile;
    int column_tile;
};

__device__ __forceinline__ Place place(long long tile, int row_tiles, int column_tiles) {
    int band = static_cast<int>(tile / (static_cast<long long>(kBand) * column_tiles));
    int within = static_cast<int>(tile - static_cast<long long>(band) * kBand * column_tiles);
    int band_rows = min(kBand, row_tiles - band * kBand);
    return {band * kBand + within % band_rows, within / band_rows};
}

}  // namespace group_tiles
