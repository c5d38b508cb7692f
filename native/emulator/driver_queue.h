// The work the device still has to do: operations, each with those it has to wait for. Stream order, events and the
// legacy stream's rules are nothing but such edges (driver_stream.cpp draws them), so an operation may run at any time
// after its predecessors; how long that takes is the schedule's choice.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "driver_abi.h"
#include "schedule.h"

namespace driver {

struct Context;

using Lock = std::unique_lock<std::mutex>;

struct Outcome {
    Result result = CUDA_SUCCESS;
    std::string why;
};

// What an operation does; shared by the operations that replay it from a graph.
struct Work {
    NodeType type = NODE_EMPTY;
    std::string name;
    std::function<Outcome()> run;  // empty: nothing to do
    bool unlocked = false;         // kernels and host functions run while other threads may call the driver
};

struct Operation {
    std::shared_ptr<const Work> work;
    std::shared_ptr<Context> context;
    std::vector<std::shared_ptr<Operation>> predecessors;  // emptied when done, so that no long chains remain
    uint64_t number = 0;
    bool done = false;
    std::chrono::steady_clock::time_point finished;
    std::list<std::shared_ptr<Operation>>::iterator position;
};

using OperationPtr = std::shared_ptr<Operation>;

class Queue {
public:
    Queue();

    // late: operations run when somebody waits for them; early: at once; random: some of them, now and then.
    void set_schedule(const emulator::Schedule& schedule);

    // Nothing runs yet: the caller first enters the operation where later ones will look for their predecessors, then
    // calls let_some_run, which may give up the lock for a while.
    OperationPtr add(std::shared_ptr<const Work> work, std::shared_ptr<Context> context,
                     std::vector<OperationPtr> predecessors);

    void let_some_run(Lock& lock);

    // Runs an operation and all it waits for; also waits for other threads that are running some of it.
    void finish(Lock& lock, const OperationPtr& operation);

    void finish_all(Lock& lock, const Context& context);

    // Forgets what a destroyed context still had to do.
    void drop(Lock& lock, const Context& context);

    // One step of what is pending: so that a thread that only polls comes to an end.
    void advance(Lock& lock, const OperationPtr& operation);

    // Until no kernel or host function runs: the device's memory map may change only then.
    void wait_until_idle(Lock& lock);

    size_t size() const { return pending_.size(); }

    // True in the thread that is running a host function, which must not call the driver.
    static bool in_host_function();

private:
    void run(Lock& lock, const OperationPtr& operation);
    void complete(const OperationPtr& operation, const Outcome& outcome);
    OperationPtr any_ready();
    static bool is_ready(const Operation& operation);
    static std::vector<OperationPtr> unfinished_ancestry(const OperationPtr& operation);

    std::list<OperationPtr> pending_;  // in the order of submission, which is a possible order of execution
    std::condition_variable idle_;
    emulator::Random random_;
    int timing_;
    bool running_ = false;
    uint64_t last_number_ = 0;
};

}  // namespace driver
