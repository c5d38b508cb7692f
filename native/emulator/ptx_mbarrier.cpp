// mbarrier objects.

#include <cinttypes>
#include <cstring>

#include "fail.h"
#include "ptx_barrier.h"
#include "ptx_state.h"

namespace emulator {

namespace {

constexpr uint32_t mbarrier_bytes = 8;
constexpr int32_t max_count = (1 << 20) - 1;

uint64_t signature(uint32_t offset) { return 0x6a6d6f652d6d6200ull ^ uint64_t(offset) * 0x9e3779b97f4a7c15ull; }

bool knows_init([[maybe_unused]] const Mbarrier& barrier, [[maybe_unused]] const Agent& agent) {
#if JMOE_EMULATOR_SHADOW
    return agent.number == barrier.init_agent || agent.seen.of(barrier.init_agent) >= barrier.init_step;
#else
    return true;
#endif
}

}  // namespace

Mbarrier& mbarrier_at(Block& from, uint32_t address, const char* what, Site site) {
    if (address % mbarrier_bytes != 0) {
        fail_at(site, "%s: mbarrier at %#x is not aligned to 8 bytes", what, address);
    }
    Block& owner = shared_owner(from, address, what, site);
    const std::byte* bytes = shared_pointer(from, address, mbarrier_bytes, what, site);
    const uint32_t offset = shared_offset(address);
    auto& mbarriers = ptx_state(owner).mbarriers;
    const auto found = mbarriers.find(offset);
    if (found == mbarriers.end()) {
        fail_at(site, "%s: mbarrier at %#x is not initialised", what, address);
    }
    uint64_t stored;
    std::memcpy(&stored, bytes, mbarrier_bytes);
    if (stored != signature(offset)) {
        fail_at(site, "%s: mbarrier at %#x was overwritten since it was initialised", what, address);
    }
    return found->second;
}

Mbarrier& mbarrier_for_thread(uint32_t address, const char* what, Site site) {
    Mbarrier& barrier = mbarrier_at(current_block(), address, what, site);
    Block& owner = shared_owner(current_block(), address, what, site);
    if (&owner == &current_block()) {
        if (!knows_init(barrier, running_agent())) {
            fail_at(site, "%s: mbarrier at %#x was initialised by another thread (%s:%d), with no barrier since", what,
                    address, short_name(barrier.init_site.file), barrier.init_site.line);
        }
    } else if (!barrier.fenced || own_copies().cluster_epoch <= barrier.fence_epoch) {
        fail_at(site,
                "%s: mbarrier at %#x of another block needs fence.mbarrier_init by the thread that initialised it, "
                "then barrier.cluster",
                what, address);
    }
    return barrier;
}

void mbarrier_add_arrivals(Mbarrier& barrier, uint32_t count, const char* what, Site site) {
    if (!barrier.observed) {
        fail_at(site,
                "%s: mbarrier at %#x: arrival in phase %" PRIu64 ", but no wait has returned true for phase %" PRIu64,
                what, barrier.address, barrier.phase, barrier.phase - 1);
    }
    if (count > barrier.pending) {
        fail_at(site, "%s: mbarrier at %#x: more arrivals than its count of %u", what, barrier.address,
                barrier.expected);
    }
    barrier.pending -= count;
}

void mbarrier_add_tx(Mbarrier& barrier, int64_t bytes, const char* what, Site site) {
    const int64_t tx = barrier.tx + bytes;
    if (tx > max_count || tx < -max_count) {
        fail_at(site, "%s: mbarrier at %#x: %" PRId64 " bytes outstanding, the range is -1048575 to 1048575", what,
                barrier.address, tx);
    }
    barrier.tx = int32_t(tx);
}

void mbarrier_hand_on(Mbarrier& barrier, Agent& agent, ArrivalKind kind) {
    switch (kind) {
        case ArrivalKind::local: barrier.arriving.any.release(agent); break;
        case ArrivalKind::remote_short: barrier.arriving.buffers.release(agent); break;
        case ArrivalKind::remote_release: barrier.arriving.cluster.release(agent); break;
    }
}

void mbarrier_settle(Mbarrier& barrier) {
    if (barrier.pending != 0 || barrier.tx != 0) {
        return;
    }
    barrier.phase++;
    barrier.pending = barrier.expected;
    barrier.observed = false;
    barrier.completed.any.add(barrier.arriving.any);
    barrier.completed.cluster.add(barrier.arriving.cluster);
    barrier.completed.buffers.add(barrier.arriving.buffers);
    barrier.arriving.any.clear();
    barrier.arriving.cluster.clear();
    barrier.arriving.buffers.clear();
    std::vector<Thread*> waiting;
    waiting.swap(barrier.waiting);
    for (Thread* thread : waiting) {
        wake(*thread);
    }
}

}  // namespace emulator

namespace ptx {

using namespace emulator;

namespace {

// Only false chances what the ISA allows: try_wait gives up after a time limit.
constexpr uint64_t spurious_chances = 3;

enum class WaitScope : uint8_t { block, cluster };

void check_own(uint32_t barrier, const char* what, Site site) {
    if (&shared_owner(current_block(), barrier, what, site) != &current_block()) {
        fail_at(site, "%s: mbarrier at %#x belongs to another block", what, barrier);
    }
}

bool phase_completed(const Mbarrier& barrier, uint32_t parity) { return (barrier.phase & 1) != parity; }

bool gives_up() {
    Cluster& cluster = *current_cluster;
    return cluster.schedule().async == async_random && cluster.random().one_in(spurious_chances);
}

void observe(Mbarrier& barrier, WaitScope scope) {
    barrier.observed = true;
    Agent& agent = running_agent();
    barrier.completed.any.acquire(agent);
    SyncPoint& buffers = own_copies().buffers;
    buffers.add(barrier.completed.buffers);
    if (scope == WaitScope::cluster) {
        barrier.completed.cluster.acquire(agent);
    } else {
        buffers.add(barrier.completed.cluster);
    }
}

std::string describe_wait(const Thread&, const void* object, uint64_t parity) {
    const auto& barrier = *static_cast<const Mbarrier*>(object);
    return text("mbarrier at %#x initialised at %s:%d: waits for parity %d, %" PRIu64
                " phases completed, %u of %u arrivals and %d bytes missing",
                barrier.address, short_name(barrier.init_site.file), barrier.init_site.line, int(parity), barrier.phase,
                barrier.pending, barrier.expected, barrier.tx);
}

bool wait_for_phase(uint32_t address, uint32_t parity, WaitScope scope, const char* what, Site site) {
    check_own(address, what, site);
    if (parity > 1) {
        fail_at(site, "%s: parity %u, expected 0 or 1", what, parity);
    }
    maybe_preempt();
    Mbarrier& barrier = mbarrier_for_thread(address, what, site);
    if (gives_up()) {
        poll(what, site);
        return false;
    }
    if (!phase_completed(barrier, parity)) {
        barrier.waiting.push_back(current_thread);
        block_on({.what = what, .site = site, .describe = describe_wait, .object = &barrier, .detail = parity});
        if (!phase_completed(barrier, parity)) {
            return false;
        }
    }
    observe(barrier, scope);
    return true;
}

void arrive(uint32_t address, uint32_t count, uint32_t bytes, const char* what, Site site) {
    check_own(address, what, site);
    maybe_preempt();
    Mbarrier& barrier = mbarrier_for_thread(address, what, site);
    mbarrier_add_tx(barrier, bytes, what, site);
    mbarrier_hand_on(barrier, running_agent(), ArrivalKind::local);
    mbarrier_add_arrivals(barrier, count, what, site);
    mbarrier_settle(barrier);
}

void change_tx(uint32_t address, int64_t bytes, const char* what, Site site) {
    maybe_preempt();
    Mbarrier& barrier = mbarrier_for_thread(address, what, site);
    mbarrier_add_tx(barrier, bytes, what, site);
    mbarrier_settle(barrier);
}

void arrive_remote(uint32_t address, ArrivalKind kind, const char* what, Site site) {
    maybe_preempt();
    Mbarrier& barrier = mbarrier_for_thread(address, what, site);
    const bool own = &shared_owner(current_block(), address, what, site) == &current_block();
    mbarrier_hand_on(barrier, running_agent(), own ? ArrivalKind::local : kind);
    mbarrier_add_arrivals(barrier, 1, what, site);
    mbarrier_settle(barrier);
}

}  // namespace

void mbarrier_init(uint32_t address, uint32_t count, Site site) {
    const char* what = "mbarrier.init";
    check_own(address, what, site);
    if (address % mbarrier_bytes != 0) {
        fail_at(site, "%s: %#x is not aligned to 8 bytes", what, address);
    }
    if (count < 1 || count > uint32_t(max_count)) {
        fail_at(site, "%s: count %u, expected 1 to 1048575", what, count);
    }
    std::byte* bytes = shared_pointer(address, mbarrier_bytes, what, site);
    const uint32_t offset = shared_offset(address);
    auto& mbarriers = ptx_state(current_block()).mbarriers;
    if (mbarriers.contains(offset)) {
        fail_at(site, "%s: the mbarrier at %#x is alive, mbarrier.inval must come first", what, address);
    }
    shared_write(running_agent(), address, mbarrier_bytes, Proxy::generic, what, site);
    const uint64_t stored = signature(offset);
    std::memcpy(bytes, &stored, mbarrier_bytes);
    shared_object(address, mbarrier_bytes, "an mbarrier");
    Mbarrier& barrier = mbarriers[offset];
    barrier.address = offset;
    barrier.expected = count;
    barrier.pending = count;
    barrier.init_site = site;
    barrier.init_thread = current_thread;
#if JMOE_EMULATOR_SHADOW
    barrier.init_agent = running_agent().number;
    barrier.init_step = running_agent().step;
#endif
    maybe_preempt();
}

void mbarrier_inval(uint32_t address, Site site) {
    const char* what = "mbarrier.inval";
    check_own(address, what, site);
    Mbarrier& barrier = mbarrier_for_thread(address, what, site);
    if (!barrier.waiting.empty()) {
        fail_at(site, "%s: %s still waits for the mbarrier at %#x", what, name_of(*barrier.waiting.front()).c_str(),
                address);
    }
    if (barrier.tx > 0) {
        fail_at(site, "%s: %d bytes are still on the way to the mbarrier at %#x", what, barrier.tx, address);
    }
    shared_object_gone(address, mbarrier_bytes);
    ptx_state(current_block()).mbarriers.erase(shared_offset(address));
    shared_write(running_agent(), address, mbarrier_bytes, Proxy::generic, what, site);
}

void mbarrier_arrive(uint32_t barrier, Site site) { arrive(barrier, 1, 0, "mbarrier.arrive", site); }

void mbarrier_arrive_count(uint32_t barrier, uint32_t count, Site site) {
    if (count < 1 || count > uint32_t(max_count)) {
        fail_at(site, "mbarrier.arrive: count %u, expected 1 to 1048575", count);
    }
    arrive(barrier, count, 0, "mbarrier.arrive", site);
}

void mbarrier_arrive_drop(uint32_t address, Site site) {
    const char* what = "mbarrier.arrive_drop";
    check_own(address, what, site);
    maybe_preempt();
    Mbarrier& barrier = mbarrier_for_thread(address, what, site);
    if (barrier.expected == 0) {
        fail_at(site, "%s: the mbarrier at %#x expects no arrivals any more", what, address);
    }
    mbarrier_hand_on(barrier, running_agent(), ArrivalKind::local);
    mbarrier_add_arrivals(barrier, 1, what, site);
    barrier.expected--;
    mbarrier_settle(barrier);
}

void mbarrier_expect_tx(uint32_t barrier, uint32_t bytes, Site site) {
    check_own(barrier, "mbarrier.expect_tx", site);
    change_tx(barrier, bytes, "mbarrier.expect_tx", site);
}

void mbarrier_arrive_expect_tx(uint32_t barrier, uint32_t bytes, Site site) {
    arrive(barrier, 1, bytes, "mbarrier.arrive.expect_tx", site);
}

void mbarrier_complete_tx(uint32_t barrier, uint32_t bytes, Site site) {
    check_own(barrier, "mbarrier.complete_tx", site);
    change_tx(barrier, -int64_t(bytes), "mbarrier.complete_tx", site);
}

bool mbarrier_test_wait(uint32_t address, uint32_t parity, Site site) {
    const char* what = "mbarrier.test_wait";
    check_own(address, what, site);
    if (parity > 1) {
        fail_at(site, "%s: parity %u, expected 0 or 1", what, parity);
    }
    Mbarrier& barrier = mbarrier_for_thread(address, what, site);
    if (!phase_completed(barrier, parity)) {
        poll(what, site);
        return false;
    }
    observe(barrier, WaitScope::block);
    return true;
}

bool mbarrier_try_wait(uint32_t barrier, uint32_t parity, Site site) {
    return wait_for_phase(barrier, parity, WaitScope::block, "mbarrier.try_wait", site);
}

bool mbarrier_try_wait_cluster(uint32_t barrier, uint32_t parity, Site site) {
    return wait_for_phase(barrier, parity, WaitScope::cluster, "mbarrier.try_wait.acquire.cluster", site);
}

void fence_mbarrier_init() {
    for (auto& [offset, barrier] : ptx_state(current_block()).mbarriers) {
        if (barrier.init_thread == current_thread && !barrier.fenced) {
            barrier.fenced = true;
            barrier.fence_epoch = own_copies().cluster_epoch;
        }
    }
}

void mbarrier_arrive_remote(uint32_t barrier, Site site) {
    arrive_remote(barrier, ArrivalKind::remote_short, "mbarrier.arrive.shared::cluster", site);
}

void mbarrier_arrive_remote_release(uint32_t barrier, Site site) {
    arrive_remote(barrier, ArrivalKind::remote_release, "mbarrier.arrive.release.cluster", site);
}

void mbarrier_expect_tx_remote(uint32_t barrier, uint32_t bytes, Site site) {
    change_tx(barrier, bytes, "mbarrier.expect_tx.shared::cluster", site);
}

void mbarrier_complete_tx_remote(uint32_t barrier, uint32_t bytes, Site site) {
    change_tx(barrier, -int64_t(bytes), "mbarrier.complete_tx.shared::cluster", site);
}

}  // namespace ptx
