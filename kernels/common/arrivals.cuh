// How blocks that share a result find the one that completes it: none waits for another, the last to arrive goes on. A counter is 0
// before and after, so that it serves the next launch, and the next replay of a graph, as it is.
#pragma once

#include "ptx.cuh"

namespace arrivals {

// True in all the threads that meet at a named barrier, one thread of which leads, if they are the last of so many to come: then
// they see all that the others wrote before. flag is theirs, in shared memory.
__device__ __forceinline__ bool last(unsigned* counter, unsigned count, bool leads, int barrier, int threads, int* flag) {
    ptx::named_barrier_sync(barrier, threads);
    if (leads) {
        // For what all of them wrote: the barrier made it known to this thread. And in the other direction.
        __threadfence();
        *flag = atomicInc(counter, count - 1) == count - 1;
        __threadfence();
    }
    ptx::named_barrier_sync(barrier, threads);
    return *flag != 0;
}

}  // namespace arrivals
