// How blocks that share a result find the one that completes it: none waits for another, the last to arrive goes on. A counter is 0
// before and after, so that it serves the next launch, and the next replay of a graph, as it is.
#pragma once

#include "ptx.cuh"

namespace arrivals {

// One thread arrives for others that met at a barrier before, and that it meets at one behind: that makes known to it what they
// wrote, and to them what those wrote that arrived before.
__device__ __forceinline__ bool arrive(unsigned* counter, unsigned count) {
    __threadfence();
    bool last = atomicInc(counter, count - 1) == count - 1;
    __threadfence();
    return last;
}

// Whether this block is the last of so many to arrive; every thread of each of them calls it.
__device__ __forceinline__ bool is_last(unsigned* counter, unsigned blocks) {
    __syncthreads();
    if (blocks == 1) {
        return true;
    }
    return __syncthreads_or(threadIdx.x == 0 && arrive(counter, blocks));
}

// The same for the threads of a named barrier, one of which leads. flag is theirs, in shared memory.
__device__ __forceinline__ bool is_last(unsigned* counter, unsigned count, bool leads, int barrier, int threads, int* flag) {
    ptx::named_barrier_sync(barrier, threads);
    if (leads) {
        *flag = arrive(counter, count);
    }
    ptx::named_barrier_sync(barrier, threads);
    return *flag != 0;
}

}  // namespace arrivals
