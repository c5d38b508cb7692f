// Random numbers by counter, as jmoe.ops.SplitMix: the n-th number of SplitMix64 needs none of those before it.
#pragma once

#include "device.cuh"

namespace split_mix {

__device__ __forceinline__ uint64_t bits(uint64_t seed, uint64_t counter) {
    uint64_t z = seed + (counter + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// From 0 to below 1, a multiple of 2^-24.
__device__ __forceinline__ double uniform(uint64_t seed, uint64_t counter) {
    return static_cast<double>(bits(seed, counter) >> 40) * 0x1p-24;
}

}  // namespace split_mix
