// Programmatic dependent launch. Included by ptx.cuh.
#pragma once

namespace ptx {

// wait returns when all grids before this one have completed and their writes are visible; launch lets the next grid start early,
// which gives it no visibility. Before sm_90 no grid starts early.

__device__ __forceinline__ void grid_dependency_wait() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void grid_dependency_launch() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace ptx
