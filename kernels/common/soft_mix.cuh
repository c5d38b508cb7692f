// The sums of Soft-MoE: out[i] = sum_j w[i,j] from[j], with w[i,j] = exp(logit[i,j] - max[i]) inverse[i]. Of softDispatch the
// targets i are slots and the sources j tokens, of softCombine the other way round; logits are [tokens, slots] of both.
#pragma once

#include "dtypes.cuh"
#include "special.cuh"

namespace soft_mix {

using dtypes::Values;

constexpr int kThreads = 256;

// Blocks that a multiprocessor must have room for: with four of them ptxas spills on sm_80.
constexpr int kBlocks = 3;

// Targets, columns and sources of a tile. A thread has two targets and every 16th column.
constexpr int kTargets = 32;
constexpr int kColumns = 64;
constexpr int kSources = 32;
constexpr int kColumnThreads = 16;
constexpr int kOwnColumns = kColumns / kColumnThreads;

// One more than the targets, so that neither way of filling it meets conflicts of banks.
constexpr int kWeightStride = kTargets + 1;

struct Tile {
    float* weights;  // [kSources][kWeightStride]
    float* values;   // [kSources][kColumns]
};

struct Softmax {
    const float* logits;
    const float* maxima;    // of each target
    const float* inverses;  // 1 / sum of exp(logit - maximum)
    int targets;
    int sources;
};

// Neighbouring threads take what is adjacent in memory: targets or sources.
template <bool targets_adjacent>
__device__ __forceinline__ void load_weights(const Softmax& softmax, const Tile& tile, long long target0, int source0) {
#pragma unroll
    for (int n = 0; n < kTargets * kSources / kThreads; n++) {
        int index = n * kThreads + static_cast<int>(threadIdx.x);
        int i = targets_adjacent ? index % kTargets : index / kSources;
        int j = targets_adjacent ? index / kTargets : index % kSources;
        long long target = target0 + i;
        long long source = static_cast<long long>(source0) + j;
        float weight = 0.0f;
        if (target < softmax.targets && source < softmax.sources) {
            long long at = targets_adjacent ? source * softmax.targets + target : target * softmax.sources + source;
            weight = expf(softmax.logits[at] - softmax.maxima[target]) * softmax.inverses[target];
        }
        tile.weights[j * kWeightStride + i] = weight;
    }
}

template <class V, int count>
__device__ __forceinline__ void load_values(const typename V::Bits* from, const Tile& tile, int source0, int sources,
                                            long long column0, int hidden) {
#pragma unroll
    for (int n = 0; n < kSources * kColumns / count / kThreads; n++) {
        int index = (n * kThreads + static_cast<int>(threadIdx.x)) * count;
        long long source = static_cast<long long>(source0) + index / kColumns;
        long long column = column0 + index % kColumns;
        Values<count> values = {};
        if (source < sources && column < hidden) {
            values = dtypes::load<V, count>(from + source * hidden + column);
        }
#pragma unroll
        for (int k = 0; k < count; k++) {
            tile.values[index + k] = values.at[k];
        }
    }
}

struct Sums {
    float first[kOwnColumns];   // of this thread's first target
    float second[kOwnColumns];  // of the one behind it
};

__device__ __forceinline__ void add_tile(const Tile& tile, Sums& sums) {
    int target = static_cast<int>(threadIdx.x) / kColumnThreads * 2;
    int column = static_cast<int>(threadIdx.x) % kColumnThreads;
#pragma unroll 8
    for (int j = 0; j < kSources; j++) {
        float first = tile.weights[j * kWeightStride + target];
        float second = tile.weights[j * kWeightStride + target + 1];
#pragma unroll
        for (int k = 0; k < kOwnColumns; k++) {
            float value = tile.values[j * kColumns + column + k * kColumnThreads];
            sums.first[k] = fmaf(first, value, sums.first[k]);
            sums.second[k] = fmaf(second, value, sums.second[k]);
        }
    }
}

template <class O>
__device__ __forceinline__ void store_sums(const Sums& sums, typename O::Bits* out, int targets, long long target0,
                                           long long column0, int hidden) {
    long long target = target0 + threadIdx.x / kColumnThreads * 2;
#pragma unroll
    for (int k = 0; k < kOwnColumns; k++) {
        long long column = column0 + threadIdx.x % kColumnThreads + k * kColumnThreads;
        if (column < hidden && target < targets) {
            out[target * hidden + column] = O::encode(sums.first[k]);
        }
        if (column < hidden && target + 1 < targets) {
            out[(target + 1) * hidden + column] = O::encode(sums.second[k]);
        }
    }
}

// A block sums one tile of targets; blocks along y share the columns.
template <class V, class O, bool targets_adjacent>
__device__ void mix(const typename V::Bits* from, const Softmax& softmax, const Tile& tile, typename O::Bits* out, int hidden) {
    long long target0 = static_cast<long long>(blockIdx.x) * kTargets;
    bool vectors = dtypes::vectors_fit(hidden, from, nullptr);
    long long step = static_cast<long long>(gridDim.y) * kColumns;
    for (long long column0 = static_cast<long long>(blockIdx.y) * kColumns; column0 < hidden; column0 += step) {
        Sums sums = {};
        for (long long source0 = 0; source0 < softmax.sources; source0 += kSources) {
            int first = static_cast<int>(source0);
            load_weights<targets_adjacent>(softmax, tile, target0, first);
            if (vectors) {
                load_values<V, dtypes::kVector>(from, tile, first, softmax.sources, column0, hidden);
            } else {
                load_values<V, 1>(from, tile, first, softmax.sources, column0, hidden);
            }
            __syncthreads();
            add_tile(tile, sums);
            __syncthreads();
        }
        store_sums<O>(sums, out, softmax.targets, target0, column0, hidden);
    }
}

}  // namespace soft_mix
