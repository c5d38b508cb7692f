// The unit of scheduling: 1 to 16 blocks whose threads run interleaved on one OS thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "async.h"
#include "barrier.h"
#include "block.h"
#include "grid.h"
#include "schedule.h"

namespace emulator {

constexpr unsigned max_cluster_blocks = 16;

// What an OS thread keeps from one cluster to the next.
struct Worker;

class Cluster {
public:
    Cluster(const Launch& launch, const std::byte* params, const Schedule& schedule, uint64_t number, Worker& worker);
    ~Cluster();
    Cluster(const Cluster&) = delete;
    Cluster& operator=(const Cluster&) = delete;

    // Runs all threads to their end. Empty, or the error.
    std::string run();

    // Every group of blocked threads and what it waits for.
    std::string who_waits() const;

    const Launch& launch() const { return launch_; }
    const Schedule& schedule() const { return schedule_; }
    uint64_t number() const { return number_; }  // position in the grid, counted in clusters
    std::vector<std::unique_ptr<Block>>& blocks() { return blocks_; }
    Random& random() { return random_; }
    AsyncQueue& async() { return async_; }
    ClusterBarrier& barrier() { return barrier_; }
    size_t num_running() const { return num_running_; }

    void make_ready(Thread& thread);
    void rest(Thread& thread);         // ready again once every other thread has had its turn
    void switch_to_scheduler();        // from the running thread
    void record(std::string message);  // the first error is the one that is reported
    bool failed() const { return !error_.empty(); }
    void made_progress() { idle_rounds_ = 0; }
    Worker& worker() { return worker_; }
    const AsyncOperation* running_operation = nullptr;  // while the scheduler runs one

private:
    static void thread_body(void* thread);
    Thread* pick();
    void enter(Thread& thread);
    bool advance_without_threads();
    void finish_thread(Thread& thread);

    void start_block(unsigned rank);
    void start_thread(Block& block, int linear);
    void finish_block(Block& block);
    void step();

    const Launch& launch_;
    const std::byte* params_;
    Schedule schedule_;
    uint64_t number_;
    Worker& worker_;
    Random random_;
    std::vector<std::unique_ptr<Block>> blocks_;
    std::deque<Thread*> ready_;
    std::vector<Thread*> resting_;
    uint64_t idle_rounds_ = 0;
    size_t num_running_ = 0;
    AsyncQueue async_;
    ClusterBarrier barrier_;
    Fiber scheduler_;
    std::string error_;
};

extern __thread Cluster* current_cluster __attribute__((tls_model("initial-exec")));

inline Block& current_block() { return *current_thread->block; }

// Blocks the running thread until `wake`. What woke it has to be tested again by the caller.
void block_on(const Wait& wait);
void wake(Thread& thread);

// Lets another thread run, sometimes, if the schedule asks for preemption. Every emulated instruction that touches
// memory calls it once.
void maybe_preempt();

// For polls (try_wait, __nanosleep, atomics in a loop): lets all others run first. A cluster in which nothing but
// polling happens is reported as such.
void poll(const char* what, Site site);

// Called after each atomic: a loop of many in one turn is taken for a poll.
void count_atomic(const char* what, Site site);

}  // namespace emulator
