#include "shadow.h"

#include "cluster.h"
#include "fail.h"
#include "global_cells.h"
#include "memory.h"
#include "worker.h"

namespace emulator {

Agent& running_agent() { return current_thread->agent; }

#if JMOE_EMULATOR_SHADOW

namespace {

// Asynchronous operations take turns with so many agent numbers. An operation that uses a number again starts far above
// the steps that the one before it can have reached.
constexpr uint32_t num_async_agents = 64;
constexpr uint32_t steps_per_operation = 1000;
uint32_t async_agents_started;

Access access_by(Agent& agent, bool write, Proxy proxy, const char* what, Site site) {
    return {agent, write, false, proxy, what, place_at(site), nullptr, site};
}

void access_shared(const Access& access, uint32_t address, size_t bytes) {
    Block& from = current_thread != nullptr ? current_block() : *current_cluster->running_operation->block;
    shared_pointer(from, address, bytes, access.what, access.site);
    Block& owner = shared_owner(from, address, access.what, access.site);
    current_cluster->worker().cells[owner.rank].access(access, shared_offset(address), bytes);
}

ShadowCells& own_cells() { return current_cluster->worker().cells[current_block().rank]; }

}  // namespace

void start_agent(Agent& agent, uint32_t number) {
    if (number == 0) {
        async_agents_started = 0;
    }
    agent = Agent();
    agent.number = number;
    agent.seen.advance(number, agent.step);
}

void start_async_agent(Agent& agent, Agent& issuer) {
    const Launch& launch = current_cluster->launch();
    uint32_t num_threads = uint32_t(launch.block.count() * launch.cluster.count());
    agent.number = num_threads + async_agents_started % num_async_agents;
    agent.step = 1 + async_agents_started / num_async_agents * steps_per_operation;
    async_agents_started++;
    agent.seen = issuer.seen;
    agent.seen.advance(agent.number, agent.step);
    agent.fenced = issuer.fenced;
    issuer.next_step();
}

void proxy_fence(Agent& agent) {
    agent.fenced = agent.seen;
    agent.next_step();
}

void memory_fence(Agent& agent) {
    agent.released = agent.seen;
    agent.next_step();
    agent.seen.join(agent.pending);
}

void wait_for_grids(Agent& agent) { agent.seen.wait_for_grids(); }

void shared_read(Agent& agent, uint32_t address, size_t bytes, Proxy proxy, const char* what, Site site) {
    access_shared(access_by(agent, false, proxy, what, site), address, bytes);
}

void shared_write(Agent& agent, uint32_t address, size_t bytes, Proxy proxy, const char* what, Site site) {
    access_shared(access_by(agent, true, proxy, what, site), address, bytes);
}

void global_read(Agent& agent, const void* address, size_t bytes, const char* what, Site site) {
    global_access(access_by(agent, false, Proxy::generic, what, site), address, bytes);
}

void global_write(Agent& agent, const void* address, size_t bytes, const char* what, Site site) {
    global_access(access_by(agent, true, Proxy::generic, what, site), address, bytes);
}

void atomic_access(const void* address, size_t bytes, const char* what, Site site) {
    Agent& agent = running_agent();
    Access access{agent, true, true, Proxy::generic, what, place_at(site), nullptr, site};
    int rank = current_cluster->worker().rank_of(address);
    if (rank < 0) {
        global_access(access, address, bytes);
        hand_on_global(agent, address);
        return;
    }
    Block& block = *current_cluster->blocks()[size_t(rank)];
    uint32_t offset = uint32_t(uintptr_t(address) - uintptr_t(block.window));
    if (block.region_of(offset, bytes) == nullptr) {
        fail_at(site, "%s at shared address %#x, which is in no array", what, offset);
    }
    ShadowCells& cells = current_cluster->worker().cells[size_t(rank)];
    cells.access(access, offset, bytes);
    Clock& handed_on = cells.handed_on(offset);
    agent.pending.join(handed_on);
    handed_on.join(agent.released);
}

void shared_object(uint32_t address, size_t bytes, const char* name) {
    own_cells().add_object(shared_offset(address), bytes, name);
}

void shared_object_gone(uint32_t address, size_t bytes) {
    own_cells().remove_object(shared_offset(address), bytes);
}

#else

namespace {

// Outside of the race build: the bounds of shared memory always, those of device memory where the address is wild.
void check_device(const void* address, size_t bytes, const char* what, Site site) {
    if (!is_device(DeviceAddress(address), bytes)) {
        fail_at(site, "%s of %zu bytes %s", what, bytes, describe_address(DeviceAddress(address), bytes).c_str());
    }
}

void check_shared(uint32_t address, size_t bytes, const char* what, Site site) {
    Block& from = current_thread != nullptr ? current_block() : *current_cluster->running_operation->block;
    shared_pointer(from, address, bytes, what, site);
}

}  // namespace

void start_agent(Agent&, uint32_t) {}
void start_async_agent(Agent&, Agent&) {}
void proxy_fence(Agent&) {}
void memory_fence(Agent&) {}
void wait_for_grids(Agent&) {}

void shared_read(Agent&, uint32_t address, size_t bytes, Proxy, const char* what, Site site) {
    check_shared(address, bytes, what, site);
}

void shared_write(Agent&, uint32_t address, size_t bytes, Proxy, const char* what, Site site) {
    check_shared(address, bytes, what, site);
}

void global_read(Agent&, const void* address, size_t bytes, const char* what, Site site) {
    check_device(address, bytes, what, site);
}

void global_write(Agent&, const void* address, size_t bytes, const char* what, Site site) {
    check_device(address, bytes, what, site);
}

void atomic_access(const void*, size_t, const char*, Site) {}
void shared_object(uint32_t, size_t, const char*) {}
void shared_object_gone(uint32_t, size_t) {}

#endif

}  // namespace emulator
