// What a warpgroup has under way.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "async.h"
#include "block.h"
#include "ptx_wgmma.h"

namespace emulator {

// The same registers in each thread of a warpgroup: the variable that a kernel passes to wgmma.
struct RegisterArray {
    std::array<uint32_t*, warpgroup_threads> of_thread;
    int count = 0;

    size_t size() const { return size_t(count) * warpgroup_threads; }
    void read(std::vector<uint32_t>& values) const;
    void write(const std::vector<uint32_t>& values) const;
    void fill(uint32_t value) const;
    bool equals(const std::vector<uint32_t>& values) const;
    bool filled_with(uint32_t value) const;
    bool overlaps(const RegisterArray& other) const;
};

// Registers that a wgmma has used. `known` is what they held when a wgmma or wgmma.fence last saw them: another content
// means that the threads have touched them since.
struct WgmmaRegisters {
    RegisterArray registers;
    ptx::WgmmaType type;
    std::vector<uint32_t> known;
    uint64_t last_use = 0;  // counted in fences

    // Accumulators alone: their true values while operations are under way, when the registers hold NaN.
    std::vector<uint32_t> values;
    int under_way = 0;
    bool hidden = false;
};

struct WgmmaOperation {
    AsyncTicket ticket;
    std::shared_ptr<WgmmaRegisters> accumulators;
    std::shared_ptr<WgmmaRegisters> a;  // null if a is in shared memory
    std::vector<uint32_t> a_values;
    Site site;
};

struct WarpgroupState {
    uint64_t fences = 0;
    std::map<const uint32_t*, std::shared_ptr<WgmmaRegisters>> registers;  // by the address in the first thread
    std::vector<WgmmaOperation> open;
    std::deque<std::vector<WgmmaOperation>> committed;
    SyncPoint waited;  // what the newest wait_group waited for
};

// The operation itself. d holds n / 2 values of each thread, thread after thread; a_registers is empty or holds 4 of
// each.
void wgmma_compute(AsyncOperation& operation, const ptx::Wgmma& operands, const std::vector<uint32_t>& a_registers,
                   std::vector<uint32_t>& d, Site site);

// In the race build: every warp must know of the bytes that it reads. Called when the wgmma is issued.
void wgmma_check_reads(const ptx::Wgmma& operands, Block& block, int first_thread, Site site);

// Fails if a descriptor is malformed.
void wgmma_check_descriptor(uint64_t descriptor, const char* operand, Site site);

}  // namespace emulator
