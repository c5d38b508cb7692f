#include "driver_queue.h"

#include <algorithm>
#include <exception>
#include <set>

#include "driver_state.h"

namespace driver {
namespace {

// More than any launch queue holds: beyond it the oldest operations run, as a real launch would wait for room.
constexpr size_t max_pending = 4096;

// How far into the queue a random choice looks.
constexpr int max_candidates = 64;

thread_local bool host_function_runs = false;

Outcome run_unguarded(const Work& work) {
    try {
        return work.run();
    } catch (const std::exception& problem) {
        return {CUDA_ERROR_LAUNCH_FAILED, work.name + ": the emulator failed: " + problem.what()};
    }
}

Outcome run_unlocked(Lock& lock, const Work& work) {
    lock.unlock();
    host_function_runs = work.type == NODE_HOST;
    Outcome outcome = run_unguarded(work);
    host_function_runs = false;
    lock.lock();
    return outcome;
}

}  // namespace

Queue::Queue() : random_(emulator::schedule().seed), timing_(emulator::schedule().async) {}

void Queue::set_schedule(const emulator::Schedule& schedule) {
    random_ = emulator::Random(schedule.seed);
    timing_ = schedule.async;
}

OperationPtr Queue::add(std::shared_ptr<const Work> work, std::shared_ptr<Context> context,
                        std::vector<OperationPtr> predecessors) {
    auto operation = std::make_shared<Operation>();
    operation->work = std::move(work);
    operation->context = std::move(context);
    operation->predecessors = std::move(predecessors);
    operation->number = ++last_number_;
    operation->position = pending_.insert(pending_.end(), operation);
    return operation;
}

void Queue::let_some_run(Lock& lock) {
    if (timing_ == emulator::async_early) {
        while (!pending_.empty()) {
            run(lock, OperationPtr(pending_.front()));
        }
        return;
    }
    while (timing_ == emulator::async_random && random_.one_in(2)) {
        OperationPtr candidate = any_ready();
        if (!candidate) {
            break;
        }
        run(lock, candidate);
    }
    while (pending_.size() > max_pending) {
        run(lock, OperationPtr(pending_.front()));
    }
}

void Queue::finish(Lock& lock, const OperationPtr& operation) {
    for (const OperationPtr& ancestor : unfinished_ancestry(operation)) {
        if (timing_ == emulator::async_random) {
            let_some_run(lock);
        }
        run(lock, ancestor);
    }
}

void Queue::finish_all(Lock& lock, const Context& context) {
    std::vector<OperationPtr> operations;
    for (const OperationPtr& operation : pending_) {
        if (operation->context.get() == &context) {
            operations.push_back(operation);
        }
    }
    for (const OperationPtr& operation : operations) {
        finish(lock, operation);
    }
}

void Queue::drop(Lock& lock, const Context& context) {
    wait_until_idle(lock);
    std::vector<OperationPtr> operations(pending_.begin(), pending_.end());
    for (const OperationPtr& operation : operations) {
        if (operation->context.get() == &context) {
            complete(operation, Outcome());
        }
    }
}

void Queue::advance(Lock& lock, const OperationPtr& operation) {
    std::vector<OperationPtr> ancestry = unfinished_ancestry(operation);
    if (!ancestry.empty()) {
        run(lock, ancestry.front());
    }
}

void Queue::wait_until_idle(Lock& lock) {
    while (running_) {
        idle_.wait(lock);
    }
}

bool Queue::in_host_function() {
    return host_function_runs;
}

// Waits for its turn; afterwards the operation is done, by this thread or another one.
void Queue::run(Lock& lock, const OperationPtr& operation) {
    wait_until_idle(lock);
    if (operation->done) {
        return;
    }
    running_ = true;
    const Work& work = *operation->work;
    Outcome outcome;
    bool lost = operation->context->lost != CUDA_SUCCESS;
    if (work.run && !lost) {
        outcome = work.unlocked ? run_unlocked(lock, work) : run_unguarded(work);
    }
    running_ = false;
    complete(operation, outcome);
}

void Queue::complete(const OperationPtr& operation, const Outcome& outcome) {
    if (outcome.result != CUDA_SUCCESS) {
        lose(*operation->context, outcome.result, outcome.why);
    }
    operation->done = true;
    operation->finished = std::chrono::steady_clock::now();
    operation->predecessors.clear();
    pending_.erase(operation->position);
    idle_.notify_all();
}

OperationPtr Queue::any_ready() {
    std::vector<OperationPtr> ready;
    int looked_at = 0;
    for (const OperationPtr& operation : pending_) {
        if (is_ready(*operation)) {
            ready.push_back(operation);
        }
        if (++looked_at == max_candidates) {
            break;
        }
    }
    return ready.empty() ? nullptr : ready[random_.below(ready.size())];
}

bool Queue::is_ready(const Operation& operation) {
    return std::all_of(operation.predecessors.begin(), operation.predecessors.end(),
                       [](const OperationPtr& predecessor) { return predecessor->done; });
}

// The operation and what it waits for, directly or not, in the order of submission.
std::vector<OperationPtr> Queue::unfinished_ancestry(const OperationPtr& operation) {
    std::vector<OperationPtr> found;
    std::vector<OperationPtr> open{operation};
    std::set<uint64_t> seen{operation->number};
    while (!open.empty()) {
        OperationPtr next = open.back();
        open.pop_back();
        if (next->done) {
            continue;
        }
        found.push_back(next);
        for (const OperationPtr& predecessor : next->predecessors) {
            if (seen.insert(predecessor->number).second) {
                open.push_back(predecessor);
            }
        }
    }
    std::sort(found.begin(), found.end(),
              [](const OperationPtr& left, const OperationPtr& right) { return left->number < right->number; });
    return found;
}

}  // namespace driver
