// Grids that overlap by programmatic dependent launch, and blocks of which the last one to arrive goes on.
#include "common/ptx.cuh"

// The block does nothing else for about so long.
__device__ __forceinline__ void linger(uint64_t nanoseconds) {
#ifdef JMOE_SM90
    if (threadIdx.x == 0) {
        const uint64_t start = ptx::clock_nanoseconds();
        while (ptx::clock_nanoseconds() - start < nanoseconds) {
        }
    }
    __syncthreads();
#endif
}

// out[i] = in[i] + value, late; ends: [blocks] u64, when each block was done. With trigger the next grid may start
// before.
extern "C" __global__ void __launch_bounds__(128)
    probe_grid_first(const int* in, int* out, unsigned long long* ends, int value, int trigger) {
#ifdef JMOE_SM90
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (trigger != 0) {
        ptx::grid_dependency_launch();
    }
    linger(20000);
    out[i] = in[i] + value;
    __syncthreads();
    if (threadIdx.x == 0) {
        ends[blockIdx.x] = ptx::clock_nanoseconds();
    }
#endif
}
JMOE_EXPORT(probe_grid_first, 128, 1, 0);

// out[i] = first[i] + second[i] + value, after a wait; starts: [blocks] u64, when each block began. With trigger the
// next grid may start before the wait is over.
extern "C" __global__ void __launch_bounds__(128)
    probe_grid_next(const int* first, const int* second, int* out, unsigned long long* starts, int value, int trigger) {
#ifdef JMOE_SM90
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x == 0) {
        starts[blockIdx.x] = ptx::clock_nanoseconds();
    }
    if (trigger != 0) {
        ptx::grid_dependency_launch();
    }
    ptx::grid_dependency_wait();
    out[i] = first[i] + second[i] + value;
#endif
}
JMOE_EXPORT(probe_grid_next, 128, 1, 0);

// One warp waits, another one loads: the wait is handed on by an mbarrier. out[i] = in[i] + value.
extern "C" __global__ void __launch_bounds__(128) probe_grid_handed_on(const int* in, int* out, int value) {
#ifdef JMOE_SM90
    JMOE_SHARED(unsigned long long, word, [1]);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t barrier = ptx::shared_address(word);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::grid_dependency_wait();
        ptx::mbarrier_arrive(barrier);
    }
    ptx::mbarrier_wait(barrier, 0);
    out[i] = in[i] + value;
#endif
}
JMOE_EXPORT(probe_grid_handed_on, 128, 1, 0);

// parts: [blocks][128]. The last block to arrive adds up what other threads of all blocks have stored, and counts
// itself in out[128]. arrivals is 0 before and after.
extern "C" __global__ void __launch_bounds__(128)
    probe_last_to_arrive(const int* in, int* parts, unsigned* arrivals, int* out) {
    JMOE_SHARED(int, is_last, [1]);
    parts[blockIdx.x * 128 + threadIdx.x] = in[threadIdx.x] * int(blockIdx.x + 1);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last[0] = atomicInc(arrivals, gridDim.x - 1) == gridDim.x - 1;
    }
    __threadfence();
    __syncthreads();
    if (is_last[0]) {
        int sum = 0;
        for (unsigned block = 0; block < gridDim.x; block++) {
            sum += parts[block * 128 + (threadIdx.x + 33) % 128];
        }
        out[threadIdx.x] = sum;
        if (threadIdx.x == 0) {
            atomicAdd(&out[128], 1);
        }
    }
}
JMOE_EXPORT(probe_last_to_arrive, 128, 1, 0);
