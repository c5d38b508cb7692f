// Kernel launches: everything a launch can be refused for is checked before it is queued, with its parameters copied.
#include <cstring>

#include "driver_calls.h"
#include "driver_device.h"
#include "driver_stream.h"
#include "fail.h"
#include "grid.h"
#include "memory.h"

namespace driver {
namespace {

using FunctionPtr = std::shared_ptr<Function>;

struct Request {
    emulator::Dim3 grid;
    emulator::Dim3 block;
    emulator::Dim3 cluster;
    bool early = false;
    unsigned dynamic_shared = 0;
    CUstream stream = nullptr;
    void** params = nullptr;
    void** extra = nullptr;
};

void require_extent(const char* what, unsigned value, unsigned most) {
    if (value < 1 || value > most) {
        refuse(CUDA_ERROR_INVALID_VALUE, "%s = %u, must be 1 to %u", what, value, most);
    }
}

void check_geometry(const Request& request, const Function& function) {
    require_extent("gridDimX", request.grid.x, 0x7FFFFFFF);
    require_extent("gridDimY", request.grid.y, 65535);
    require_extent("gridDimZ", request.grid.z, 65535);
    require_extent("blockDimX", request.block.x, 1024);
    require_extent("blockDimY", request.block.y, 1024);
    require_extent("blockDimZ", request.block.z, 64);
    uint64_t threads = request.block.count();
    if (threads > 1024) {
        refuse(CUDA_ERROR_INVALID_VALUE, "%llu threads in a block, the most are 1024",
               static_cast<unsigned long long>(threads));
    }
    int bound = function.kernel->max_threads;
    if (bound > 0 && threads > static_cast<uint64_t>(bound)) {
        refuse(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "%s: %llu threads in a block, its launch bounds allow %d",
               function.kernel->name, static_cast<unsigned long long>(threads), bound);
    }
}

void check_shared_memory(const Request& request, const Function& function) {
    if (request.dynamic_shared > static_cast<unsigned>(function.max_dynamic_shared)) {
        refuse(CUDA_ERROR_INVALID_VALUE,
               "%s: %u bytes of dynamic shared memory, its attribute MAX_DYNAMIC_SHARED_SIZE_BYTES allows %d",
               function.kernel->name, request.dynamic_shared, function.max_dynamic_shared);
    }
}

void check_cluster(const Request& request, const Function& function) {
    uint64_t blocks = request.cluster.count();
    if (blocks == 1) {
        return;
    }
    if (!device_limits().clusters) {
        refuse(CUDA_ERROR_NOT_SUPPORTED, "this device has no clusters");
    }
    uint64_t most = function.clusters_over_eight ? 16 : 8;
    if (blocks == 0 || blocks > most) {
        refuse(CUDA_ERROR_INVALID_CLUSTER_SIZE, "%llu blocks in a cluster, the most are %llu",
               static_cast<unsigned long long>(blocks), static_cast<unsigned long long>(most));
    }
    bool divides = request.grid.x % request.cluster.x == 0 && request.grid.y % request.cluster.y == 0 &&
                   request.grid.z % request.cluster.z == 0;
    if (!divides) {
        refuse(CUDA_ERROR_INVALID_VALUE, "the grid (%u,%u,%u) is no multiple of the cluster (%u,%u,%u)",
               request.grid.x, request.grid.y, request.grid.z, request.cluster.x, request.cluster.y,
               request.cluster.z);
    }
}

// kernelParams: one pointer per parameter.
void copy_params(const Request& request, const emulator::Kernel& kernel, std::vector<std::byte>& packed) {
    for (int param = 0; param < kernel.num_params; param++) {
        if (request.params == nullptr || request.params[param] == nullptr) {
            refuse(CUDA_ERROR_INVALID_VALUE, "%s: parameter %d of %d is null", kernel.name, param, kernel.num_params);
        }
        std::memcpy(packed.data() + kernel.param_offset(param), request.params[param], kernel.param_bytes[param]);
    }
}

// extra: all parameters in one buffer, laid out as the kernel has them.
void copy_buffer(const Request& request, const emulator::Kernel& kernel, std::vector<std::byte>& packed) {
    const void* buffer = nullptr;
    const size_t* bytes = nullptr;
    void** entry = request.extra;
    while (reinterpret_cast<uintptr_t>(*entry) != launch_param_end) {
        auto key = reinterpret_cast<uintptr_t>(entry[0]);
        if (key == launch_param_buffer_pointer) {
            buffer = entry[1];
        } else if (key == launch_param_buffer_size) {
            bytes = static_cast<const size_t*>(entry[1]);
        } else {
            refuse(CUDA_ERROR_INVALID_VALUE, "unknown key %llu in `extra`", static_cast<unsigned long long>(key));
        }
        entry += 2;
    }
    if (buffer == nullptr || bytes == nullptr || *bytes < kernel.params_bytes()) {
        refuse(CUDA_ERROR_INVALID_VALUE, "%s: `extra` gives %zu bytes of parameters, the kernel takes %zu",
               kernel.name, buffer && bytes ? *bytes : size_t{0}, kernel.params_bytes());
    }
    std::memcpy(packed.data(), buffer, kernel.params_bytes());
}

std::vector<std::byte> pack_params(const Request& request, const emulator::Kernel& kernel) {
    std::vector<std::byte> packed(kernel.params_bytes());
    if (request.extra == nullptr) {
        copy_params(request, kernel, packed);
    } else if (request.params == nullptr) {
        copy_buffer(request, kernel, packed);
    } else {
        refuse(CUDA_ERROR_INVALID_VALUE, "kernelParams and extra are both given");
    }
    return packed;
}

// A pointer must lead into living memory (or to its end: an empty tensor) that the stream has reached. What the kernel
// does with it, and whether it is device memory at all, the emulator checks.
std::string stale_pointer(const emulator::Launch& launch) {
    const emulator::Kernel& kernel = *launch.kernel;
    for (int param = 0; param < kernel.num_params; param++) {
        if (!kernel.param_is_pointer[param]) {
            continue;
        }
        CUdeviceptr address = 0;
        std::memcpy(&address, launch.params.data() + kernel.param_offset(param), sizeof address);
        if (!emulator::in_device_range(address)) {
            continue;
        }
        AllocationPtr block = state().device_memory.around(address);
        if (!block) {
            return emulator::text("kernel %s, parameter %d points to no living memory: %s", kernel.name, param,
                                  emulator::describe_address(address, 1).c_str());
        }
        if (!block->ready) {
            return emulator::text("kernel %s, parameter %d: the cuMemAllocAsync that gave 0x%llx was not reached; "
                                  "order the two by a stream or an event",
                                  kernel.name, param, static_cast<unsigned long long>(address));
        }
    }
    return std::string();
}

Outcome run_launch(const emulator::Launch& launch) {
    std::string problem;
    {
        Lock lock(state().mutex);
        problem = stale_pointer(launch);
    }
    if (problem.empty()) {
        problem = emulator::run(launch);
    }
    return problem.empty() ? Outcome() : Outcome{CUDA_ERROR_LAUNCH_FAILED, problem};
}

void launch(Call& frame, CUfunction handle, const Request& request) {
    FunctionPtr function = state().functions.find(handle);
    if (function->context != frame.context) {
        refuse(CUDA_ERROR_INVALID_HANDLE, "the function belongs to another context than the current one");
    }
    StreamPtr stream = find_stream(frame, request.stream);
    check_geometry(request, *function);
    check_shared_memory(request, *function);
    check_cluster(request, *function);
    auto prepared = std::make_shared<emulator::Launch>();
    prepared->kernel = function->kernel;
    prepared->grid = request.grid;
    prepared->block = request.block;
    prepared->cluster = request.cluster;
    prepared->early = request.early;
    prepared->dynamic_shared = request.dynamic_shared;
    prepared->params = pack_params(request, *function->kernel);
    std::string refused = emulator::refusal(*prepared);
    if (!refused.empty()) {
        refuse(CUDA_ERROR_INVALID_VALUE, "%s", refused.c_str());
    }
    bool captured = stream->capture != nullptr;
    state().counters.launches += !captured;
    if (state().settings.discard_launches && !captured) {
        return;
    }
    emulator::place_behind(stream->last_launch.get(), *prepared);
    stream->last_launch = prepared;
    auto run = [prepared] { return run_launch(*prepared); };
    enqueue(frame, stream, Work{NODE_KERNEL, function->kernel->name, run, true});
}

// Whether launches return at the door, so that what a launch costs its caller can be measured.
bool ignores_launches() { return state().settings.discard_launches == 2; }

// Throws Refusal for an attribute that is not emulated: ignoring it would test something else than what will run.
void apply_attribute(const CUlaunchAttribute& attribute, Request& request) {
    switch (attribute.id) {
        case LAUNCH_IGNORE:
        case LAUNCH_PRIORITY:
        case LAUNCH_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
            return;
        case LAUNCH_CLUSTER_DIMENSION: {
            auto cluster = attribute.value.cluster;
            request.cluster = emulator::Dim3(cluster.x, cluster.y, cluster.z);
            return;
        }
        case LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION:
            if (!device_limits().clusters) {
                refuse(CUDA_ERROR_NOT_SUPPORTED, "this device has no programmatic stream serialisation");
            }
            request.early = attribute.value.number != 0;
            return;
        case LAUNCH_COOPERATIVE:
            if (attribute.value.number == 0) {
                return;
            }
            refuse(CUDA_ERROR_NOT_SUPPORTED, "cooperative launches are not emulated");
        default:
            refuse(CUDA_ERROR_INVALID_VALUE, "unknown launch attribute %d", static_cast<int>(attribute.id));
    }
}

Request request_of(const CUlaunchConfig* config) {
    require_pointer(config, "config");
    Request request;
    request.grid = emulator::Dim3(config->gridDimX, config->gridDimY, config->gridDimZ);
    request.block = emulator::Dim3(config->blockDimX, config->blockDimY, config->blockDimZ);
    request.dynamic_shared = config->sharedMemBytes;
    request.stream = config->hStream;
    if (config->numAttrs > 0) {
        require_pointer(config->attrs, "config->attrs");
    }
    for (unsigned i = 0; i < config->numAttrs; i++) {
        apply_attribute(config->attrs[i], request);
    }
    return request;
}

// None of our kernels has a cluster in its source, so that the configuration must say one.
void require_cluster(const CUlaunchConfig& config) {
    for (unsigned i = 0; i < config.numAttrs; i++) {
        if (config.attrs[i].id == LAUNCH_CLUSTER_DIMENSION) {
            return;
        }
    }
    refuse(CUDA_ERROR_INVALID_CLUSTER_SIZE, "the configuration has no attribute CLUSTER_DIMENSION");
}

}  // namespace

extern "C" {

Result cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned dynamic_shared, CUstream stream, void** params,
                      void** extra) {
    if (ignores_launches()) {
        return CUDA_SUCCESS;
    }
    return call_in_context("cuLaunchKernel", [&](Call& frame) {
        Request request;
        request.grid = emulator::Dim3(grid_x, grid_y, grid_z);
        request.block = emulator::Dim3(block_x, block_y, block_z);
        request.dynamic_shared = dynamic_shared;
        request.stream = stream;
        request.params = params;
        request.extra = extra;
        launch(frame, function, request);
    });
}

Result cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** params, void** extra) {
    if (ignores_launches()) {
        return CUDA_SUCCESS;
    }
    return call_in_context("cuLaunchKernelEx", [&](Call& frame) {
        Request request = request_of(config);
        request.params = params;
        request.extra = extra;
        launch(frame, function, request);
    });
}

// The device has no parts that a cluster could not span: what its multiprocessors hold, in clusters.
Result cuOccupancyMaxActiveClusters(int* clusters, CUfunction handle, const CUlaunchConfig* config) {
    return call_in_context("cuOccupancyMaxActiveClusters", [&](Call&) {
        require_pointer(clusters, "numClusters");
        FunctionPtr function = state().functions.find(handle);
        Request request = request_of(config);
        require_cluster(*config);
        check_geometry(request, *function);
        check_shared_memory(request, *function);
        check_cluster(request, *function);
        int blocks = resident_blocks(static_cast<int>(request.block.count()), request.dynamic_shared);
        *clusters = static_cast<int>(blocks * state().settings.multiprocessors /
                                     static_cast<long long>(request.cluster.count()));
    });
}

Result cuLaunchHostFunc(CUstream stream, CUhostFn function, void* user_data) {
    return call_in_context("cuLaunchHostFunc", [&](Call& frame) {
        if (function == nullptr) {
            refuse(CUDA_ERROR_INVALID_VALUE, "fn is null");
        }
        auto run = [function, user_data] {
            function(user_data);
            return Outcome();
        };
        enqueue(frame, find_stream(frame, stream), Work{NODE_HOST, frame.name, run, true});
    });
}

}  // extern "C"
}  // namespace driver
