// Device memory: an address range of its own, so that no host pointer can pass for a device pointer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emulator {

using DeviceAddress = uint64_t;

// What is known of an address. bytes == 0: it lies in no allocation, neither living nor freed.
struct Allocation {
    DeviceAddress base = 0;
    uint64_t bytes = 0;
    bool alive = false;
    uint64_t serial = 0;  // 1 for the first allocation of the process
};

// Bytes of at least 256-byte alignment, filled with 0xFF (NaN in every float type, -1 as an integer); of blocks over
// 64 MiB only the two ends. Costs no memory until touched. 0 if the range is used up. allocate(0) is refused: 0.
DeviceAddress allocate(uint64_t bytes);

// False if address is not the base of a living allocation. The addresses stay unused as long as the range lasts.
bool free(DeviceAddress address);

// The allocation that contains the address, or the nearest one that ends below it (then address is outside of it).
Allocation find(DeviceAddress address);

// True if all bytes lie in one living allocation.
bool is_device(DeviceAddress address, uint64_t bytes);

// True for every address of the reserved range, allocated or not.
bool in_device_range(DeviceAddress address);

// "at 0x.., 12 bytes past the end of the 400 bytes allocated as number 7": for messages.
std::string describe_address(DeviceAddress address, uint64_t bytes);

uint64_t live_allocations();
uint64_t live_bytes();

// Stores of the running kernel outside of an allocation break the pattern kept around it. Empty, or what was found.
// Every launch ends with this; it is what the fast build has in place of checking every access.
std::string find_broken_edge();

// The driver tells of what it writes or copies itself. The race build refuses kernels that read what nobody wrote; in
// the other builds these do nothing.
void mark_written(DeviceAddress address, uint64_t bytes);
void copy_written_marks(DeviceAddress to, DeviceAddress from, uint64_t bytes);

// The first byte nobody wrote, or `bytes` if all were written (always in the builds that do not keep track).
uint64_t first_unwritten(DeviceAddress address, uint64_t bytes);

}  // namespace emulator
