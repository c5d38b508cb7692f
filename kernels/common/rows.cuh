// How a grid shares rows and their columns. Blocks along x take kRows rows each; blocks along y share the columns, and there
// may be any number of them: a host adds some where there are too few rows to fill the device.
#pragma once

#include "device.cuh"

namespace rows {

constexpr int kThreads = 256;
constexpr int kRows = 2;
constexpr int kRowThreads = kThreads / kRows;

// The row of this thread; one past 2^31 in the last block stays comparable.
__device__ __forceinline__ long long row() {
    return static_cast<long long>(blockIdx.x) * kRows + threadIdx.x / kRowThreads;
}

// Columns are counted in vectors: this thread's first one, and the step to its next.
__device__ __forceinline__ long long first_column() {
    return static_cast<long long>(blockIdx.y) * kRowThreads + threadIdx.x % kRowThreads;
}

__device__ __forceinline__ long long column_step() { return static_cast<long long>(gridDim.y) * kRowThreads; }

}  // namespace rows
