// Programmatic dependent launch. Included by ptx.cuh.
#pragma once

namespace ptx {

// wait returns when all grids before this one have completed and their writes are visible, at once where it was launched in the
// ordinary way; launch lets the next grid start early, which gives it no visibility. Every block of a grid that was launched early
// waits: else the next one's wait is for nothing. Devices before sm_90 start no grid early: there is nothing to say.

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
