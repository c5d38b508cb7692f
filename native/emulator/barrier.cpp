#include "barrier.h"

#include <cstring>

#include "cluster.h"
#include "fail.h"

namespace emulator {

namespace {

bool same_place(Site a, Site b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

std::string describe_barrier(const Thread&, const void* object, uint64_t id) {
    const Barrier& barrier = *static_cast<const Barrier*>(object);
    return text("barrier %lu, %d of %d threads have come", id, barrier.arrived, barrier.expected);
}

std::string describe_cluster_barrier(const Thread&, const void* object, uint64_t) {
    const ClusterBarrier& barrier = *static_cast<const ClusterBarrier*>(object);
    return text("%zu of %zu threads have arrived", barrier.arrived, current_cluster->num_running());
}

void check_use(const Block& block, int id, int threads) {
    if (id < 0 || id >= num_barriers) {
        fail("barrier %d: there are barriers 0 to %d", id, num_barriers - 1);
    }
    if (threads == all_threads) {
        if (block.num_exited > 0) {
            fail("__syncthreads after %d threads of the block have exited: every thread must reach it",
                 block.num_exited);
        }
    } else if (threads <= 0 || threads % warp_lanes != 0 || threads > int(block.threads.size())) {
        fail("barrier %d: %d threads; a positive multiple of 32 up to the %zu of the block is needed", id, threads,
             block.threads.size());
    }
}

void check_agreement(const Barrier& barrier, int id, int threads, int expected, BarrierVote vote, Site site) {
    if (barrier.expected != expected) {
        fail("barrier %d is used with %d threads here, and with %d by %s at %s:%d", id, expected, barrier.expected,
             name_of(*barrier.first_thread).c_str(), short_name(barrier.first_site.file), barrier.first_site.line);
    }
    bool divergent = threads == all_threads && !same_place(barrier.first_site, site);
    if (divergent || barrier.vote != vote) {
        fail("__syncthreads reached at two places: here, and by %s at %s:%d", name_of(*barrier.first_thread).c_str(),
             short_name(barrier.first_site.file), barrier.first_site.line);
    }
}

int result_of(const Barrier& barrier) {
    switch (barrier.vote) {
        case BarrierVote::any:
            return barrier.votes > 0;
        case BarrierVote::all:
            return barrier.votes == barrier.expected;
        case BarrierVote::count:
            return barrier.votes;
        case BarrierVote::none:
            break;
    }
    return 0;
}

void complete_barrier(Barrier& barrier) {
    int result = result_of(barrier);
    for (Thread* thread : barrier.waiting) {
        thread->barrier_result = result;
        barrier.sync.acquire(thread->agent);
        thread->barriers_passed++;
        if (thread != current_thread) {
            wake(*thread);
        }
    }
    barrier.waiting.clear();
    barrier.sync.clear();
    barrier.arrived = 0;
    barrier.votes = 0;
}

// True if this arrival was the last one.
bool arrive(int id, int threads, Site site, BarrierVote vote, bool predicate, bool waits) {
    Thread& thread = *current_thread;
    Block& block = *thread.block;
    thread.site = site;
    check_use(block, id, threads);
    Barrier& barrier = block.barriers[size_t(id)];
    int expected = threads == all_threads ? int(block.threads.size()) : threads;
    if (barrier.arrived == 0) {
        barrier.expected = expected;
        barrier.first_site = site;
        barrier.first_thread = &thread;
        barrier.vote = vote;
    } else {
        check_agreement(barrier, id, threads, expected, vote, site);
    }
    barrier.sync.release(thread.agent);
    barrier.arrived++;
    barrier.votes += predicate;
    if (waits) {
        barrier.waiting.push_back(&thread);
    }
    if (barrier.arrived < barrier.expected) {
        return false;
    }
    complete_barrier(barrier);
    return true;
}

void complete_cluster_phase(ClusterBarrier& barrier) {
    std::swap(barrier.completed, barrier.gathering);
    barrier.gathering.clear();
    barrier.arrived = 0;
    barrier.phase++;
    for (Thread* thread : barrier.waiting) {
        wake(*thread);
    }
    barrier.waiting.clear();
}

}  // namespace

int barrier_sync(int id, int threads, Site site, BarrierVote vote, bool predicate) {
    Thread& thread = *current_thread;
    if (arrive(id, threads, site, vote, predicate, true)) {
        maybe_preempt();
    } else {
        const char* what = threads == all_threads ? "__syncthreads" : "bar.sync";
        block_on({what, site, describe_barrier, &thread.block->barriers[size_t(id)], uint64_t(id)});
    }
    return thread.barrier_result;
}

void barrier_arrive(int id, int threads, Site site) {
    arrive(id, threads, site, BarrierVote::none, false, false);
    maybe_preempt();
}

void cluster_arrive(Site site, bool release) {
    Thread& thread = *current_thread;
    thread.site = site;
    ClusterBarrier& barrier = current_cluster->barrier();
    if (thread.cluster_ticket != 0) {
        fail("barrier.cluster.arrive twice without a wait between");
    }
    thread.cluster_ticket = barrier.phase + 1;
    if (release) {
        barrier.gathering.release(thread.agent);
    }
    if (++barrier.arrived == current_cluster->num_running()) {
        complete_cluster_phase(barrier);
    }
    maybe_preempt();
}

void cluster_wait(Site site, bool acquire) {
    Thread& thread = *current_thread;
    thread.site = site;
    ClusterBarrier& barrier = current_cluster->barrier();
    if (thread.cluster_ticket == 0) {
        fail("barrier.cluster.wait without an arrive before");
    }
    while (barrier.phase < thread.cluster_ticket) {
        barrier.waiting.push_back(&thread);
        block_on({"barrier.cluster.wait", site, describe_cluster_barrier, &barrier, 0});
    }
    thread.cluster_ticket = 0;
    if (acquire) {
        barrier.completed.acquire(thread.agent);
    }
}

void leave_barriers(Thread& thread) {
    Barrier& block_barrier = thread.block->barriers[0];
    if (!block_barrier.waiting.empty() && block_barrier.expected == int(thread.block->threads.size())) {
        fail_at(block_barrier.first_site, "%s exits while others wait in __syncthreads", name_of(thread).c_str());
    }
    ClusterBarrier& barrier = current_cluster->barrier();
    if (thread.cluster_ticket > barrier.phase) {
        // It arrived and left without waiting: its arrival counts no more, nor does the thread.
        barrier.arrived--;
    }
    if (barrier.arrived > 0 && barrier.arrived == current_cluster->num_running()) {
        complete_cluster_phase(barrier);
    }
}

}  // namespace emulator
