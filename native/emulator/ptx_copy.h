// Twins of kernels/common/ptx_copy.cuh.
#pragma once

#include <cstdint>

#include "simt.h"

namespace ptx {

using emulator::Site;

inline uint32_t shared_address(const void* pointer, Site site = Site::here()) {
    return emulator::shared_address(pointer, site);
}

inline uint4 load_streamed(const uint4* source) { return *source; }
inline void store_streamed(uint4* target, uint4 value) { *target = value; }

void cp_async_bytes(uint32_t target, const void* source, int bytes, int source_bytes, Site site);

template <int BYTES>
void cp_async(uint32_t target, const void* source, int source_bytes = BYTES, Site site = Site::here()) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    cp_async_bytes(target, source, BYTES, source_bytes, site);
}

void cp_async_commit_group(Site site = Site::here());
void cp_async_wait(int pending, Site site);
void cp_async_wait_all(Site site = Site::here());

template <int PENDING>
void cp_async_wait_group(Site site = Site::here()) {
    static_assert(PENDING >= 0);
    cp_async_wait(PENDING, site);
}

inline void named_barrier_sync(int barrier, int threads, Site site = Site::here()) {
    emulator::barrier_sync(barrier, threads, site);
}

inline void named_barrier_arrive(int barrier, int threads, Site site = Site::here()) {
    emulator::barrier_arrive(barrier, threads, site);
}

}  // namespace ptx
