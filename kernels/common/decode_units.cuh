// The units of a kernel of the decode path, numbered so that blocks may take them in turn: first those of the shared expert, then
// column tile by column tile the routed experts', so that sums over experts are complete one column tile after the other.
#pragma once

#include "decode_bank.cuh"
#include "group_tiles.cuh"

namespace decode {

// A row tile of a routed expert in 32 bits: group, first row, rows.
constexpr int kMaxGroups = 1 << 15;
static_assert(kMaxRows <= 1 << 10 && kRows < 1 << 7);

__device__ __forceinline__ uint32_t packed(int group, int row, int rows) {
    return static_cast<uint32_t>(group) << 17 | static_cast<uint32_t>(row) << 7 | static_cast<uint32_t>(rows);
}

// Puts the row tiles of all groups into shared memory; returns how many there are. All threads call it, and have passed a barrier
// when it returns.
template <int kThreads>
__device__ __forceinline__ int list_row_tiles(const DecodeBank& bank, uint32_t* tiles) {
    JMOE_SHARED(long long, warp_sums, [kThreads / 32]);
    int before = 0;
    for (int base = 0; base < bank.groups; base += kThreads) {
        int group = base + static_cast<int>(threadIdx.x);
        int from = group < bank.groups ? bank.expert_offsets[group] : 0;
        int to = group < bank.groups ? min(bank.expert_offsets[group + 1], bank.rows) : 0;
        int count = (max(to - from, 0) + kRows - 1) / kRows;
        long long total;
        int end = before + static_cast<int>(group_tiles::scan_block<kThreads>(count, warp_sums, &total));
        for (int i = 0; i < count; i++) {
            int row = from + i * kRows;
            tiles[end - count + i] = packed(group, row, min(kRows, to - row));
        }
        before += static_cast<int>(total);
        __syncthreads();
    }
    return before;
}

class Units {
public:
    // tiles are of the routed bank, where list_row_tiles put them.
    __device__ __forceinline__ Units(const DecodeBank& routed, const DecodeBank& shared, const uint32_t* tiles, int routed_tiles)
        : tiles_(tiles), routed_tiles_(routed_tiles) {
        if (shared.groups > 0) {
            shared_rows_ = min(shared.expert_offsets[1], shared.rows);
            shared_tiles_ = (max(shared_rows_, 0) + kRows - 1) / kRows;
            shared_units_ = column_tiles(shared) * shared_tiles_ * units_per_tile(shared);
        }
        units_ = shared_units_ + column_tiles(routed) * routed_tiles * units_per_tile(routed);
    }

    // Of a column tile, where the banks have the same columns.
    __device__ __forceinline__ int per_column_tile(const DecodeBank& routed, const DecodeBank& shared) const {
        int of_shared = shared.groups > 0 ? shared_tiles_ * units_per_tile(shared) : 0;
        return routed_tiles_ * units_per_tile(routed) + of_shared;
    }

    // Where there are no rows at all, gives every column tile a unit without any, so that somebody completes it. True if it did.
    __device__ __forceinline__ bool fill(const DecodeBank& routed) {
        empty_ = units_ == 0;
        units_ = empty_ ? column_tiles(routed) : units_;
        return empty_;
    }

    __device__ __forceinline__ int routed_tiles() const { return routed_tiles_; }
    __device__ __forceinline__ int shared_tiles() const { return shared_tiles_; }
    __device__ __forceinline__ int group_of(int routed_tile) const { return static_cast<int>(tiles_[routed_tile] >> 17); }
    __device__ __forceinline__ bool exists(int number) const { return number < units_; }

    __device__ __forceinline__ Unit at(int number, const DecodeBank& routed, const DecodeBank& shared) const {
        if (empty_) {
            return {false, 0, 0, 0, number, 0, 0, true};
        }
        Unit unit;
        unit.shared = number < shared_units_;
        const DecodeBank& bank = unit.shared ? shared : routed;
        int index = unit.shared ? number : number - shared_units_;
        int per_tile = units_per_tile(bank);
        int row_tiles = unit.shared ? shared_tiles_ : routed_tiles_;
        int tile = index / per_tile % row_tiles;
        unit.column_tile = index / per_tile / row_tiles;
        unit.first_slice = index % per_tile * bank.slices_per_unit;
        unit.slices = min(bank.slices_per_unit, Slices(bank.inputs).count - unit.first_slice);
        unit.split = per_tile > 1;
        if (unit.shared) {
            unit.group = 0;
            unit.row = tile * kRows;
            unit.rows = min(kRows, shared_rows_ - unit.row);
        } else {
            uint32_t bits = tiles_[tile];
            unit.group = static_cast<int>(bits >> 17);
            unit.row = static_cast<int>(bits >> 7) & (kMaxRows - 1);
            unit.rows = static_cast<int>(bits & 127);
        }
        return unit;
    }

private:
    const uint32_t* tiles_;
    int routed_tiles_;
    int shared_rows_ = 0;
    int shared_tiles_ = 0;
    int shared_units_ = 0;
    int units_;
    bool empty_ = false;
};

}  // namespace decode
