// How kernels that measure say what they found.
#pragma once

#include "common/ptx.cuh"

namespace measure {

// Of one block.
struct Times {
    unsigned long long cycles;
    unsigned long long nanoseconds;
    unsigned long long bytes;     // that came or went meanwhile, where that is not known beforehand
    unsigned long long checksum;  // of what was there in the end
};

struct Stopwatch {
    unsigned long long cycles;
    unsigned long long nanoseconds;

    // Beginning to end of a block's work: barriers of all its threads stand in front of both.
    __device__ __forceinline__ void start() {
        nanoseconds = ptx::clock_nanoseconds();
        cycles = ptx::clock_cycles();
    }

    __device__ __forceinline__ void stop(Times& times) const {
        times.cycles = ptx::clock_cycles() - cycles;
        times.nanoseconds = ptx::clock_nanoseconds() - nanoseconds;
    }
};

// Both operands of wgmma in shared memory: rows of 64 bf16, with the 128-byte swizzle.
constexpr int kRowBytes = 128;
constexpr int kWarpgroup = 128;
constexpr int kRows = 64;  // of a warpgroup
constexpr int kRowsBytes = kRows * kRowBytes;

// Copies an image to the start of shared memory, by all threads. A barrier comes after it.
__device__ __forceinline__ void load_image(unsigned char* shared, const void* image, int bytes) {
    for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
        reinterpret_cast<uint4*>(shared)[i] = static_cast<const uint4*>(image)[i];
    }
#ifdef JMOE_SM90
    ptx::fence_proxy_async();
#endif
}

}  // namespace measure
