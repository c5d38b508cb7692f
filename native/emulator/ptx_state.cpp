// Making and ending the per-block state of the instructions.

#include "ptx_state.h"

#include <algorithm>
#include <memory>

#include "fail.h"
#include "grid.h"
#include "ptx_wgmma_state.h"

namespace emulator {

namespace {

constexpr int registers_per_sm = 65536;
constexpr int max_registers_per_thread = 255;

// What ptxas may give each thread of a kernel with these launch bounds; setmaxnreg needs bounds.
int registers_at_launch(const Kernel& kernel) {
    if (kernel.max_threads == 0) {
        return 0;
    }
    const int share = registers_per_sm / std::max(kernel.max_threads, warpgroup_threads) / 8 * 8;
    return std::min(share, max_registers_per_thread / 8 * 8);
}

const bool registered = [] {
    set_instruction_state([](Block& block) -> std::unique_ptr<InstructionState> {
        return std::make_unique<PtxState>(block);
    });
    return true;
}();

}  // namespace

PtxState::PtxState(Block& block) : threads(block.threads.size()) {
    const int num_warpgroups = (int(block.threads.size()) + warpgroup_threads - 1) / warpgroup_threads;
    for (int i = 0; i < num_warpgroups; i++) {
        warpgroups.push_back(std::make_unique<WarpgroupState>());
    }
    registers.per_thread_at_launch = registers_at_launch(*block.cluster->launch().kernel);
    registers.of_warpgroup.assign(num_warpgroups, registers.per_thread_at_launch);
    registers.barriers_at_change.assign(num_warpgroups, {});
}

PtxState::~PtxState() = default;

// The writes of bulk stores need not be waited for: they happen even if the block has gone. Their reads must have
// happened by then, which the core finds out, as it does for every other operation under way.
void PtxState::block_ends(Block&) {
    for (ThreadCopies& thread : threads) {
        thread.bulk.committed.push_back(std::move(thread.bulk.open));
        for (auto& group : thread.bulk.committed) {
            for (BulkStore& store : group) {
                if (store.read->done) {
                    complete(store.write);
                }
            }
        }
    }
}

PtxState& ptx_state(Block& block) { return static_cast<PtxState&>(*block.instructions); }

ThreadCopies& own_copies() { return ptx_state(current_block()).threads[current_thread->linear]; }

}  // namespace emulator
