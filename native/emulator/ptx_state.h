// What the emulated instructions remember of a block: its mbarriers, the copies of each thread, its warpgroups.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "async.h"
#include "block.h"
#include "cluster.h"
#include "shadow.h"

namespace emulator {

// An mbarrier. Its eight bytes in shared memory hold a signature only, which shows when they were overwritten.
struct Mbarrier {
    uint32_t address = 0;   // offset in the block's window
    uint32_t expected = 0;  // arrivals per phase
    uint32_t pending = 0;   // arrivals that this phase still lacks
    int32_t tx = 0;         // bytes expected less bytes completed
    uint64_t phase = 0;     // phases completed
    bool observed = true;   // a wait has returned true for the newest completed phase
    Site init_site;

    // Who has to be known, in the race build, before the barrier may be used.
    uint32_t init_agent = 0;
    uint32_t init_step = 0;

    // Other blocks may use it once fence.mbarrier_init and then a barrier.cluster have passed.
    const Thread* init_thread = nullptr;
    bool fenced = false;
    uint32_t fence_epoch = 0;

    // What the arrivals of this phase, and those of the completed ones, hand on: to every wait; to waits of cluster
    // scope (arrivals from other blocks with release.cluster); to asynchronous operations of the waiter (arrivals from
    // other blocks without it: enough to hand back a buffer, not to hand over data).
    struct Handover {
        SyncPoint any;
        SyncPoint cluster;
        SyncPoint buffers;
    };
    Handover arriving;
    Handover completed;

    std::vector<Thread*> waiting;
};

// Copies of one thread that it can wait for in groups.
struct CopyGroups {
    std::vector<AsyncTicket> open;
    std::deque<std::vector<AsyncTicket>> committed;
};

// A bulk store reads shared memory first and writes global memory later.
struct BulkStore {
    AsyncTicket read;
    AsyncTicket write;
};

struct BulkGroups {
    std::vector<BulkStore> open;
    std::deque<std::vector<BulkStore>> committed;
};

struct ThreadCopies {
    CopyGroups copies;  // cp.async
    BulkGroups bulk;    // cp.async.bulk, TMA stores
    SyncPoint buffers;  // see Mbarrier::Handover; passed on to this thread's asynchronous operations
    uint32_t cluster_epoch = 0;  // barrier.cluster phases it has waited for
};

struct WarpgroupState;  // ptx_wgmma_state.h

// The registers of a block, which setmaxnreg moves between its warpgroups.
struct RegisterPool {
    int per_thread_at_launch = 0;  // 0: not known, as the kernel has no launch bounds
    int free = 0;
    std::vector<int> of_warpgroup;                        // per thread
    std::vector<std::vector<uint64_t>> barriers_at_change;  // of each warp, when setmaxnreg was last executed
    std::vector<Thread*> waiting;
};

class PtxState final : public InstructionState {
public:
    explicit PtxState(Block& block);
    ~PtxState() override;
    void block_ends(Block& block) override;

    std::unordered_map<uint32_t, Mbarrier> mbarriers;
    std::vector<ThreadCopies> threads;
    std::vector<std::unique_ptr<WarpgroupState>> warpgroups;
    RegisterPool registers;
};

PtxState& ptx_state(Block& block);

// Of the running thread.
ThreadCopies& own_copies();

// The mbarrier at an address of `from` or of its cluster. Fails if there is none, or if it was overwritten.
Mbarrier& mbarrier_at(Block& from, uint32_t address, const char* what, Site site);

// The same for an instruction of the running thread, which must have come to know of the initialisation.
Mbarrier& mbarrier_for_thread(uint32_t address, const char* what, Site site);

// How the arrival is handed on.
enum class ArrivalKind : uint8_t { local, remote_short, remote_release };

void mbarrier_add_arrivals(Mbarrier& barrier, uint32_t count, const char* what, Site site);
void mbarrier_add_tx(Mbarrier& barrier, int64_t bytes, const char* what, Site site);
void mbarrier_hand_on(Mbarrier& barrier, Agent& agent, ArrivalKind kind);

// Ends the phase if nothing is missing, and wakes those that wait for it. Called after every change.
void mbarrier_settle(Mbarrier& barrier);

}  // namespace emulator
