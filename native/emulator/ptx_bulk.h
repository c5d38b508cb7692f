// Twins of kernels/common/ptx_bulk.cuh.
#pragma once

#include <cstdint>

#include "simt.h"

namespace ptx {

using emulator::Site;

struct TensorMap;

constexpr uint64_t EVICT_FIRST = 0x12f0000000000000;
constexpr uint64_t EVICT_LAST = 0x14f0000000000000;

struct Coordinates {
    int rank;
    int32_t at[5];
};

void tma_load(uint32_t target, const TensorMap* map, uint32_t barrier, Coordinates corner, Site site);
void tma_load_multicast(uint32_t target, const TensorMap* map, uint32_t barrier, Coordinates corner, uint16_t blocks,
                        Site site);
void tma_store(const TensorMap* map, uint32_t source, Coordinates corner, bool add, Site site);
void tma_prefetch(const TensorMap* map, Coordinates corner, Site site);

void prefetch_tensor_map(const TensorMap* map, Site site = Site::here());

inline void tma_load_1d(uint32_t target, const TensorMap* map, uint32_t barrier, int x, Site site = Site::here()) {
    tma_load(target, map, barrier, {1, {x}}, site);
}
inline void tma_load_2d(uint32_t target, const TensorMap* map, uint32_t barrier, int x, int y,
                        Site site = Site::here()) {
    tma_load(target, map, barrier, {2, {x, y}}, site);
}
inline void tma_load_3d(uint32_t target, const TensorMap* map, uint32_t barrier, int x, int y, int z,
                        Site site = Site::here()) {
    tma_load(target, map, barrier, {3, {x, y, z}}, site);
}
inline void tma_load_4d(uint32_t target, const TensorMap* map, uint32_t barrier, int x, int y, int z, int w,
                        Site site = Site::here()) {
    tma_load(target, map, barrier, {4, {x, y, z, w}}, site);
}
inline void tma_load_5d(uint32_t target, const TensorMap* map, uint32_t barrier, int x, int y, int z, int w, int v,
                        Site site = Site::here()) {
    tma_load(target, map, barrier, {5, {x, y, z, w, v}}, site);
}

// A hint changes nothing that can be seen here.
inline void tma_load_2d_hinted(uint32_t target, const TensorMap* map, uint32_t barrier, int x, int y, uint64_t,
                               Site site = Site::here()) {
    tma_load(target, map, barrier, {2, {x, y}}, site);
}
inline void tma_load_3d_hinted(uint32_t target, const TensorMap* map, uint32_t barrier, int x, int y, int z, uint64_t,
                               Site site = Site::here()) {
    tma_load(target, map, barrier, {3, {x, y, z}}, site);
}
inline void tma_load_5d_hinted(uint32_t target, const TensorMap* map, uint32_t barrier, int x, int y, int z, int w, int v, uint64_t,
                               Site site = Site::here()) {
    tma_load(target, map, barrier, {5, {x, y, z, w, v}}, site);
}

inline void tma_load_2d_multicast(uint32_t target, const TensorMap* map, uint32_t barrier, int x, int y,
                                  uint16_t blocks, Site site = Site::here()) {
    tma_load_multicast(target, map, barrier, {2, {x, y}}, blocks, site);
}
inline void tma_load_3d_multicast(uint32_t target, const TensorMap* map, uint32_t barrier, int x, int y, int z,
                                  uint16_t blocks, Site site = Site::here()) {
    tma_load_multicast(target, map, barrier, {3, {x, y, z}}, blocks, site);
}

inline void tma_prefetch_2d(const TensorMap* map, int x, int y, Site site = Site::here()) {
    tma_prefetch(map, {2, {x, y}}, site);
}

inline void tma_store_2d(const TensorMap* map, uint32_t source, int x, int y, Site site = Site::here()) {
    tma_store(map, source, {2, {x, y}}, false, site);
}
inline void tma_store_3d(const TensorMap* map, uint32_t source, int x, int y, int z, Site site = Site::here()) {
    tma_store(map, source, {3, {x, y, z}}, false, site);
}
inline void tma_store_4d(const TensorMap* map, uint32_t source, int x, int y, int z, int w, Site site = Site::here()) {
    tma_store(map, source, {4, {x, y, z, w}}, false, site);
}
inline void tma_reduce_add_2d(const TensorMap* map, uint32_t source, int x, int y, Site site = Site::here()) {
    tma_store(map, source, {2, {x, y}}, true, site);
}
inline void tma_reduce_add_3d(const TensorMap* map, uint32_t source, int x, int y, int z, Site site = Site::here()) {
    tma_store(map, source, {3, {x, y, z}}, true, site);
}

void bulk_load(uint32_t target, const void* source, uint32_t bytes, uint32_t barrier, Site site = Site::here());
void bulk_load_multicast(uint32_t target, const void* source, uint32_t bytes, uint32_t barrier, uint16_t blocks,
                         Site site = Site::here());
void bulk_copy_to_block(uint32_t target, uint32_t source, uint32_t bytes, uint32_t barrier, Site site = Site::here());
void bulk_store(void* target, uint32_t source, uint32_t bytes, Site site = Site::here());
void bulk_reduce_add_f32(float* target, uint32_t source, uint32_t bytes, Site site = Site::here());
void bulk_prefetch(const void* source, uint32_t bytes, Site site = Site::here());

void bulk_commit_group();
void bulk_wait(int pending, bool read_only);

template <int PENDING>
void bulk_wait_group() {
    static_assert(PENDING >= 0);
    bulk_wait(PENDING, false);
}

template <int PENDING>
void bulk_wait_group_read() {
    static_assert(PENDING >= 0);
    bulk_wait(PENDING, true);
}

}  // namespace ptx
