// What the race build remembers of every byte of device memory that the running launch has touched, or one of those
// that it may overlap with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "grid.h"
#include "shadow.h"

#if JMOE_EMULATOR_SHADOW
#include "shadow_cells.h"
#endif

namespace emulator {

#if JMOE_EMULATOR_SHADOW

// A launch begins: all that ran before happened before, but for what a griddepcontrol.wait has to wait for.
void start_global_cells(const Launch& launch);

// Fails if the bytes are not inside of one living allocation, are read though nobody wrote them, or are in a race:
// within the cluster as in shared memory, with another cluster unless atomics and fences order the two, with a launch
// that may still be running unless a griddepcontrol.wait came before.
void global_access(const Access& access, const void* address, size_t bytes);

// An atomic of the thread hands on what it had done at its last __threadfence, and takes what others handed on.
void hand_on_global(Agent& agent, const void* address);

#else

inline void start_global_cells(const Launch&) {}

#endif

}  // namespace emulator
