// Which bytes of device memory somebody has written: one bit per byte, kept by the race build alone.
#pragma once

#include "memory.h"

namespace emulator {

void marks_reserve(DeviceAddress begin, uint64_t bytes);
void marks_forget(DeviceAddress address, uint64_t bytes);

// Counts allocations and frees: what `find` said stays true while this stays the same.
uint64_t device_generation();

}  // namespace emulator
