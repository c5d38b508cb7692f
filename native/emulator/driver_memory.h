// Device memory and page-locked host memory as the driver's tables know them. The bytes of device memory lie in the
// emulator's arena (memory.h), an address range of its own: no host pointer can pass for a device pointer.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "driver_queue.h"

namespace driver {

struct Pool {
    CUmemoryPool handle = nullptr;
    CUdevice device = 0;
    std::map<int, uint64_t> attributes;
    uint64_t used = 0;
    uint64_t reserved = 0;  // what a real pool would hold back from the system
    uint64_t most_used = 0;
    uint64_t most_reserved = 0;
};

struct Allocation {
    CUdeviceptr base = 0;
    size_t bytes = 0;
    std::shared_ptr<Context> context;
    std::shared_ptr<Pool> pool;  // nullptr: from cuMemAlloc
    bool ready = true;           // false until the stream has reached the cuMemAllocAsync
    bool free_queued = false;
    bool of_module = false;  // a module's constant: not the caller's to free or to count
};

using AllocationPtr = std::shared_ptr<Allocation>;

class DeviceMemory {
public:
    // nullptr: out of memory.
    AllocationPtr allocate(size_t bytes, std::shared_ptr<Context> context, std::shared_ptr<Pool> pool);

    // False: the emulator did not know the block.
    bool release(const AllocationPtr& allocation);

    // From now on the block is a module's constant: counted no more.
    void give_to_module(const AllocationPtr& allocation);

    // The allocation with this first address; nullptr if there is none.
    AllocationPtr at(CUdeviceptr base) const;

    // The allocation around an address (also one past its end); nullptr if there is none.
    AllocationPtr around(CUdeviceptr address) const;

    // Empty if [address, address + bytes) lies in one living block, else what is wrong with it. With `now`, the block's
    // cuMemAllocAsync must have been reached too.
    std::string fault(CUdeviceptr address, size_t bytes, bool now) const;

    std::vector<AllocationPtr> of(const Context& context) const;

    long long live_blocks() const { return live_blocks_; }
    long long live_bytes() const { return live_bytes_; }
    uint64_t held_bytes() const { return held_bytes_; }

private:
    std::map<CUdeviceptr, AllocationPtr> blocks_;
    long long live_blocks_ = 0;
    long long live_bytes_ = 0;
    uint64_t held_bytes_ = 0;
};

struct HostBlock {
    uintptr_t base = 0;
    size_t bytes = 0;
    std::shared_ptr<Context> context;
    bool registered = false;  // by cuMemHostRegister: not ours to unmap
    unsigned flags = 0;
};

// Page-locked memory. Every other host address is pageable.
class HostMemory {
public:
    // nullptr: the system has no more.
    void* allocate(size_t bytes, std::shared_ptr<Context> context, unsigned flags);
    void add_registered(uintptr_t base, size_t bytes, std::shared_ptr<Context> context, unsigned flags);

    // The block that contains the address; nullptr if it is pageable.
    const HostBlock* around(uintptr_t address) const;
    bool overlaps(uintptr_t base, size_t bytes) const;

    void release(uintptr_t base);
    void release_all(const Context& context);

private:
    std::map<uintptr_t, HostBlock> blocks_;
};

// False where an access would end the process.
bool is_mapped(uintptr_t address, size_t bytes);

}  // namespace driver
