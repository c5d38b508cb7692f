// What the race build remembers of every byte of device memory that the running launch has touched.
#pragma once

#include <cstddef>
#include <cstdint>

#include "shadow.h"

#if JMOE_EMULATOR_SHADOW
#include "shadow_cells.h"
#endif

namespace emulator {

#if JMOE_EMULATOR_SHADOW

// A launch begins: all that ran before happened before.
void start_global_cells();

// Fails if the bytes are not inside of one living allocation, are read though nobody wrote them, or are in a race:
// within the cluster as in shared memory, with another cluster unless atomics and fences order the two.
void global_access(const Access& access, const void* address, size_t bytes);

// An atomic of the thread hands on what it had done at its last __threadfence, and takes what others handed on.
void hand_on_global(Agent& agent, const void* address);

#else

inline void start_global_cells() {}

#endif

}  // namespace emulator
