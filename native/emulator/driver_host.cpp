// Page-locked host memory, and what can be asked about any pointer.
#include <cstring>

#include "driver_calls.h"
#include "driver_capture.h"
#include "driver_stream.h"
#include "memory.h"

namespace driver {
namespace {

constexpr unsigned known_allocation_flags = 7;
constexpr unsigned known_registration_flags = 15;

Result allocate_host(const char* name, void** memory, size_t bytes, unsigned flags) {
    return call_in_context(name, [&](Call& frame) {
        require_pointer(memory, "pp");
        forbid_during_capture(frame);
        if (bytes == 0 || flags > known_allocation_flags) {
            refuse(CUDA_ERROR_INVALID_VALUE, "%zu bytes, flags 0x%x", bytes, flags);
        }
        *memory = state().host_memory.allocate(bytes, frame.context, flags);
        if (*memory == nullptr) {
            refuse(CUDA_ERROR_OUT_OF_MEMORY, "the host has no %zu bytes", bytes);
        }
    });
}

const HostBlock& find_block(const void* memory, bool registered, Result otherwise) {
    const HostBlock* block = state().host_memory.around(reinterpret_cast<uintptr_t>(memory));
    bool matches = block && block->base == reinterpret_cast<uintptr_t>(memory) && block->registered == registered;
    if (!matches) {
        refuse(otherwise, "%p is not the start of %s memory", memory, registered ? "registered" : "page-locked");
    }
    return *block;
}

template <class Value>
void store(void* to, Value value) {
    std::memcpy(to, &value, sizeof value);
}

void store_device_attribute(void* data, int attribute, CUdeviceptr address, const Allocation& block) {
    switch (attribute) {
        case POINTER_CONTEXT:
            return store(data, block.context->handle);
        case POINTER_MEMORY_TYPE:
            return store(data, static_cast<unsigned>(MEMORYTYPE_DEVICE));
        case POINTER_DEVICE_POINTER:
            return store(data, address);
        case POINTER_IS_MANAGED:
            return store(data, 0);
        case POINTER_DEVICE_ORDINAL:
            return store(data, block.context->device);
        case POINTER_RANGE_START_ADDR:
            return store(data, block.base);
        case POINTER_RANGE_SIZE:
            return store(data, block.bytes);
        case POINTER_MAPPED:
            return store(data, 1);
        case POINTER_MEMPOOL_HANDLE:
            return store(data, block.pool ? block.pool->handle : nullptr);
        default:
            refuse(CUDA_ERROR_INVALID_VALUE, "attribute %d is not known of device memory", attribute);
    }
}

void store_host_attribute(void* data, int attribute, CUdeviceptr address, const HostBlock& block) {
    switch (attribute) {
        case POINTER_CONTEXT:
            return store(data, block.context->handle);
        case POINTER_MEMORY_TYPE:
            return store(data, static_cast<unsigned>(MEMORYTYPE_HOST));
        case POINTER_HOST_POINTER:
            return store(data, address);
        case POINTER_IS_MANAGED:
            return store(data, 0);
        case POINTER_DEVICE_ORDINAL:
            return store(data, block.context->device);
        case POINTER_RANGE_START_ADDR:
            return store(data, block.base);
        case POINTER_RANGE_SIZE:
            return store(data, block.bytes);
        case POINTER_MAPPED:
            return store(data, 1);
        default:
            refuse(CUDA_ERROR_INVALID_VALUE, "attribute %d is not known of host memory", attribute);
    }
}

void store_attribute(void* data, int attribute, CUdeviceptr address) {
    require_pointer(data, "data");
    if (emulator::in_device_range(address)) {
        std::string fault = state().device_memory.fault(address, 1, false);
        if (!fault.empty()) {
            refuse(CUDA_ERROR_INVALID_VALUE, "%s", fault.c_str());
        }
        return store_device_attribute(data, attribute, address, *state().device_memory.around(address));
    }
    const HostBlock* block = state().host_memory.around(address);
    if (block == nullptr) {
        refuse(CUDA_ERROR_INVALID_VALUE, "0x%llx is no memory of the driver", static_cast<unsigned long long>(address));
    }
    store_host_attribute(data, attribute, address, *block);
}

}  // namespace

extern "C" {

Result cuMemAllocHost_v2(void** memory, size_t bytes) {
    return allocate_host("cuMemAllocHost", memory, bytes, 0);
}

Result cuMemHostAlloc(void** memory, size_t bytes, unsigned flags) {
    return allocate_host("cuMemHostAlloc", memory, bytes, flags);
}

Result cuMemFreeHost(void* memory) {
    return call_in_context("cuMemFreeHost", [&](Call& frame) {
        forbid_during_capture(frame);
        state().host_memory.release(find_block(memory, false, CUDA_ERROR_INVALID_VALUE).base);
    });
}

Result cuMemHostRegister_v2(void* memory, size_t bytes, unsigned flags) {
    return call_in_context("cuMemHostRegister", [&](Call& frame) {
        auto base = reinterpret_cast<uintptr_t>(memory);
        if (bytes == 0 || flags > known_registration_flags || !is_mapped(base, bytes) ||
            emulator::in_device_range(base)) {
            refuse(CUDA_ERROR_INVALID_VALUE, "%zu bytes at %p, flags 0x%x", bytes, memory, flags);
        }
        if (state().host_memory.overlaps(base, bytes)) {
            refuse(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "%zu bytes at %p", bytes, memory);
        }
        state().host_memory.add_registered(base, bytes, frame.context, flags);
    });
}

Result cuMemHostUnregister(void* memory) {
    return call_in_context("cuMemHostUnregister", [&](Call&) {
        state().host_memory.release(find_block(memory, true, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED).base);
    });
}

Result cuMemHostGetFlags(unsigned* flags, void* memory) {
    return call_in_context("cuMemHostGetFlags", [&](Call&) {
        require_pointer(flags, "pFlags");
        *flags = find_block(memory, false, CUDA_ERROR_INVALID_VALUE).flags;
    });
}

Result cuPointerGetAttribute(void* data, int attribute, CUdeviceptr address) {
    return call_in_context("cuPointerGetAttribute", [&](Call&) { store_attribute(data, attribute, address); });
}

// As the driver has it: what is not known of a pointer is no error here but leaves zero behind.
Result cuPointerGetAttributes(unsigned count, int* attributes, void** data, CUdeviceptr address) {
    return call_in_context("cuPointerGetAttributes", [&](Call&) {
        require_pointer(attributes, "attributes");
        require_pointer(data, "data");
        for (unsigned i = 0; i < count; i++) {
            try {
                store_attribute(data[i], attributes[i], address);
            } catch (const Refusal&) {
                bool wide = attributes[i] != POINTER_MEMORY_TYPE && attributes[i] != POINTER_IS_MANAGED &&
                            attributes[i] != POINTER_DEVICE_ORDINAL && attributes[i] != POINTER_MAPPED;
                std::memset(data[i], 0, wide ? 8 : 4);
            }
        }
    });
}

}  // extern "C"
}  // namespace driver
