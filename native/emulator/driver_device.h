// The emulated device's limits, which follow from its compute capability.
#pragma once

#include <cstddef>

namespace driver {

struct DeviceLimits {
    int capability;
    int shared_per_block_optin;
    int shared_per_multiprocessor;
    int threads_per_multiprocessor;
    int blocks_per_multiprocessor;
    int l2_bytes;
    bool clusters;  // and TMA, and programmatic stream serialisation
};

// Of the capability that is set (jmoeEmulatorSet "capability"). Called under the lock.
const DeviceLimits& device_limits();

// Registers are nothing the emulator knows: a middling number, for whoever prints it.
constexpr int assumed_registers = 64;

// How many blocks a multiprocessor runs at once. Called under the lock.
int resident_blocks(int block_threads, size_t dynamic_shared);

}  // namespace driver
