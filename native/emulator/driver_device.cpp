#include "driver_device.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "driver_call.h"
#include "driver_calls.h"
#include "driver_context.h"
#include "driver_control.h"

namespace driver {
namespace {

constexpr int kib = 1024;
constexpr int mib = 1024 * 1024;

// CUDA programming guide, table of technical specifications per compute capability; L2 of a typical product.
constexpr DeviceLimits known_limits[] = {
    {75, 64 * kib, 64 * kib, 1024, 16, 4 * mib, false},
    {80, 163 * kib, 164 * kib, 2048, 32, 40 * mib, false},
    {86, 99 * kib, 100 * kib, 1536, 16, 6 * mib, false},
    {89, 99 * kib, 100 * kib, 1536, 24, 72 * mib, false},
    {90, 227 * kib, 228 * kib, 2048, 32, 60 * mib, true},
    {100, 227 * kib, 228 * kib, 2048, 32, 126 * mib, true},
    {120, 99 * kib, 100 * kib, 1536, 24, 96 * mib, true},
};

int attribute_of(int attribute, CUdevice device) {
    const DeviceLimits& limits = device_limits();
    const Settings& settings = state().settings;
    switch (attribute) {
        case MAX_THREADS_PER_BLOCK:
        case MAX_BLOCK_DIM_X:
        case MAX_BLOCK_DIM_Y:
            return 1024;
        case MAX_BLOCK_DIM_Z:
            return 64;
        case MAX_GRID_DIM_X:
            return 0x7FFFFFFF;
        case MAX_GRID_DIM_Y:
        case MAX_GRID_DIM_Z:
            return 65535;
        case MAX_SHARED_MEMORY_PER_BLOCK:
            return 48 * kib;
        case MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
            return limits.shared_per_block_optin;
        case MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
            return limits.shared_per_multiprocessor;
        case RESERVED_SHARED_MEMORY_PER_BLOCK:
            return limits.capability >= 80 ? kib : 0;
        case TOTAL_CONSTANT_MEMORY:
            return 64 * kib;
        case WARP_SIZE:
            return 32;
        case MAX_PITCH:
            return 0x7FFFFFFF;
        case MAX_REGISTERS_PER_BLOCK:
        case MAX_REGISTERS_PER_MULTIPROCESSOR:
            return 65536;
        case CLOCK_RATE:
            return 1980000;
        case MEMORY_CLOCK_RATE:
            return 3201000;
        case GLOBAL_MEMORY_BUS_WIDTH:
            return 6144;
        case MULTIPROCESSOR_COUNT:
            return static_cast<int>(settings.multiprocessors);
        case L2_CACHE_SIZE:
            return limits.l2_bytes;
        case MAX_THREADS_PER_MULTIPROCESSOR:
            return limits.threads_per_multiprocessor;
        case MAX_BLOCKS_PER_MULTIPROCESSOR:
            return limits.blocks_per_multiprocessor;
        case ASYNC_ENGINE_COUNT:
            return 3;
        case PCI_BUS_ID:
            return device + 1;
        case COMPUTE_CAPABILITY_MAJOR:
            return limits.capability / 10;
        case COMPUTE_CAPABILITY_MINOR:
            return limits.capability % 10;
        case SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO:
            return 2;
        case MEMORY_POOLS_SUPPORTED:
            return settings.memory_pools != 0;
        case CLUSTER_LAUNCH:
        case TENSOR_MAP_ACCESS_SUPPORTED:
            return limits.clusters;
        case GPU_OVERLAP:
        case CONCURRENT_KERNELS:
        case ECC_ENABLED:
        case UNIFIED_ADDRESSING:
        case STREAM_PRIORITIES_SUPPORTED:
        case GLOBAL_L1_CACHE_SUPPORTED:
        case LOCAL_L1_CACHE_SUPPORTED:
        case COMPUTE_PREEMPTION_SUPPORTED:
        case HOST_REGISTER_SUPPORTED:
            return 1;
        default:
            return 0;  // not there, or not emulated
    }
}

void initialise() {
    if (state().initialised) {
        return;
    }
    read_environment();
    if (state().settings.device_count < 1) {
        refuse(CUDA_ERROR_NO_DEVICE, "deviceCount is %lld", state().settings.device_count);
    }
    state().initialised = true;
}

Result write_uuid(const char* name, CUuuid* uuid, CUdevice device) {
    return call(name, Needs::driver, [&](Call&) {
        require_pointer(uuid, "uuid");
        require_device(device);
        std::memcpy(uuid->bytes, "jmoe-emulator-00", sizeof uuid->bytes);
        uuid->bytes[15] = static_cast<char>('0' + device);
    });
}

}  // namespace

const DeviceLimits& device_limits() {
    const DeviceLimits* found = known_limits;
    for (const DeviceLimits& limits : known_limits) {
        if (limits.capability <= state().settings.capability) {
            found = &limits;
        }
    }
    return *found;
}

int resident_blocks(int block_threads, size_t dynamic_shared) {
    const DeviceLimits& limits = device_limits();
    int warps = (block_threads + 31) / 32;
    int by_threads = limits.threads_per_multiprocessor / (warps * 32);
    int by_registers = 65536 / (assumed_registers * warps * 32);
    constexpr size_t reserved = 1024;
    auto by_shared = static_cast<int>(limits.shared_per_multiprocessor / (dynamic_shared + reserved));
    return std::min({limits.blocks_per_multiprocessor, by_threads, by_registers, by_shared});
}

extern "C" {

Result cuInit(unsigned flags) {
    return call("cuInit", Needs::nothing, [&](Call&) {
        if (flags != 0) {
            refuse(CUDA_ERROR_INVALID_VALUE, "flags 0x%x, must be 0", flags);
        }
        initialise();
    });
}

// Works before cuInit, and has to know the environment then.
Result cuDriverGetVersion(int* version) {
    return call("cuDriverGetVersion", Needs::nothing, [&](Call&) {
        require_pointer(version, "driverVersion");
        read_environment();
        *version = static_cast<int>(state().settings.driver_version);
    });
}

Result cuDeviceGetCount(int* count) {
    return call("cuDeviceGetCount", Needs::driver, [&](Call&) {
        require_pointer(count, "count");
        *count = static_cast<int>(state().settings.device_count);
    });
}

Result cuDeviceGet(CUdevice* device, int ordinal) {
    return call("cuDeviceGet", Needs::driver, [&](Call&) {
        require_pointer(device, "device");
        require_device(ordinal);
        *device = ordinal;
    });
}

Result cuDeviceGetName(char* name, int bytes, CUdevice device) {
    return call("cuDeviceGetName", Needs::driver, [&](Call&) {
        require_pointer(name, "name");
        require_device(device);
        std::snprintf(name, bytes > 0 ? static_cast<size_t>(bytes) : 0, "%s", jmoeEmulatorName());
    });
}

Result cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
    return call("cuDeviceGetAttribute", Needs::driver, [&](Call&) {
        require_pointer(value, "pi");
        require_device(device);
        if (attribute < 1 || attribute > LAST_DEVICE_ATTRIBUTE) {
            refuse(CUDA_ERROR_INVALID_VALUE, "unknown attribute %d", attribute);
        }
        *value = attribute_of(attribute, device);
    });
}

Result cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
    return call("cuDeviceTotalMem", Needs::driver, [&](Call&) {
        require_pointer(bytes, "bytes");
        require_device(device);
        *bytes = static_cast<size_t>(state().settings.total_memory);
    });
}

Result cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
    return write_uuid("cuDeviceGetUuid", uuid, device);
}

Result cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
    return write_uuid("cuDeviceGetUuid", uuid, device);
}

Result cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
    return call("cuDeviceComputeCapability", Needs::driver, [&](Call&) {
        require_pointer(major, "major");
        require_pointer(minor, "minor");
        require_device(device);
        *major = device_limits().capability / 10;
        *minor = device_limits().capability % 10;
    });
}

Result cuDeviceGetPCIBusId(char* name, int bytes, CUdevice device) {
    return call("cuDeviceGetPCIBusId", Needs::driver, [&](Call&) {
        require_pointer(name, "pciBusId");
        require_device(device);
        std::snprintf(name, bytes > 0 ? static_cast<size_t>(bytes) : 0, "0000:%02x:00.0", device + 1);
    });
}

}  // extern "C"
}  // namespace driver
