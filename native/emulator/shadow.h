// Who touched which byte, and what each agent can know of the others: the race build's checks of every access.
//
// An agent is a CUDA thread or one asynchronous operation. Each agent counts its own steps; a SyncPoint (a barrier, a
// phase of an mbarrier, a group of copies) carries what its arrivers knew to those that wait for it. Two accesses to
// one byte, one of them a store, are a race unless the second agent knows the first one's step.
//
// In the fast and asan builds only the bounds are checked where a check is cheap, and the rest compiles to nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "site.h"

#if defined(JMOE_EMULATOR_RACE)
#define JMOE_EMULATOR_SHADOW 1
#else
#define JMOE_EMULATOR_SHADOW 0
#endif

namespace emulator {

constexpr bool has_shadow = JMOE_EMULATOR_SHADOW;

// How an access reaches memory. Ordinary loads and stores use the generic proxy; bulk copies (TMA) and wgmma the
// asynchronous one, and need fence.proxy.async after generic stores.
enum class Proxy : uint8_t { generic, async };

#if JMOE_EMULATOR_SHADOW

// For every agent of the cluster, the latest of its steps contained. Copies share the table. What is known of other
// clusters of the grid, through atomics and fences, is kept apart: most kernels know nothing of them.
class Clock {
public:
    uint32_t of(uint32_t agent) const;
    uint32_t of_other(uint64_t cluster, uint32_t agent) const;
    void advance(uint32_t agent, uint32_t step);  // at least this step of that agent
    void join(const Clock& other);
    void join_other(uint64_t cluster, const Clock& theirs);

    // Whether a griddepcontrol.wait is part of it, by whomever: the launches before this one have ended.
    bool waited() const { return waited_; }
    void wait_for_grids() { waited_ = true; }

    void drop_others() { others_ = nullptr; }
    bool empty() const { return table_ == nullptr && own_step_ == 0 && others_ == nullptr; }

    using Table = std::shared_ptr<const std::vector<uint32_t>>;
    using Others = std::shared_ptr<const std::map<uint64_t, Clock>>;
    const Others& others() const { return others_; }

private:
    friend class ClockSum;
    Table table_;
    uint32_t own_agent_ = 0;  // one agent whose step is newer than in the table: itself, most of the time
    uint32_t own_step_ = 0;
    bool waited_ = false;
    Others others_;
};

// Adds up many clocks without a new table for each.
class ClockSum {
public:
    void add(const Clock& clock);
    void clear();
    const Clock& clock() const;

private:
    std::vector<uint32_t> steps_;
    Clock::Table last_table_;  // added already
    Clock::Others others_;
    bool waited_ = false;
    mutable Clock result_;
    mutable bool fresh_ = false;
};

struct Agent {
    uint32_t number = 0;
    uint32_t step = 1;
    Clock seen;      // what happened before now
    Clock fenced;    // of that, what a fence.proxy.async has made visible to the asynchronous proxy
    Clock released;  // what happened before a __threadfence, its own or one it knows of: what its atomics hand on
    Clock pending;   // what atomics brought in, to be seen after the next __threadfence

    // What follows is not part of what has been handed on.
    void next_step() { seen.advance(number, ++step); }
};

class SyncPoint {
public:
    void release(Agent& agent);  // what the agent did so far is handed on
    void acquire(Agent& agent) const;
    void add(const SyncPoint& other);
    void clear();

private:
    ClockSum seen_;
    ClockSum fenced_;
    ClockSum released_;
};

#else

struct Agent {};

class SyncPoint {
public:
    void release(Agent&) {}
    void acquire(Agent&) const {}
    void add(const SyncPoint&) {}
    void clear() {}
};

#endif

// A thread's agent at its start; that of an operation, which knows what its issuer knows.
void start_agent(Agent& agent, uint32_t number);
void start_async_agent(Agent& agent, Agent& issuer);

// The agent of the CUDA thread that runs.
Agent& running_agent();

// fence.proxy.async: generic accesses before it, this thread's and those it knows of, are visible to the asynchronous
// proxy of whoever learns of it.
void proxy_fence(Agent& agent);

// __threadfence and its kin.
void memory_fence(Agent& agent);

// griddepcontrol.wait: what the launches before this one did has happened, for whoever learns of it.
void wait_for_grids(Agent& agent);

// Accesses by instructions that the compiler's instrumentation does not see. Shared addresses are those of
// shared_address (block.h); every function fails with a located message if the bytes are out of bounds, were never
// written (reads) or are in a race; `what` names the instruction.
void shared_read(Agent& agent, uint32_t address, size_t bytes, Proxy proxy, const char* what, Site site);
void shared_write(Agent& agent, uint32_t address, size_t bytes, Proxy proxy, const char* what, Site site);
void global_read(Agent& agent, const void* address, size_t bytes, const char* what, Site site);
void global_write(Agent& agent, const void* address, size_t bytes, const char* what, Site site);

// An atomic read and write of the thread that runs, in shared or global memory; atomics do not race with each other.
void atomic_access(const void* address, size_t bytes, const char* what, Site site);

// Bytes that hold an object (an mbarrier): ordinary loads and stores to them fail, naming the object.
void shared_object(uint32_t address, size_t bytes, const char* name);
void shared_object_gone(uint32_t address, size_t bytes);

}  // namespace emulator
