// cp.async.

#include "ptx_copy.h"

#include <cstring>

#include "fail.h"
#include "ptx_barrier.h"
#include "ptx_state.h"

namespace ptx {

using namespace emulator;

namespace {

// Waits for these copies: their bytes are visible to the running thread, and to nobody else.
void finish(const std::vector<AsyncTicket>& group) {
    for (const AsyncTicket& ticket : group) {
        complete(ticket);
        ticket->finished.acquire(running_agent());
    }
}

}  // namespace

void cp_async_bytes(uint32_t target, const void* source, int bytes, int source_bytes, Site site) {
    const char* what = "cp.async";
    if (target % bytes != 0) {
        fail_at(site, "%s: shared address %#x is not aligned to %d bytes", what, target, bytes);
    }
    if (reinterpret_cast<uintptr_t>(source) % bytes != 0) {
        fail_at(site, "%s: global address %p is not aligned to %d bytes", what, source, bytes);
    }
    if (source_bytes < 0 || source_bytes > bytes) {
        fail_at(site, "%s: src-size %d, expected 0 to %d", what, source_bytes, bytes);
    }
    shared_pointer(target, bytes, what, site);
    const auto copy = [=](AsyncOperation& operation) {
        if (source_bytes > 0) {
            global_read(operation.agent, source, source_bytes, what, site);
        }
        shared_write(operation.agent, target, bytes, Proxy::generic, what, site);
        std::byte* place = shared_pointer(*operation.block, target, bytes, what, site);
        std::memcpy(place, source, source_bytes);
        std::memset(place + source_bytes, 0, bytes - source_bytes);
    };
    own_copies().copies.open.push_back(defer(what, site, nullptr, copy));
}

void cp_async_commit_group(Site) {
    CopyGroups& copies = own_copies().copies;
    copies.committed.push_back(std::move(copies.open));
    copies.open.clear();
}

void cp_async_wait(int pending, Site) {
    CopyGroups& copies = own_copies().copies;
    while (int(copies.committed.size()) > pending) {
        finish(copies.committed.front());
        copies.committed.pop_front();
    }
}

void cp_async_wait_all(Site site) {
    cp_async_commit_group(site);
    cp_async_wait(0, site);
}

namespace {

// An arrival that waits for all copies of this thread so far, committed or not.
void arrive_after_copies(uint32_t address, bool raise_pending, Site site) {
    const char* what = raise_pending ? "cp.async.mbarrier.arrive" : "cp.async.mbarrier.arrive.noinc";
    if (&shared_owner(current_block(), address, what, site) != &current_block()) {
        fail_at(site, "%s: mbarrier at %#x belongs to another block", what, address);
    }
    Mbarrier& barrier = mbarrier_for_thread(address, what, site);
    if (raise_pending) {
        barrier.pending++;
    }
    const CopyGroups& copies = own_copies().copies;
    std::vector<AsyncTicket> earlier = copies.open;
    for (const auto& group : copies.committed) {
        earlier.insert(earlier.end(), group.begin(), group.end());
    }
    const auto arrive = [=](AsyncOperation& operation) {
        for (const AsyncTicket& ticket : earlier) {
            complete(ticket);
            ticket->finished.acquire(operation.agent);
        }
        Mbarrier& then = mbarrier_at(*operation.block, address, what, site);
        mbarrier_hand_on(then, operation.agent, ArrivalKind::local);
        mbarrier_add_arrivals(then, 1, what, site);
        mbarrier_settle(then);
    };
    defer(what, site, nullptr, arrive);
}

}  // namespace

void cp_async_mbarrier_arrive(uint32_t barrier, Site site) { arrive_after_copies(barrier, true, site); }

void cp_async_mbarrier_arrive_noinc(uint32_t barrier, Site site) { arrive_after_copies(barrier, false, site); }

}  // namespace ptx
