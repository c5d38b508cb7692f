// The clocks of the device. Included by ptx.cuh.
#pragma once

namespace ptx {

// Cycles of this multiprocessor: differences within a block mean something.
__device__ __forceinline__ uint64_t clock_cycles() {
    uint64_t cycles;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles)::"memory");
    return cycles;
}

// Nanoseconds of a clock that all multiprocessors share. It may advance in steps of a microsecond.
__device__ __forceinline__ uint64_t clock_nanoseconds() {
    uint64_t nanoseconds;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds)::"memory");
    return nanoseconds;
}

}  // namespace ptx
