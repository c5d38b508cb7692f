// The CUDA device language for g++: what kernels/common/device.cuh includes in place of CUDA's own headers.
//
// Deliberately absent: __shared__ (JMOE_SHARED, JMOE_DYNAMIC_SHARED), __activemask (it has no dependable meaning),
// cooperative groups, texture functions.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "block.h"
#include "cluster.h"
#include "export.h"
#include "fail.h"
#include "simt_atomics.h"
#include "simt_math.h"
#include "simt_types.h"
#include "simt_warp.h"

#define threadIdx (static_cast<const ::emulator::Dim3&>(::emulator::current_thread->thread_index))
#define blockIdx (static_cast<const ::emulator::Dim3&>(::emulator::current_thread->block_index))
#define blockDim (static_cast<const ::emulator::Dim3&>(::emulator::current_thread->block_dim))
#define gridDim (static_cast<const ::emulator::Dim3&>(::emulator::current_thread->grid_dim))

constexpr int warpSize = 32;

// A static shared array in the running block: EMULATOR_SHARED(float, row_max, [32]). `dims` may be empty.
#define EMULATOR_SHARED(type, name, dims)                                                              \
    using name##_array_type = type dims;                                                               \
    static const ::emulator::SharedArray name##_array = {#name, uint32_t(sizeof(name##_array_type)),   \
                                                         uint32_t(alignof(name##_array_type))};        \
    auto& name = *static_cast<name##_array_type*>(::emulator::static_shared(name##_array))

inline void __syncthreads(emulator::Site site = emulator::Site::here()) {
    emulator::barrier_sync(0, emulator::all_threads, site);
}

inline int __syncthreads_or(int predicate, emulator::Site site = emulator::Site::here()) {
    return emulator::barrier_sync(0, emulator::all_threads, site, emulator::BarrierVote::any, predicate != 0);
}

inline int __syncthreads_and(int predicate, emulator::Site site = emulator::Site::here()) {
    return emulator::barrier_sync(0, emulator::all_threads, site, emulator::BarrierVote::all, predicate != 0);
}

inline int __syncthreads_count(int predicate, emulator::Site site = emulator::Site::here()) {
    return emulator::barrier_sync(0, emulator::all_threads, site, emulator::BarrierVote::count, predicate != 0);
}

inline void __threadfence_block() { emulator::memory_fence(emulator::running_agent()); }
inline void __threadfence() { emulator::memory_fence(emulator::running_agent()); }
inline void __threadfence_system() { emulator::memory_fence(emulator::running_agent()); }

inline void __nanosleep(unsigned, emulator::Site site = emulator::Site::here()) {
    emulator::poll("__nanosleep", site);
}

// The caches these name do not exist here.
template <class T> T __ldg(const T* address) { return *address; }
template <class T> T __ldca(const T* address) { return *address; }
template <class T> T __ldcg(const T* address) { return *address; }
template <class T> T __ldcs(const T* address) { return *address; }
template <class T> T __ldlu(const T* address) { return *address; }
template <class T> T __ldcv(const T* address) { return *address; }
template <class T> void __stwb(T* address, T value) { *address = value; }
template <class T> void __stcg(T* address, T value) { *address = value; }
template <class T> void __stcs(T* address, T value) { *address = value; }
template <class T> void __stwt(T* address, T value) { *address = value; }

[[noreturn]] inline void __trap(emulator::Site site = emulator::Site::here()) { emulator::fail_at(site, "__trap"); }
