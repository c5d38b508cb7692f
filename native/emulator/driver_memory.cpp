#include "driver_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "driver_state.h"
#include "fail.h"
#include "memory.h"

namespace driver {
namespace {

// Larger host blocks are poisoned at their ends only, so that they cost no memory until touched.
constexpr size_t poisoned_in_full = 64 << 20;

uintptr_t page_bytes() {
    static const auto bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}

void poison(void* memory, size_t bytes) {
    if (bytes <= poisoned_in_full) {
        std::memset(memory, 0xFF, bytes);
    } else {
        std::memset(memory, 0xFF, page_bytes());
    }
}

}  // namespace

AllocationPtr DeviceMemory::allocate(size_t bytes, std::shared_ptr<Context> context, std::shared_ptr<Pool> pool) {
    auto allocation = std::make_shared<Allocation>();
    allocation->base = emulator::allocate(bytes);
    if (allocation->base == 0) {
        return nullptr;
    }
    allocation->bytes = bytes;
    allocation->context = std::move(context);
    if (pool) {
        pool->used += bytes;
        pool->reserved = std::max(pool->reserved, pool->used);
        pool->most_used = std::max(pool->most_used, pool->used);
        pool->most_reserved = std::max(pool->most_reserved, pool->reserved);
    } else {
        held_bytes_ += bytes;
    }
    allocation->pool = std::move(pool);
    blocks_[allocation->base] = allocation;
    live_blocks_++;
    live_bytes_ += static_cast<long long>(bytes);
    return allocation;
}

bool DeviceMemory::release(const AllocationPtr& allocation) {
    if (blocks_.erase(allocation->base) == 0) {
        return true;  // its context was emptied in between
    }
    if (!allocation->of_module) {
        live_blocks_--;
        live_bytes_ -= static_cast<long long>(allocation->bytes);
    }
    if (allocation->pool) {
        Pool& pool = *allocation->pool;
        pool.used -= allocation->bytes;
        pool.reserved = std::max(pool.used, std::min(pool.reserved, pool.attributes[POOL_RELEASE_THRESHOLD]));
    } else {
        held_bytes_ -= allocation->bytes;
    }
    return emulator::free(allocation->base);
}

void DeviceMemory::give_to_module(const AllocationPtr& allocation) {
    allocation->of_module = true;
    live_blocks_--;
    live_bytes_ -= static_cast<long long>(allocation->bytes);
}

AllocationPtr DeviceMemory::at(CUdeviceptr base) const {
    auto found = blocks_.find(base);
    return found == blocks_.end() ? nullptr : found->second;
}

AllocationPtr DeviceMemory::around(CUdeviceptr address) const {
    auto after = blocks_.upper_bound(address);
    if (after == blocks_.begin()) {
        return nullptr;
    }
    const AllocationPtr& candidate = std::prev(after)->second;
    return address <= candidate->base + candidate->bytes ? candidate : nullptr;
}

std::string DeviceMemory::fault(CUdeviceptr address, size_t bytes, bool now) const {
    if (!emulator::in_device_range(address)) {
        return emulator::text("0x%llx is no device memory%s", static_cast<unsigned long long>(address),
                              address == 0 ? " (null)" : " but a host address");
    }
    AllocationPtr block = around(address);
    bool inside = block && bytes <= block->bytes && address - block->base <= block->bytes - bytes;
    if (!inside || (bytes > 0 && address == block->base + block->bytes)) {
        return emulator::text("%zu bytes %s", bytes, emulator::describe_address(address, bytes).c_str());
    }
    if (now && !block->ready) {
        return emulator::text("%zu bytes at 0x%llx: used before the cuMemAllocAsync that gave this memory was reached; "
                              "order the two by a stream or an event", bytes, static_cast<unsigned long long>(address));
    }
    return std::string();
}

std::vector<AllocationPtr> DeviceMemory::of(const Context& context) const {
    std::vector<AllocationPtr> found;
    for (const auto& entry : blocks_) {
        if (entry.second->context.get() == &context) {
            found.push_back(entry.second);
        }
    }
    return found;
}

void* HostMemory::allocate(size_t bytes, std::shared_ptr<Context> context, unsigned flags) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return nullptr;
    }
    poison(memory, bytes);
    auto base = reinterpret_cast<uintptr_t>(memory);
    blocks_[base] = {base, bytes, std::move(context), false, flags};
    return memory;
}

void HostMemory::add_registered(uintptr_t base, size_t bytes, std::shared_ptr<Context> context, unsigned flags) {
    blocks_[base] = {base, bytes, std::move(context), true, flags};
}

const HostBlock* HostMemory::around(uintptr_t address) const {
    auto after = blocks_.upper_bound(address);
    if (after == blocks_.begin()) {
        return nullptr;
    }
    const HostBlock& candidate = std::prev(after)->second;
    return address - candidate.base < candidate.bytes ? &candidate : nullptr;
}

bool HostMemory::overlaps(uintptr_t base, size_t bytes) const {
    auto after = blocks_.lower_bound(base);
    bool starts_inside = after != blocks_.end() && after->first < base + bytes;
    return starts_inside || around(base) != nullptr;
}

void HostMemory::release(uintptr_t base) {
    auto found = blocks_.find(base);
    if (!found->second.registered) {
        munmap(reinterpret_cast<void*>(base), found->second.bytes);
    }
    blocks_.erase(found);
}

void HostMemory::release_all(const Context& context) {
    std::vector<uintptr_t> bases;
    for (const auto& entry : blocks_) {
        if (entry.second.context.get() == &context) {
            bases.push_back(entry.first);
        }
    }
    for (uintptr_t base : bases) {
        release(base);
    }
}

bool is_mapped(uintptr_t address, size_t bytes) {
    if (address + bytes < address) {
        return false;
    }
    uintptr_t first = address / page_bytes() * page_bytes();
    uintptr_t end = address + bytes;
    return bytes == 0 || msync(reinterpret_cast<void*>(first), end - first, MS_ASYNC) == 0;
}

}  // namespace driver
