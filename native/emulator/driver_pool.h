// Memory pools of the stream-ordered allocator.
#pragma once

#include "driver_call.h"

namespace driver {

// The pool that cuMemAllocAsync takes from. Throws Refusal where the device has none.
std::shared_ptr<Pool> current_pool(CUdevice device);

}  // namespace driver
