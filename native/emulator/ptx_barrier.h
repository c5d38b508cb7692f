// Twins of kernels/common/ptx_barrier.cuh and ptx_cluster.cuh.
#pragma once

#include <cstdint>

#include "simt.h"

namespace ptx {

using emulator::Site;

bool elect_one(Site site = Site::here());

void mbarrier_init(uint32_t barrier, uint32_t count, Site site = Site::here());
void mbarrier_inval(uint32_t barrier, Site site = Site::here());
void mbarrier_arrive(uint32_t barrier, Site site = Site::here());
void mbarrier_arrive_count(uint32_t barrier, uint32_t count, Site site = Site::here());
void mbarrier_arrive_drop(uint32_t barrier, Site site = Site::here());
void mbarrier_expect_tx(uint32_t barrier, uint32_t bytes, Site site = Site::here());
void mbarrier_arrive_expect_tx(uint32_t barrier, uint32_t bytes, Site site = Site::here());
void mbarrier_complete_tx(uint32_t barrier, uint32_t bytes, Site site = Site::here());

bool mbarrier_test_wait(uint32_t barrier, uint32_t parity, Site site = Site::here());
bool mbarrier_try_wait(uint32_t barrier, uint32_t parity, Site site = Site::here());
bool mbarrier_try_wait_cluster(uint32_t barrier, uint32_t parity, Site site = Site::here());

inline void mbarrier_wait(uint32_t barrier, uint32_t parity, Site site = Site::here()) {
    while (!mbarrier_try_wait(barrier, parity, site)) {
    }
}

inline void mbarrier_wait_cluster(uint32_t barrier, uint32_t parity, Site site = Site::here()) {
    while (!mbarrier_try_wait_cluster(barrier, parity, site)) {
    }
}

void cp_async_mbarrier_arrive(uint32_t barrier, Site site = Site::here());
void cp_async_mbarrier_arrive_noinc(uint32_t barrier, Site site = Site::here());

void fence_mbarrier_init();
inline void fence_proxy_async() { emulator::proxy_fence(emulator::running_agent()); }
inline void fence_proxy_async_global() { emulator::proxy_fence(emulator::running_agent()); }

void set_registers(bool increase, int registers, Site site);

template <int REGISTERS>
void setmaxnreg_inc(Site site = Site::here()) {
    static_assert(REGISTERS >= 24 && REGISTERS <= 256 && REGISTERS % 8 == 0, "setmaxnreg takes 24, 32, ... 256");
    set_registers(true, REGISTERS, site);
}

template <int REGISTERS>
void setmaxnreg_dec(Site site = Site::here()) {
    static_assert(REGISTERS >= 24 && REGISTERS <= 256 && REGISTERS % 8 == 0, "setmaxnreg takes 24, 32, ... 256");
    set_registers(false, REGISTERS, site);
}

// Grids run one after another here: what a kernel may read only after grid_dependency_wait is there from the start, and
// the race build reports who does not wait for it. Nothing comes of grid_dependency_launch.
void grid_dependency_wait(Site site = Site::here());
inline void grid_dependency_launch() {}

uint32_t cluster_rank();
uint32_t cluster_size();

inline uint32_t mapa(uint32_t address, uint32_t rank, Site site = Site::here()) {
    return emulator::map_shared_rank(address, rank, site);
}

void cluster_arrive(Site site = Site::here());
void cluster_arrive_relaxed(Site site = Site::here());
void cluster_wait(Site site = Site::here());

inline void cluster_sync(Site site = Site::here()) {
    ptx::cluster_arrive(site);
    ptx::cluster_wait(site);
}

inline void fence_acq_rel_cluster() { emulator::memory_fence(emulator::running_agent()); }

uint32_t cluster_load_u32(uint32_t address, Site site = Site::here());
void cluster_store_u32(uint32_t address, uint32_t value, Site site = Site::here());

void mbarrier_arrive_remote(uint32_t barrier, Site site = Site::here());
void mbarrier_arrive_remote_release(uint32_t barrier, Site site = Site::here());
void mbarrier_expect_tx_remote(uint32_t barrier, uint32_t bytes, Site site = Site::here());
void mbarrier_complete_tx_remote(uint32_t barrier, uint32_t bytes, Site site = Site::here());

void store_async_u32(uint32_t address, uint32_t value, uint32_t barrier, Site site = Site::here());
void store_async_v4_u32(uint32_t address, uint4 value, uint32_t barrier, Site site = Site::here());

}  // namespace ptx
