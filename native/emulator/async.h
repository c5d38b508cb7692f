// Operations that happen at some time after the instruction that starts them: cp.async, bulk copies, wgmma.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>

#include "schedule.h"
#include "shadow.h"
#include "site.h"

namespace emulator {

struct Block;
class Cluster;
struct Thread;

// One operation. It knows what its issuer knew when it was issued, but nobody knows of it until its SyncPoint has been
// acquired: reading what it writes, or storing to what it reads, is a race before that.
struct AsyncOperation {
    const char* what = "";
    Site site;
    Block* block = nullptr;     // the issuer's
    Thread* issuer = nullptr;
    const void* chain = nullptr;
    bool done = false;
    Agent agent;
    SyncPoint finished;         // acquire it in whoever waits
    std::function<void(AsyncOperation&)> action;
};

using AsyncTicket = std::shared_ptr<AsyncOperation>;

// Starts an operation of the running thread. Timing early: the action runs now. Late: only when every thread of the
// cluster is blocked, or `complete` is called. Random: now, or at some switch between threads, or late.
// Operations of one chain (any address; null: none) run in the order of their issue, as wgmma on one set of
// accumulators do. The action uses shared_pointer(*operation.block, ...), and shared_read/_write with operation.agent;
// it must not block, but may wake threads. Its destructor-bearing captures are released after it ran.
// `after`: what the operation may rely on besides what the issuer knows (may be null).
AsyncTicket defer(const char* what, Site site, const void* chain, std::function<void(AsyncOperation&)> action,
                  const SyncPoint* after = nullptr);

// Runs it now, with everything before it in its chain, if that has not happened yet: an instruction waits for it.
// Does not acquire operation->finished.
void complete(const AsyncTicket& operation);

// The operations of a cluster that have not run.
class AsyncQueue {
public:
    bool empty() const { return pending_.empty(); }

    void add(AsyncTicket operation);

    // Runs the oldest or, with random timing, any one.
    void run_one(Cluster& cluster);

    // Runs the operation after those before it in its chain.
    void run_up_to(Cluster& cluster, const AsyncTicket& operation);

    // The oldest operation of the block that has not run, or null.
    const AsyncOperation* first_of(const Block& block) const;

private:
    void run(Cluster& cluster, std::list<AsyncTicket>::iterator place);
    std::list<AsyncTicket> pending_;
};

}  // namespace emulator
