// elect, clusters, distributed shared memory, and grids that depend on others.

#include <cstring>

#include "fail.h"
#include "ptx_barrier.h"
#include "ptx_state.h"

namespace ptx {

using namespace emulator;

// Which lane is not specified: it differs from seed to seed.
bool elect_one(Site site) {
    collective(Scope::warp, 0xffffffff, "elect.sync", site, nullptr, nullptr, {.same_place = true});
    const Schedule& schedule = current_cluster->schedule();
    const int elected = schedule.policy == in_order ? 0 : int(schedule.seed % warp_lanes);
    return current_thread->lane() == elected;
}

uint32_t cluster_rank() { return current_block().rank; }

uint32_t cluster_size() { return uint32_t(current_cluster->blocks().size()); }

void cluster_arrive(Site site) { emulator::cluster_arrive(site, true); }

void cluster_arrive_relaxed(Site site) { emulator::cluster_arrive(site, false); }

void cluster_wait(Site site) {
    emulator::cluster_wait(site, true);
    own_copies().cluster_epoch++;
}

void grid_dependency_wait(Site site) {
    current_thread->site = site;
    current_block().waited = true;
    wait_for_grids(running_agent());
    maybe_preempt();
}

uint32_t cluster_load_u32(uint32_t address, Site site) {
    const char* what = "ld.shared::cluster";
    const std::byte* bytes = shared_pointer(address, 4, what, site);
    if (address % 4 != 0) {
        fail_at(site, "%s: %#x is not aligned to 4 bytes", what, address);
    }
    maybe_preempt();
    shared_read(running_agent(), address, 4, Proxy::generic, what, site);
    uint32_t value;
    std::memcpy(&value, bytes, 4);
    return value;
}

void cluster_store_u32(uint32_t address, uint32_t value, Site site) {
    const char* what = "st.shared::cluster";
    std::byte* bytes = shared_pointer(address, 4, what, site);
    if (address % 4 != 0) {
        fail_at(site, "%s: %#x is not aligned to 4 bytes", what, address);
    }
    maybe_preempt();
    shared_write(running_agent(), address, 4, Proxy::generic, what, site);
    std::memcpy(bytes, &value, 4);
}

namespace {

// st.async: the store and its complete_tx, some time later.
void store_async(uint32_t address, const void* value, uint32_t bytes, uint32_t barrier, Site site) {
    const char* what = "st.async";
    if (cluster_size() == 1) {
        fail_at(site, "%s in a cluster of one block is undefined", what);
    }
    Block& block = current_block();
    if (&shared_owner(block, address, what, site) != &shared_owner(block, barrier, what, site)) {
        fail_at(site, "%s: destination %#x and mbarrier %#x lie in different blocks", what, address, barrier);
    }
    if (address % bytes != 0) {
        fail_at(site, "%s: %#x is not aligned to %u bytes", what, address, bytes);
    }
    shared_pointer(address, bytes, what, site);
    mbarrier_for_thread(barrier, what, site);
    uint4 data = {};
    std::memcpy(&data, value, bytes);
    const auto store = [=](AsyncOperation& operation) {
        shared_write(operation.agent, address, bytes, Proxy::generic, what, site);
        std::memcpy(shared_pointer(*operation.block, address, bytes, what, site), &data, bytes);
        Mbarrier& then = mbarrier_at(*operation.block, barrier, what, site);
        mbarrier_hand_on(then, operation.agent, ArrivalKind::local);
        mbarrier_add_tx(then, -int64_t(bytes), what, site);
        mbarrier_settle(then);
    };
    defer(what, site, nullptr, store, &own_copies().buffers);
}

}  // namespace

void store_async_u32(uint32_t address, uint32_t value, uint32_t barrier, Site site) {
    store_async(address, &value, sizeof value, barrier, site);
}

void store_async_v4_u32(uint32_t address, uint4 value, uint32_t barrier, Site site) {
    store_async(address, &value, sizeof value, barrier, site);
}

}  // namespace ptx
