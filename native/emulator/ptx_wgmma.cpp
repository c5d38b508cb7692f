// wgmma: issue, fence, commit and wait.

#include "ptx_wgmma.h"

#include <cstring>

#include "cluster.h"
#include "fail.h"
#include "ptx_state.h"
#include "ptx_wgmma_state.h"

namespace emulator {

// Accumulators hold this while operations on them are under way: a NaN that no arithmetic makes.
constexpr uint32_t under_way_pattern = 0x7fedc0de;

// The variables may have gone out of scope since wgmma last saw them, which AddressSanitizer would report.
#define READS_ANY_STACK __attribute__((no_sanitize("address", "undefined")))

READS_ANY_STACK void RegisterArray::read(std::vector<uint32_t>& values) const {
    values.resize(size());
    uint32_t* to = values.data();
    for (const uint32_t* from : of_thread) {
        for (int i = 0; i < count; i++) {
            *to++ = from[i];
        }
    }
}

READS_ANY_STACK bool RegisterArray::equals(const std::vector<uint32_t>& values) const {
    const uint32_t* expected = values.data();
    for (const uint32_t* own : of_thread) {
        for (int i = 0; i < count; i++) {
            if (own[i] != *expected++) {
                return false;
            }
        }
    }
    return true;
}

READS_ANY_STACK bool RegisterArray::filled_with(uint32_t value) const {
    for (const uint32_t* own : of_thread) {
        uint32_t differences = 0;
        for (int i = 0; i < count; i++) {
            differences |= own[i] ^ value;
        }
        if (differences != 0) {
            return false;
        }
    }
    return true;
}

void RegisterArray::write(const std::vector<uint32_t>& values) const {
    for (int thread = 0; thread < warpgroup_threads; thread++) {
        std::memcpy(of_thread[thread], values.data() + size_t(thread) * count, size_t(count) * sizeof(uint32_t));
    }
}

void RegisterArray::fill(uint32_t value) const {
    for (uint32_t* own : of_thread) {
        std::fill_n(own, count, value);
    }
}

bool RegisterArray::overlaps(const RegisterArray& other) const {
    return of_thread[0] < other.of_thread[0] + other.count && other.of_thread[0] < of_thread[0] + count;
}

}  // namespace emulator

namespace ptx {

using namespace emulator;

namespace {

constexpr CollectiveRules aligned = {.orders_memory = false, .same_place = true, .nobody_exited = true};

int own_warpgroup() { return current_thread->linear / warpgroup_threads; }

WarpgroupState& own_state() { return *ptx_state(current_block()).warpgroups[own_warpgroup()]; }

struct ThreadWgmma {
    Wgmma operands;
    Site site;
};

const ThreadWgmma& of_thread(void* const* operands, int thread) {
    return *static_cast<const ThreadWgmma*>(operands[thread]);
}

void check_agreement(void* const* operands) {
    const Wgmma& first = of_thread(operands, 0).operands;
    const Site site = of_thread(operands, 0).site;
    for (int thread = 1; thread < warpgroup_threads; thread++) {
        const Wgmma& other = of_thread(operands, thread).operands;
        if (other.a != first.a || other.b != first.b) {
            fail_at(site, "wgmma: descriptors differ between threads 0 and %d of the warpgroup", thread);
        }
        if (other.scale_d != first.scale_d || other.n != first.n || other.type != first.type ||
            other.transpose_a != first.transpose_a || other.transpose_b != first.transpose_b ||
            (other.a_registers == nullptr) != (first.a_registers == nullptr)) {
            fail_at(site, "wgmma: shape or scale differs between threads 0 and %d of the warpgroup", thread);
        }
    }
    if (first.a_registers == nullptr) {
        wgmma_check_descriptor(first.a, "A", site);
    }
    wgmma_check_descriptor(first.b, "B", site);
}

// Fails if these registers were last used in another shape, with no fence since; forgets them if there was one.
void forget_overlapping(WarpgroupState& state, const RegisterArray& registers, WgmmaType type, const char* name,
                        Site site) {
    for (auto at = state.registers.begin(); at != state.registers.end();) {
        const WgmmaRegisters& used = *at->second;
        const bool same = used.registers.of_thread == registers.of_thread && used.registers.count == registers.count &&
                          used.type == type;
        if (same || !used.registers.overlaps(registers)) {
            ++at;
            continue;
        }
        if (used.under_way > 0) {
            fail_at(site, "wgmma: registers of %s belong to a wgmma that is still under way", name);
        }
        if (used.last_use == state.fences) {
            fail_at(site, "wgmma: registers of %s were used in another shape, with no wgmma.fence since", name);
        }
        at = state.registers.erase(at);
    }
}

// The registers of one operand, in all threads; pick tells a thread's.
template <class Pick>
std::shared_ptr<WgmmaRegisters> use_registers(WarpgroupState& state, void* const* operands, int count, WgmmaType type,
                                              const char* name, Site site, Pick pick) {
    RegisterArray registers;
    registers.count = count;
    for (int thread = 0; thread < warpgroup_threads; thread++) {
        registers.of_thread[thread] = pick(of_thread(operands, thread).operands);
    }
    forget_overlapping(state, registers, type, name, site);
    std::shared_ptr<WgmmaRegisters>& used = state.registers[registers.of_thread[0]];
    if (used == nullptr) {
        used = std::make_shared<WgmmaRegisters>();
        used->registers = registers;
        used->type = type;
    } else if (used->hidden) {
        if (!registers.filled_with(under_way_pattern)) {
            fail_at(site, "wgmma: registers of %s were written while a wgmma on them was under way", name);
        }
    } else if (!registers.equals(used->known)) {
        fail_at(site, "wgmma: registers of %s were touched by their threads, with no wgmma.fence since", name);
    }
    used->last_use = state.fences;
    return used;
}

void hide(WgmmaRegisters& accumulators) {
    if (!accumulators.hidden) {
        accumulators.registers.read(accumulators.values);
        accumulators.registers.fill(under_way_pattern);
        accumulators.hidden = true;
    }
}

void show(WgmmaRegisters& accumulators) {
    accumulators.registers.write(accumulators.values);
    accumulators.known = accumulators.values;
    accumulators.hidden = false;
}

void issue_finish(void* const* operands, uint32_t) {
    check_agreement(operands);
    WarpgroupState& state = own_state();
    const ThreadWgmma& first = of_thread(operands, 0);
    const Wgmma& instruction = first.operands;
    const Site site = first.site;
    if (state.fences == 0) {
        fail_at(site, "wgmma without a wgmma.fence before it");
    }
    WgmmaOperation operation;
    operation.site = site;
    operation.accumulators = use_registers(state, operands, instruction.n / 2, instruction.type, "D", site,
                                           [](const Wgmma& own) { return own.d; });
    if (instruction.a_registers != nullptr) {
        operation.a = use_registers(state, operands, 4, instruction.type, "A", site,
                                    [](const Wgmma& own) { return const_cast<uint32_t*>(own.a_registers); });
        operation.a->registers.read(operation.a_values);
        operation.a->known = operation.a_values;
    }
    wgmma_check_reads(instruction, current_block(), own_warpgroup() * warpgroup_threads, site);
    SyncPoint known;  // by all threads of the warpgroup: each of its warps reads a part
    for (int thread = 0; thread < warpgroup_threads; thread++) {
        known.release(current_block().threads[own_warpgroup() * warpgroup_threads + thread].agent);
    }
    WgmmaRegisters& accumulators = *operation.accumulators;
    hide(accumulators);
    accumulators.under_way++;
    const auto multiply = [=, d = operation.accumulators, a_values = operation.a_values](AsyncOperation& own) {
        wgmma_compute(own, instruction, a_values, d->values, site);
    };
    operation.ticket = defer("wgmma", site, &accumulators, multiply, &known);
    if (current_cluster->schedule().async == async_early) {
        show(accumulators);
    }
    state.open.push_back(std::move(operation));
}

void fence_finish(void* const*, uint32_t) {
    WarpgroupState& state = own_state();
    state.fences++;
    for (auto& [address, used] : state.registers) {
        if (!used->hidden) {
            used->registers.read(used->known);
        }
    }
}

void commit_finish(void* const*, uint32_t) {
    WarpgroupState& state = own_state();
    state.committed.push_back(std::move(state.open));
    state.open.clear();
}

void check_untouched(const WgmmaOperation& operation, Site site) {
    const WgmmaRegisters& d = *operation.accumulators;
    if (d.hidden ? !d.registers.filled_with(under_way_pattern) : !d.registers.equals(d.known)) {
        fail_at(site, "wgmma.wait_group: accumulators of the wgmma at line %d were written before it was waited for",
                operation.site.line);
    }
    if (operation.a != nullptr && !operation.a->registers.equals(operation.a_values)) {
        fail_at(site, "wgmma.wait_group: registers of A of the wgmma at line %d were written before it was waited for",
                operation.site.line);
    }
}

struct ThreadWait {
    int pending;
    Site site;
};

void wait_finish(void* const* operands, uint32_t) {
    const auto& wait = *static_cast<const ThreadWait*>(operands[0]);
    WarpgroupState& state = own_state();
    state.waited.clear();
    while (int(state.committed.size()) > wait.pending) {
        for (const WgmmaOperation& operation : state.committed.front()) {
            check_untouched(operation, wait.site);
        }
        for (const WgmmaOperation& operation : state.committed.front()) {
            complete(operation.ticket);
            state.waited.add(operation.ticket->finished);
            WgmmaRegisters& d = *operation.accumulators;
            if (--d.under_way == 0 && d.hidden) {
                show(d);
            }
        }
        state.committed.pop_front();
    }
}

}  // namespace

void wgmma(const Wgmma& operands, Site site) {
    ThreadWgmma own = {operands, site};
    maybe_preempt();
    collective(Scope::warpgroup, 0, "wgmma.mma_async", site, &own, issue_finish, aligned);
}

void wgmma_fence(Site site) { collective(Scope::warpgroup, 0, "wgmma.fence", site, nullptr, fence_finish, aligned); }

void wgmma_commit_group(Site site) {
    collective(Scope::warpgroup, 0, "wgmma.commit_group", site, nullptr, commit_finish, aligned);
}

void wgmma_wait(int pending, Site site) {
    ThreadWait own = {pending, site};
    collective(Scope::warpgroup, 0, "wgmma.wait_group", site, &own, wait_finish, aligned);
    own_state().waited.acquire(running_agent());
}

}  // namespace ptx
