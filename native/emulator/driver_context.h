// Which context is current in which thread, and what ends a context.
#pragma once

#include "driver_state.h"

namespace driver {

// This thread's stack of contexts; the last one is current. An entry may be empty (cuCtxSetCurrent(NULL)).
std::vector<std::shared_ptr<Context>>& thread_contexts();

std::shared_ptr<Context> new_context(CUdevice device, unsigned flags, bool primary);

// Ends all that lives in the context: queued work, streams, events, modules, graphs, device and host memory.
void empty_context(Lock& lock, const std::shared_ptr<Context>& context);

// Throws Refusal for an ordinal that does not exist.
void require_device(CUdevice device);

}  // namespace driver
