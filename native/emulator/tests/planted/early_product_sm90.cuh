// A matrix times a vector that the launch in front makes, by a launch that starts early: one warp loads, another one
// multiplies, and the last block to arrive adds up the slices of the inputs. 32 outputs and 64 inputs per block.
// Included once for each PLANTED: 0 is correct, the others have the mistake that stands beside their #if.

extern "C" __global__ void __launch_bounds__(64, 1)
    PLANTED_KERNEL(const float* __restrict__ weight, const float* x, float* parts, unsigned* arrivals, float* y,
                   int inputs) {
#ifdef JMOE_SM90
    JMOE_DYNAMIC_SHARED(shared);
    JMOE_SHARED(unsigned long long, full_word, [1]);
    const uint32_t full = ptx::shared_address(full_word);
    const uint32_t tile = ptx::shared_address(shared);
    const int lane = threadIdx.x % 32;
    const int column = blockIdx.x * 32 + lane;
    const int slice = blockIdx.y;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(full, 1);
    }
    __syncthreads();
    ptx::grid_dependency_launch();
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect_tx(full, 33 * 256);
        for (int row = 0; row < 32; row++) {
            ptx::bulk_load(tile + row * 256, weight + (blockIdx.x * 32 + row) * inputs + slice * 64, 256, full);
        }
#if PLANTED == 4  // x is on its way already
        ptx::bulk_load(tile + 32 * 256, x + slice * 64, 256, full);
#endif
#if PLANTED != 1 && PLANTED != 2  // nobody waits, or not the warp that loads
        ptx::grid_dependency_wait();
#endif
#if PLANTED != 4
        ptx::bulk_load(tile + 32 * 256, x + slice * 64, 256, full);
#endif
    }
    if (threadIdx.x >= 32) {
#if PLANTED == 2
        ptx::grid_dependency_wait();
#endif
#if PLANTED == 3  // the launch in front may not have read it
        y[column] = 0;
#endif
        ptx::mbarrier_wait(full, 0);
        const float* rows = reinterpret_cast<const float*>(shared);
        float sum = 0;
        for (int k = 0; k < 64; k++) {
            sum += rows[lane * 64 + k] * rows[32 * 64 + k];
        }
        const int columns = gridDim.x * 32;
        parts[slice * columns + column] = sum;
#if PLANTED != 5  // the atomic overtakes the sums
        __threadfence();
#endif
        __syncwarp();
        unsigned before = 0;
        if (lane == 0) {
            before = atomicInc(&arrivals[blockIdx.x], gridDim.y - 1);
#if PLANTED != 6  // what the others stored may be read before their arrival is seen
            __threadfence();
#endif
        }
#if PLANTED != 7  // a shuffle alone orders no memory
        __syncwarp();
#endif
        if (__shfl_sync(0xffffffff, before, 0) == gridDim.y - 1) {
            float total = 0;
            for (unsigned other = 0; other < gridDim.y; other++) {
                total += parts[other * columns + column];
            }
            y[column] = total;
        }
    }
#endif
}
PLANTED_EXPORT(PLANTED_KERNEL, 64, 32, 33 * 256);
