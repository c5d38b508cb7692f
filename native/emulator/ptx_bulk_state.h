// Common parts of TMA and of bulk copies without a map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "ptx_state.h"
#include "site.h"

namespace emulator {

// Where a load goes: the blocks that receive it, each at its own copy of the target and of the barrier.
struct LoadTargets {
    std::vector<uint32_t> targets;
    std::vector<uint32_t> barriers;
};

LoadTargets single_target(uint32_t target, uint32_t bytes, uint32_t barrier, const char* what, Site site);
LoadTargets multicast_targets(uint32_t target, uint32_t bytes, uint32_t barrier, uint16_t blocks, const char* what,
                              Site site);

// Starts a load: `fill` produces the bytes as they lie in shared memory from the target on.
using FillBytes = std::function<void(AsyncOperation& operation, uint32_t target, std::byte* bytes)>;
void start_load(LoadTargets to, uint32_t bytes, const char* what, Site site, FillBytes fill);

// Starts a store of shared memory, as a member of the open bulk group of the running thread. `write` gets the bytes as
// they lay in shared memory.
using WriteBytes = std::function<void(AsyncOperation& operation, const std::byte* bytes)>;
void start_store(uint32_t source, uint32_t bytes, const char* what, Site site, WriteBytes write);

}  // namespace emulator
