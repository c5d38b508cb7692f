// Device memory: allocation, stream-ordered allocation, and what can be asked about an address.
#include "driver_calls.h"
#include "driver_capture.h"
#include "driver_pool.h"
#include "driver_stream.h"
#include "memory.h"

namespace driver {
namespace {

uint64_t held_by_pools() {
    uint64_t bytes = 0;
    for (const std::shared_ptr<Pool>& pool : state().pools.all()) {
        bytes += pool->reserved;
    }
    return bytes;
}

uint64_t free_bytes() {
    auto total = static_cast<uint64_t>(state().settings.total_memory);
    uint64_t held = state().device_memory.held_bytes() + held_by_pools();
    return held < total ? total - held : 0;
}

// A pool uses what it has before it asks for more.
bool has_room(size_t bytes, const Pool* pool) {
    uint64_t in_pool = pool ? pool->reserved - pool->used : 0;
    return bytes <= in_pool || bytes - in_pool <= free_bytes();
}

// A real driver that runs short waits for frees under way and takes unused memory back from the pools.
void gather_memory(Call& frame) {
    wait_for_all(frame);
    for (const std::shared_ptr<Pool>& pool : state().pools.all()) {
        pool->reserved = pool->used;
    }
}

AllocationPtr allocate(Call& frame, size_t bytes, const std::shared_ptr<Pool>& pool) {
    if (bytes == 0) {
        refuse(CUDA_ERROR_INVALID_VALUE, "0 bytes");
    }
    state().queue.wait_until_idle(frame.lock);
    if (!has_room(bytes, pool.get())) {
        gather_memory(frame);
    }
    AllocationPtr allocation =
        has_room(bytes, pool.get()) ? state().device_memory.allocate(bytes, frame.context, pool) : nullptr;
    if (!allocation) {
        refuse(CUDA_ERROR_OUT_OF_MEMORY, "%zu bytes wanted, %llu free", bytes,
               static_cast<unsigned long long>(free_bytes()));
    }
    return allocation;
}

AllocationPtr find_to_free(CUdeviceptr address) {
    AllocationPtr allocation = state().device_memory.at(address);
    if (!allocation || allocation->of_module) {
        std::string what = emulator::in_device_range(address) ? emulator::describe_address(address, 1)
                                                              : std::string("which is no device memory");
        refuse(CUDA_ERROR_INVALID_VALUE, "0x%llx is not the start of memory to free: %s",
               static_cast<unsigned long long>(address), what.c_str());
    }
    if (allocation->free_queued) {
        refuse(CUDA_ERROR_INVALID_VALUE, "0x%llx: cuMemFreeAsync was called for it before",
               static_cast<unsigned long long>(address));
    }
    return allocation;
}

Result allocate_async(const char* name, CUdeviceptr* address, size_t bytes, CUmemoryPool pool_handle, bool use_default,
                      CUstream stream_handle) {
    return call_in_context(name, [&](Call& frame) {
        require_pointer(address, "dptr");
        StreamPtr stream = find_stream(frame, stream_handle);
        std::shared_ptr<Pool> pool =
            use_default ? current_pool(frame.context->device) : state().pools.find(pool_handle);
        if (stream->capture) {
            refuse(CUDA_ERROR_NOT_SUPPORTED, "allocations inside of a captured graph are not emulated");
        }
        AllocationPtr allocation = allocate(frame, bytes, pool);
        allocation->ready = false;
        auto reach = [allocation] {
            allocation->ready = true;
            return Outcome();
        };
        *address = allocation->base;
        enqueue(frame, stream, Work{NODE_EMPTY, name, reach, false});
    });
}

}  // namespace

extern "C" {

Result cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
    return call_in_context("cuMemAlloc", [&](Call& frame) {
        require_pointer(address, "dptr");
        forbid_during_capture(frame);
        *address = allocate(frame, bytes, nullptr)->base;
    });
}

// The real call "may" wait for the device; here it never does, so that nobody comes to rely on it.
Result cuMemFree_v2(CUdeviceptr address) {
    return call_in_context("cuMemFree", [&](Call& frame) {
        forbid_during_capture(frame);
        state().queue.wait_until_idle(frame.lock);
        state().device_memory.release(find_to_free(address));
    });
}

Result cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
    return allocate_async("cuMemAllocAsync", address, bytes, nullptr, true, stream);
}

Result cuMemAllocFromPoolAsync(CUdeviceptr* address, size_t bytes, CUmemoryPool pool, CUstream stream) {
    return allocate_async("cuMemAllocFromPoolAsync", address, bytes, pool, false, stream);
}

Result cuMemFreeAsync(CUdeviceptr address, CUstream stream_handle) {
    return call_in_context("cuMemFreeAsync", [&](Call& frame) {
        StreamPtr stream = find_stream(frame, stream_handle);
        AllocationPtr allocation = find_to_free(address);
        if (!allocation->pool) {
            refuse(CUDA_ERROR_INVALID_VALUE, "0x%llx comes from cuMemAlloc, not from cuMemAllocAsync",
                   static_cast<unsigned long long>(address));
        }
        if (stream->capture) {
            refuse(CUDA_ERROR_NOT_SUPPORTED, "frees inside of a captured graph are not emulated");
        }
        allocation->free_queued = true;
        auto release = [allocation] {
            state().device_memory.release(allocation);
            return Outcome();
        };
        enqueue(frame, stream, Work{NODE_EMPTY, frame.name, release, false});
    });
}

Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    return call_in_context("cuMemGetInfo", [&](Call&) {
        require_pointer(free, "free");
        require_pointer(total, "total");
        *free = free_bytes();
        *total = static_cast<size_t>(state().settings.total_memory);
    });
}

Result cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr address) {
    return call_in_context("cuMemGetAddressRange", [&](Call&) {
        std::string fault = state().device_memory.fault(address, 1, false);
        if (!fault.empty()) {
            refuse(CUDA_ERROR_NOT_FOUND, "%s", fault.c_str());
        }
        AllocationPtr allocation = state().device_memory.around(address);
        if (base != nullptr) {
            *base = allocation->base;
        }
        if (bytes != nullptr) {
            *bytes = allocation->bytes;
        }
    });
}

}  // extern "C"
}  // namespace driver
