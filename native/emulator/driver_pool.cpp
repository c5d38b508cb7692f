#include "driver_pool.h"

#include <algorithm>
#include <cstring>

#include "driver_calls.h"
#include "driver_context.h"

namespace driver {
namespace {

std::shared_ptr<Pool> new_pool(CUdevice device) {
    auto pool = std::make_shared<Pool>();
    pool->device = device;
    pool->attributes = {{POOL_REUSE_FOLLOW_EVENT_DEPENDENCIES, 1},
                        {POOL_REUSE_ALLOW_OPPORTUNISTIC, 1},
                        {POOL_REUSE_ALLOW_INTERNAL_DEPENDENCIES, 1},
                        {POOL_RELEASE_THRESHOLD, 0}};
    pool->handle = state().pools.add(pool);
    return pool;
}

void require_pools(CUdevice device) {
    require_device(device);
    if (!state().settings.memory_pools) {
        refuse(CUDA_ERROR_NOT_SUPPORTED, "this device has no memory pools");
    }
}

DevicePools& pools_of(CUdevice device) {
    require_pools(device);
    DevicePools& pools = state().device_pools[device];
    if (!pools.of_device) {
        pools.of_device = new_pool(device);
        pools.current = pools.of_device;
    }
    return pools;
}

bool is_flag(int attribute) {
    return attribute >= POOL_REUSE_FOLLOW_EVENT_DEPENDENCIES && attribute <= POOL_REUSE_ALLOW_INTERNAL_DEPENDENCIES;
}

uint64_t measure(const Pool& pool, int attribute) {
    switch (attribute) {
        case POOL_RESERVED_MEM_CURRENT:
            return pool.reserved;
        case POOL_RESERVED_MEM_HIGH:
            return pool.most_reserved;
        case POOL_USED_MEM_CURRENT:
            return pool.used;
        case POOL_USED_MEM_HIGH:
            return pool.most_used;
        default:
            refuse(CUDA_ERROR_INVALID_VALUE, "unknown attribute %d", attribute);
    }
}

// The high-water marks can be set back to zero, and to nothing else.
void set_measure(Pool& pool, int attribute, uint64_t value) {
    bool can_reset = attribute == POOL_RESERVED_MEM_HIGH || attribute == POOL_USED_MEM_HIGH;
    if (!can_reset || value != 0) {
        refuse(CUDA_ERROR_INVALID_VALUE, "attribute %d cannot be set to %llu", attribute,
               static_cast<unsigned long long>(value));
    }
    uint64_t& mark = attribute == POOL_RESERVED_MEM_HIGH ? pool.most_reserved : pool.most_used;
    mark = attribute == POOL_RESERVED_MEM_HIGH ? pool.reserved : pool.used;
}

}  // namespace

std::shared_ptr<Pool> current_pool(CUdevice device) {
    return pools_of(device).current;
}

extern "C" {

Result cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
    return call("cuDeviceGetDefaultMemPool", Needs::driver, [&](Call&) {
        require_pointer(pool, "pool_out");
        *pool = pools_of(device).of_device->handle;
    });
}

Result cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device) {
    return call("cuDeviceGetMemPool", Needs::driver, [&](Call&) {
        require_pointer(pool, "pool");
        *pool = pools_of(device).current->handle;
    });
}

Result cuDeviceSetMemPool(CUdevice device, CUmemoryPool handle) {
    return call("cuDeviceSetMemPool", Needs::driver, [&](Call&) {
        std::shared_ptr<Pool> pool = state().pools.find(handle);
        if (pool->device != device) {
            refuse(CUDA_ERROR_INVALID_VALUE, "the pool is of device %d", pool->device);
        }
        pools_of(device).current = pool;
    });
}

Result cuMemPoolCreate(CUmemoryPool* handle, const CUmemPoolProps* properties) {
    return call("cuMemPoolCreate", Needs::driver, [&](Call&) {
        require_pointer(handle, "pool");
        require_pointer(properties, "poolProps");
        constexpr int type_pinned = 1;
        constexpr int location_device = 1;
        require_pools(properties->locationId);
        if (properties->allocType != type_pinned || properties->locationType != location_device ||
            properties->handleTypes != 0) {
            refuse(CUDA_ERROR_NOT_SUPPORTED, "only plain device pools are emulated");
        }
        *handle = new_pool(properties->locationId)->handle;
    });
}

Result cuMemPoolDestroy(CUmemoryPool handle) {
    return call("cuMemPoolDestroy", Needs::driver, [&](Call&) {
        std::shared_ptr<Pool> pool = state().pools.find(handle);
        DevicePools& pools = pools_of(pool->device);
        if (pool == pools.of_device) {
            refuse(CUDA_ERROR_INVALID_VALUE, "the device's default pool cannot be destroyed");
        }
        if (pool == pools.current) {
            pools.current = pools.of_device;
        }
        state().pools.remove(handle);
    });
}

Result cuMemPoolTrimTo(CUmemoryPool handle, size_t bytes_to_keep) {
    return call("cuMemPoolTrimTo", Needs::driver, [&](Call&) {
        Pool& pool = *state().pools.find(handle);
        pool.reserved = std::max(pool.used, std::min<uint64_t>(pool.reserved, bytes_to_keep));
    });
}

// Flags are an int, sizes 64 bits.
Result cuMemPoolGetAttribute(CUmemoryPool handle, int attribute, void* value) {
    return call("cuMemPoolGetAttribute", Needs::driver, [&](Call&) {
        require_pointer(value, "value");
        Pool& pool = *state().pools.find(handle);
        if (is_flag(attribute)) {
            auto flag = static_cast<int>(pool.attributes[attribute]);
            std::memcpy(value, &flag, sizeof flag);
            return;
        }
        uint64_t number = attribute == POOL_RELEASE_THRESHOLD ? pool.attributes[attribute] : measure(pool, attribute);
        std::memcpy(value, &number, sizeof number);
    });
}

Result cuMemPoolSetAttribute(CUmemoryPool handle, int attribute, void* value) {
    return call("cuMemPoolSetAttribute", Needs::driver, [&](Call&) {
        require_pointer(value, "value");
        Pool& pool = *state().pools.find(handle);
        if (is_flag(attribute)) {
            int flag = 0;
            std::memcpy(&flag, value, sizeof flag);
            pool.attributes[attribute] = flag != 0;
            return;
        }
        uint64_t number = 0;
        std::memcpy(&number, value, sizeof number);
        if (attribute == POOL_RELEASE_THRESHOLD) {
            pool.attributes[attribute] = number;
        } else {
            set_measure(pool, attribute, number);
        }
    });
}

}  // extern "C"
}  // namespace driver
