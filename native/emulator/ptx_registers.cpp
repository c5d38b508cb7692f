// setmaxnreg.

#include <algorithm>

#include "fail.h"
#include "ptx_barrier.h"
#include "ptx_state.h"

namespace ptx {

using namespace emulator;

namespace {

int own_warpgroup() { return current_thread->linear / warpgroup_threads; }

// How many barriers each warp of the warpgroup has passed.
std::vector<uint64_t> barriers_passed(const Block& block, int warpgroup) {
    std::vector<uint64_t> passed;
    const size_t end = std::min(block.threads.size(), size_t(warpgroup + 1) * warpgroup_threads);
    for (size_t thread = size_t(warpgroup) * warpgroup_threads; thread < end; thread += warp_lanes) {
        passed.push_back(block.threads[thread].barriers_passed);
    }
    return passed;
}

std::string describe_pool(const Thread& thread, const void* object, uint64_t registers) {
    const auto& pool = *static_cast<const RegisterPool*>(object);
    return text("the warpgroup has %d registers per thread and asks for %d; the block has %d left, %d per thread",
                pool.of_warpgroup[thread.linear / warpgroup_threads], int(registers), pool.free,
                pool.free / warpgroup_threads);
}

void check(const RegisterPool& pool, bool increase, int registers, const char* what, Site site) {
    const int warpgroup = own_warpgroup();
    if (pool.per_thread_at_launch == 0) {
        fail_at(site, "%s has no effect in a kernel without launch bounds", what);
    }
    const int current = pool.of_warpgroup[warpgroup];
    // How many registers ptxas gave the kernel is not known, only that the launch bounds allow no more: the first inc
    // may ask for fewer than that.
    const bool exact = !pool.barriers_at_change[warpgroup].empty();
    if (increase ? exact && registers < current : registers > current) {
        fail_at(site, "%s %d, but the warpgroup has %d registers per thread", what, registers, current);
    }
    const std::vector<uint64_t>& before = pool.barriers_at_change[warpgroup];
    const std::vector<uint64_t> now = barriers_passed(current_block(), warpgroup);
    for (size_t warp = 0; warp < before.size(); warp++) {
        if (before[warp] == now[warp]) {
            fail_at(site, "%s: the warpgroup has not synchronised since its last setmaxnreg", what);
        }
    }
}

struct Request {
    bool increase;
    int registers;
    Site site;
};

void request_finish(void* const* operands, uint32_t) {
    const auto& request = *static_cast<const Request*>(operands[0]);
    const char* what = request.increase ? "setmaxnreg.inc" : "setmaxnreg.dec";
    RegisterPool& pool = ptx_state(current_block()).registers;
    check(pool, request.increase, request.registers, what, request.site);
    const int warpgroup = own_warpgroup();
    pool.barriers_at_change[warpgroup] = barriers_passed(current_block(), warpgroup);
    if (!request.increase) {
        pool.free += (pool.of_warpgroup[warpgroup] - request.registers) * warpgroup_threads;
        pool.of_warpgroup[warpgroup] = request.registers;
        for (Thread* thread : pool.waiting) {
            wake(*thread);
        }
        pool.waiting.clear();
    }
}

// The first thread of a warpgroup to find enough takes them for all.
bool take(RegisterPool& pool, int registers) {
    int& current = pool.of_warpgroup[own_warpgroup()];
    const int missing = (registers - current) * warpgroup_threads;
    if (missing > pool.free) {
        return false;
    }
    pool.free -= missing;
    current = registers;
    return true;
}

}  // namespace

void set_registers(bool increase, int registers, Site site) {
    const char* what = increase ? "setmaxnreg.inc" : "setmaxnreg.dec";
    Request request = {increase, registers, site};
    collective(Scope::warpgroup, 0, what, site, &request, request_finish, {.same_place = true, .nobody_exited = true});
    RegisterPool& pool = ptx_state(current_block()).registers;
    while (increase && !take(pool, registers)) {
        pool.waiting.push_back(current_thread);
        const uint64_t asked = uint64_t(registers);
        block_on({.what = what, .site = site, .describe = describe_pool, .object = &pool, .detail = asked});
    }
}

}  // namespace ptx
