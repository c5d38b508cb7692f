#include "cluster.h"

#include <algorithm>

#include "fail.h"
#include "worker.h"

namespace emulator {

__thread Thread* current_thread __attribute__((tls_model("initial-exec")));
__thread Cluster* current_cluster __attribute__((tls_model("initial-exec")));

// Rounds in which every thread that can run only polls, before the cluster is said to hang.
constexpr uint64_t max_idle_rounds = 20000;

// So many atomics in a row look like a loop that waits for another thread.
constexpr int max_atomics_in_turn = 100;

static std::unique_ptr<InstructionState> (*make_instruction_state)(Block& block);

void set_instruction_state(std::unique_ptr<InstructionState> (*make)(Block& block)) { make_instruction_state = make; }

Cluster::Cluster(const Launch& launch, const std::byte* params, const Schedule& schedule, uint64_t number,
                 Worker& worker)
    : launch_(launch), params_(params), schedule_(schedule), number_(number), worker_(worker),
      random_(schedule.seed + number * 0x10001) {
    current_cluster = this;
    unsigned num_blocks = unsigned(launch.cluster.count());
    for (unsigned rank = 0; rank < num_blocks; rank++) {
        start_block(rank);
    }
    if (schedule.policy == reverse_order) {
        std::reverse(ready_.begin(), ready_.end());
    }
}

Cluster::~Cluster() {
    current_thread = nullptr;
    current_cluster = nullptr;
}

void Cluster::start_block(unsigned rank) {
    const Dim3& size = launch_.cluster;
    uint64_t columns = launch_.grid.x / size.x;
    uint64_t rows = launch_.grid.y / size.y;
    blocks_.push_back(std::make_unique<Block>());
    Block& block = *blocks_.back();
    block.cluster = this;
    block.rank = rank;
    block.index.x = unsigned(number_ % columns) * size.x + rank % size.x;
    block.index.y = unsigned(number_ / columns % rows) * size.y + rank / size.x % size.y;
    block.index.z = unsigned(number_ / columns / rows) * size.z + rank / size.x / size.y;
    block.window = worker_.window(rank);
    block.dynamic_shared = launch_.dynamic_shared;
    open_window(block.window);
    open_region(block.window, dynamic_shared_offset, dynamic_shared_offset + block.dynamic_shared);
    worker_.cells[rank].start(block);
    block.regions.push_back({nullptr, dynamic_shared_offset, dynamic_shared_offset + block.dynamic_shared});
    block.barriers.resize(num_barriers);
    block.threads.resize(launch_.block.count());
    block.warps.resize(size_t(block.num_warps()));
    block.warpgroups.resize(block.threads.size() / warpgroup_threads);
    for (size_t linear = 0; linear < block.threads.size(); linear++) {
        start_thread(block, int(linear));
    }
    if (make_instruction_state != nullptr) {
        block.instructions = make_instruction_state(block);
    }
}

void Cluster::start_thread(Block& block, int linear) {
    const Dim3& size = launch_.block;
    Thread& thread = block.threads[size_t(linear)];
    thread.thread_index = {linear % size.x, linear / size.x % size.y, linear / size.x / size.y};
    thread.block_index = block.index;
    thread.block_dim = size;
    thread.grid_dim = launch_.grid;
    thread.linear = linear;
    thread.block = &block;
    size_t number = block.rank * block.threads.size() + size_t(linear);
    start_agent(thread.agent, uint32_t(number));
    thread.fiber.start(worker_.stacks.get(number), &Cluster::thread_body, &thread);
    ready_.push_back(&thread);
    num_running_++;
}

void Cluster::thread_body(void* argument) {
    Thread& thread = *static_cast<Thread*>(argument);
    Cluster& cluster = *thread.block->cluster;
    cluster.launch_.kernel->invoke(cluster.params_);
    if (thread.block->instructions != nullptr) {
        thread.block->instructions->thread_exits(thread);
    }
    thread.state = ThreadState::exited;
    cluster.scheduler_.enter_for_good(thread.fiber);
}

std::string Cluster::run() {
    try {
        while (num_running_ > 0 && !failed()) {
            step();
        }
    } catch (const Failure& failure) {
        record(failure.message);
    }
    return error_;
}

void Cluster::step() {
    if (schedule_.async == async_random && !async_.empty() && random_.one_in(8)) {
        async_.run_one(*this);
    }
    Thread* thread = pick();
    if (thread == nullptr) {
        if (!advance_without_threads()) {
            fail("deadlock%s", who_waits().c_str());
        }
        return;
    }
    enter(*thread);
    if (thread->state == ThreadState::exited && !failed()) {
        finish_thread(*thread);
    }
}

Thread* Cluster::pick() {
    if (ready_.empty()) {
        return nullptr;
    }
    bool newest = schedule_.policy == newest_first || (schedule_.policy == mostly_newest && !random_.one_in(32));
    if (newest) {
        Thread* thread = ready_.back();
        ready_.pop_back();
        return thread;
    }
    if (schedule_.policy == random_order) {
        std::swap(ready_.front(), ready_[random_.below(ready_.size())]);
    }
    Thread* thread = ready_.front();
    ready_.pop_front();
    return thread;
}

void Cluster::enter(Thread& thread) {
    thread.state = ThreadState::running;
    thread.atomics_in_turn = 0;
    current_thread = &thread;
    thread.fiber.enter(scheduler_);
    current_thread = nullptr;
}

// Nobody is ready: an asynchronous operation may be what they wait for, or the pollers have their turn again.
bool Cluster::advance_without_threads() {
    if (!async_.empty()) {
        made_progress();
        async_.run_one(*this);
    } else if (resting_.empty()) {
        return false;
    } else if (++idle_rounds_ > max_idle_rounds) {
        fail("the threads that can run only poll, and nothing changes%s", who_waits().c_str());
    }
    ready_.insert(ready_.end(), resting_.begin(), resting_.end());
    resting_.clear();
    return true;
}

void Cluster::finish_thread(Thread& thread) {
    Block& block = *thread.block;
    made_progress();
    num_running_--;
    block.num_exited++;
    block.warps[size_t(thread.warp())].exited |= 1u << thread.lane();
    leave_barriers(thread);
    leave_meetings(thread);
    if (block.num_exited == int(block.threads.size())) {
        finish_block(block);
    }
}

void Cluster::finish_block(Block& block) {
    if (block.instructions != nullptr) {
        block.instructions->block_ends(block);
    }
    const AsyncOperation* operation = async_.first_of(block);
    if (operation != nullptr) {
        fail_at(operation->site, "block (%u,%u,%u) ends while %s of %s is still in flight: wait for it", block.index.x,
                block.index.y, block.index.z, operation->what, name_of(*operation->issuer).c_str());
    }
    if (launch_.early && !block.waited) {
        fail("block (%u,%u,%u) of an early launch ends without griddepcontrol.wait in any of its threads: a later grid "
             "would take this one's end for the end of those before it", block.index.x, block.index.y, block.index.z);
    }
}

void Cluster::make_ready(Thread& thread) {
    thread.state = ThreadState::ready;
    ready_.push_back(&thread);
}

void Cluster::rest(Thread& thread) {
    thread.state = ThreadState::ready;
    resting_.push_back(&thread);
}

void Cluster::switch_to_scheduler() { scheduler_.enter(current_thread->fiber); }

void Cluster::record(std::string message) {
    if (error_.empty()) {
        error_ = std::move(message);
    }
}

void block_on(const Wait& wait) {
    Thread& thread = *current_thread;
    thread.state = ThreadState::blocked;
    thread.wait = wait;
    thread.site = wait.site;
    current_cluster->made_progress();
    current_cluster->switch_to_scheduler();
}

void wake(Thread& thread) {
    current_cluster->made_progress();
    current_cluster->make_ready(thread);
}

void maybe_preempt() {
    Cluster& cluster = *current_cluster;
    int chances = cluster.schedule().preempt;
    if (chances > 0 && cluster.random().one_in(uint64_t(chances))) {
        cluster.make_ready(*current_thread);
        cluster.switch_to_scheduler();
    }
}

void poll(const char* what, Site site) {
    Thread& thread = *current_thread;
    thread.site = site;
    thread.wait = {what, site};
    current_cluster->rest(thread);
    current_cluster->switch_to_scheduler();
}

void count_atomic(const char* what, Site site) {
    if (++current_thread->atomics_in_turn >= max_atomics_in_turn) {
        poll(what, site);
    } else {
        maybe_preempt();
    }
}

}  // namespace emulator
