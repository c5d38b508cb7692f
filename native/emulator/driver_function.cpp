// Functions: attributes, parameters, occupancy.
#include "driver_calls.h"
#include "driver_device.h"
#include "driver_stream.h"
#include "grid.h"

namespace driver {
namespace {

int attribute_of(const Function& function, int attribute) {
    int bound = function.kernel->max_threads;
    switch (attribute) {
        case FUNCTION_MAX_THREADS_PER_BLOCK:
            return bound > 0 ? bound : 1024;
        case FUNCTION_NUM_REGS:
            return assumed_registers;
        case FUNCTION_PTX_VERSION:
        case FUNCTION_BINARY_VERSION:
            return device_limits().capability;
        case FUNCTION_MAX_DYNAMIC_SHARED_SIZE_BYTES:
            return function.max_dynamic_shared;
        case FUNCTION_PREFERRED_SHARED_MEMORY_CARVEOUT:
            return function.shared_carveout;
        case FUNCTION_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
            return function.clusters_over_eight;
        case FUNCTION_SHARED_SIZE_BYTES:
        case FUNCTION_CONST_SIZE_BYTES:
        case FUNCTION_LOCAL_SIZE_BYTES:
        case FUNCTION_CACHE_MODE_CA:
        case FUNCTION_CLUSTER_SIZE_MUST_BE_SET:
        case FUNCTION_REQUIRED_CLUSTER_WIDTH:
        case FUNCTION_REQUIRED_CLUSTER_HEIGHT:
        case FUNCTION_REQUIRED_CLUSTER_DEPTH:
        case FUNCTION_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
            return 0;
        default:
            refuse(CUDA_ERROR_INVALID_VALUE, "unknown attribute %d", attribute);
    }
}

void set_attribute(Function& function, int attribute, int value) {
    switch (attribute) {
        case FUNCTION_MAX_DYNAMIC_SHARED_SIZE_BYTES:
            if (value < 0 || value > device_limits().shared_per_block_optin) {
                refuse(CUDA_ERROR_INVALID_VALUE, "%s: %d bytes of dynamic shared memory, the device allows %d",
                       function.kernel->name, value, device_limits().shared_per_block_optin);
            }
            function.max_dynamic_shared = value;
            return;
        case FUNCTION_PREFERRED_SHARED_MEMORY_CARVEOUT:
            if (value < -1 || value > 100) {
                refuse(CUDA_ERROR_INVALID_VALUE, "a carveout of %d percent", value);
            }
            function.shared_carveout = value;
            return;
        case FUNCTION_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
            function.clusters_over_eight = value != 0;
            return;
        case FUNCTION_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
            return;
        default:
            refuse(CUDA_ERROR_INVALID_VALUE, "attribute %d cannot be set", attribute);
    }
}

Result occupancy(const char* name, int* blocks, CUfunction function, int block_threads, size_t dynamic_shared) {
    return call_in_context(name, [&](Call&) {
        require_pointer(blocks, "numBlocks");
        std::shared_ptr<Function> found = state().functions.find(function);
        if (block_threads < 1) {
            refuse(CUDA_ERROR_INVALID_VALUE, "blocks of %d threads", block_threads);
        }
        bool possible = block_threads <= attribute_of(*found, FUNCTION_MAX_THREADS_PER_BLOCK) &&
                        dynamic_shared <= static_cast<size_t>(device_limits().shared_per_block_optin);
        *blocks = possible ? resident_blocks(block_threads, dynamic_shared) : 0;
    });
}

}  // namespace

extern "C" {

Result cuFuncGetAttribute(int* value, int attribute, CUfunction function) {
    return call_in_context("cuFuncGetAttribute", [&](Call&) {
        require_pointer(value, "pi");
        *value = attribute_of(*state().functions.find(function), attribute);
    });
}

Result cuFuncSetAttribute(CUfunction function, int attribute, int value) {
    return call_in_context("cuFuncSetAttribute",
                           [&](Call&) { set_attribute(*state().functions.find(function), attribute, value); });
}

// Past the last parameter the result is INVALID_VALUE: that is how callers count.
Result cuFuncGetParamInfo(CUfunction handle, size_t index, size_t* offset, size_t* bytes) {
    return call_in_context("cuFuncGetParamInfo", [&](Call&) {
        const emulator::Kernel& kernel = *state().functions.find(handle)->kernel;
        require_pointer(offset, "paramOffset");
        if (index >= static_cast<size_t>(kernel.num_params)) {
            refuse(CUDA_ERROR_INVALID_VALUE, "%s has %d parameters, number %zu is wanted", kernel.name,
                   kernel.num_params, index);
        }
        *offset = kernel.param_offset(static_cast<int>(index));
        if (bytes != nullptr) {
            *bytes = kernel.param_bytes[index];
        }
    });
}

Result cuFuncGetModule(CUmodule* module, CUfunction function) {
    return call_in_context("cuFuncGetModule", [&](Call&) {
        require_pointer(module, "hmod");
        *module = state().functions.find(function)->module;
    });
}

Result cuFuncGetName(const char** name, CUfunction function) {
    return call_in_context("cuFuncGetName", [&](Call&) {
        require_pointer(name, "name");
        *name = state().functions.find(function)->kernel->name;
    });
}

Result cuFuncSetCacheConfig(CUfunction function, int) {
    return call_in_context("cuFuncSetCacheConfig", [&](Call&) { state().functions.find(function); });
}

Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int block_threads,
                                                   size_t dynamic_shared) {
    return occupancy("cuOccupancyMaxActiveBlocksPerMultiprocessor", blocks, function, block_threads, dynamic_shared);
}

Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction function, int block_threads,
                                                            size_t dynamic_shared, unsigned) {
    return occupancy("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", blocks, function, block_threads,
                     dynamic_shared);
}

}  // extern "C"
}  // namespace driver
