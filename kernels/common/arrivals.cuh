// Blocks that hand their results to the one of them that arrives last, so that none ever waits for another.
#pragma once

#include "device.cuh"

namespace arrivals {

// Whether this block is the last of so many to arrive; every thread of each of them calls it once. The last sees what the
// others wrote before, if it does not read it through the cache for data that nobody writes. The counter, 0 before the launch,
// is 0 again behind it: atomicInc begins anew.
__device__ __forceinline__ bool is_last(unsigned* counter, unsigned blocks) {
    __syncthreads();
    if (blocks == 1) {
        return true;
    }
    bool last = false;
    if (threadIdx.x == 0) {
        // Behind the barrier, so that the fence covers what the whole block wrote.
        __threadfence();
        last = atomicInc(counter, blocks - 1) == blocks - 1;
        __threadfence();
    }
    return __syncthreads_or(last);
}

}  // namespace arrivals
