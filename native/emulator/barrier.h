// Barriers of a block (barrier 0 is __syncthreads) and of a cluster.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "shadow.h"
#include "site.h"

namespace emulator {

struct Thread;

constexpr int num_barriers = 16;
constexpr int all_threads = -1;

enum class BarrierVote : uint8_t { none, any, all, count };

struct Barrier {
    int arrived = 0;
    int expected = 0;
    BarrierVote vote = BarrierVote::none;
    int votes = 0;
    Site first_site;
    Thread* first_thread = nullptr;
    std::vector<Thread*> waiting;
    SyncPoint sync;
};

// barrier.cluster: one phase at a time, arriving and waiting apart.
struct ClusterBarrier {
    uint64_t phase = 0;
    size_t arrived = 0;
    std::vector<Thread*> waiting;
    SyncPoint gathering;
    SyncPoint completed;  // of the phase before; nobody can complete another before all have waited for it
};

// bar.sync / bar.red: waits until `threads` threads of the block have come. all_threads: every thread of the block,
// which must come to the same line; it is an error if one has exited. Otherwise a multiple of 32. Returns the vote.
int barrier_sync(int id, int threads, Site site, BarrierVote vote = BarrierVote::none, bool predicate = false);

// bar.arrive: counts as one of them, without waiting.
void barrier_arrive(int id, int threads, Site site);

// barrier.cluster.arrive / .wait, once each in turn by every thread of the cluster that has not exited. `release`,
// `acquire`: whether memory is ordered (not with .relaxed).
void cluster_arrive(Site site, bool release = true);
void cluster_wait(Site site, bool acquire = true);

// A thread exits: an error if others wait for it in __syncthreads; a cluster barrier no longer counts it.
void leave_barriers(Thread& thread);

}  // namespace emulator
