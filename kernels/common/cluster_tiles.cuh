// The tiles of a grouped product as the warps of a warp-specialised kernel find them: each warp by itself, without a barrier, all
// in the same order. The tiles are dealt to clusters of blocks, whose members get neighbours of the same group.
#pragma once

#include "group_tiles.cuh"

namespace cluster_tiles {

constexpr uint32_t kAllLanes = 0xffffffffu;

// Groups whose offsets fit beside a block's stages in shared memory.
constexpr int kSharedGroups = 512;
constexpr int kSharedBytes = (kSharedGroups + 1) * 4;

// Where a block works: some rows of a group by the columns of a tile.
struct Tile {
    int group;
    int row;  // first
    int rows;  // 0 if only the other block of the cluster has something to do
    int column_tile;
    bool same_columns;  // in the whole cluster, and of one group: its blocks multiply by the same weights
};

// Puts the offsets where they are read faster, by all threads and up to the next barrier; returns where that is.
__device__ __forceinline__ const int* share_offsets(const int* expert_offsets, int groups, unsigned char* shared) {
    if (groups > kSharedGroups) {
        return expert_offsets;
    }
    int* copy = reinterpret_cast<int*>(shared);
    for (int i = threadIdx.x; i <= groups; i += blockDim.x) {
        copy[i] = expert_offsets[i];
    }
    return copy;
}

// What is dealt: the groups' rows, by columns. rank is the block's in its cluster.
struct Product {
    const int* expert_offsets;
    int rows;
    int groups;
    int column_tiles;
    int rank;
};

// Deals tiles of kRows rows to clusters of kCluster blocks, where kTurns warpgroups may take turns. Two blocks share a share: two row tiles by the same columns, or, where
// a group has a row tile left over, that by two neighbouring columns.
template <int kRows, int kCluster, int kTurns = 1>
class Walk {
public:
    static_assert(kCluster == 1 || kCluster == 2);

    // Every kTurns-th tile of the block, from one on.
    __device__ __forceinline__ explicit Walk(const Product& product, int turn = 0)
        : product_(product), number_((blockIdx.x + turn * gridDim.x) / kCluster) {
        open(0);
    }

    // The next tile of this block, if there is one. All lanes call it.
    __device__ __forceinline__ bool next(Tile& tile) {
        int behind = __shfl_sync(kAllLanes, end_, 31);
        while (number_ >= behind) {
            if (first_ + 32 >= product_.groups) {
                return false;
            }
            before_ = behind;
            open(first_ + 32);
            behind = __shfl_sync(kAllLanes, end_, 31);
        }
        int lane = __ffs(static_cast<int>(__ballot_sync(kAllLanes, number_ < end_))) - 1;
        int from = __shfl_sync(kAllLanes, from_, lane);
        int count = __shfl_sync(kAllLanes, count_, lane);
        int share = number_ - (__shfl_sync(kAllLanes, end_, lane) - shares(count));
        place(share, count, tile);
        tile.group = first_ + lane;
        tile.row += from;
        number_ += gridDim.x / kCluster * kTurns;
        return true;
    }

private:
    static __device__ __forceinline__ int row_tiles(int count) { return (count + kRows - 1) / kRows; }

    __device__ __forceinline__ int shares(int count) const {
        int tiles = row_tiles(count);
        return tiles / kCluster * product_.column_tiles + tiles % kCluster * ((product_.column_tiles + kCluster - 1) / kCluster);
    }

    // Looks at 32 groups from one on, each lane at its own.
    __device__ __forceinline__ void open(int group) {
        int lane = threadIdx.x % 32;
        first_ = group;
        group += lane;
        from_ = group < product_.groups ? product_.expert_offsets[group] : 0;
        count_ = group < product_.groups ? max(min(product_.expert_offsets[group + 1], product_.rows) - from_, 0) : 0;
        int sum = shares(count_);
        for (int distance = 1; distance < 32; distance *= 2) {
            int other = __shfl_up_sync(kAllLanes, sum, distance);
            sum += lane >= distance ? other : 0;
        }
        end_ = before_ + sum;
    }

    __device__ __forceinline__ void place(int share, int count, Tile& tile) const {
        int tiles = row_tiles(count);
        int whole = tiles / kCluster;
        tile.same_columns = share < whole * product_.column_tiles;
        int row_tile;
        if (tile.same_columns) {
            group_tiles::Place place = group_tiles::place(share, whole, product_.column_tiles);
            row_tile = place.row_tile * kCluster + product_.rank;
            tile.column_tile = place.column_tile;
        } else {
            row_tile = tiles - 1;
            tile.column_tile = (share - whole * product_.column_tiles) * kCluster + product_.rank;
        }
        tile.row = row_tile * kRows;
        tile.rows = tile.column_tile < product_.column_tiles ? min(kRows, count - tile.row) : 0;
    }

    Product product_;
    int number_;      // of the next share
    int first_ = 0;   // group of the first lane
    int before_ = 0;  // shares of the groups below
    int from_ = 0;    // of the lane's group: first row,
    int count_ = 0;   // rows,
    int end_ = 0;     // shares up to it
};

}  // namespace cluster_tiles
