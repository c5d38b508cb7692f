// Modules: the image is not read, for the emulator carries the kernels itself; functions and constants go by name.
#include <unistd.h>

#include <cstring>

#include "driver_calls.h"
#include "driver_capture.h"
#include "driver_stream.h"
#include "memory.h"

namespace driver {
namespace {

using ModulePtr = std::shared_ptr<Module>;

Result load(const char* name, CUmodule* handle, const void* image) {
    return call_in_context(name, [&](Call& frame) {
        require_pointer(handle, "module");
        require_pointer(image, "image");
        forbid_during_capture(frame);
        auto module = std::make_shared<Module>();
        module->context = frame.context;
        module->handle = state().modules.add(module);
        *handle = module->handle;
    });
}

CUfunction find_function(Module& module, const char* name) {
    auto known = module.functions.find(name);
    if (known != module.functions.end()) {
        return known->second;
    }
    const emulator::Kernel* kernel = emulator::find_kernel(name);
    if (kernel == nullptr) {
        refuse(CUDA_ERROR_NOT_FOUND, "the emulator has no kernel '%s'", name);
    }
    auto function = std::make_shared<Function>();
    function->context = module.context;
    function->module = module.handle;
    function->kernel = kernel;
    function->handle = state().functions.add(function);
    module.functions[name] = function->handle;
    return function->handle;
}

// A module's constants live in device memory, as copies the module owns.
const Allocation& find_global(Lock& lock, Module& module, const char* name) {
    auto known = module.globals.find(name);
    if (known != module.globals.end()) {
        return *known->second;
    }
    const emulator::Constant* constant = emulator::find_constant(name);
    if (constant == nullptr) {
        refuse(CUDA_ERROR_NOT_FOUND, "the emulator has no constant '%s'", name);
    }
    state().queue.wait_until_idle(lock);
    AllocationPtr copy = state().device_memory.allocate(constant->bytes, module.context, nullptr);
    if (!copy) {
        refuse(CUDA_ERROR_OUT_OF_MEMORY, "%zu bytes for the constant '%s'", constant->bytes, name);
    }
    state().device_memory.give_to_module(copy);
    std::memcpy(reinterpret_cast<void*>(copy->base), constant->address, constant->bytes);
    emulator::mark_written(copy->base, constant->bytes);
    module.globals[name] = copy;
    return *copy;
}

void unload(Lock& lock, const ModulePtr& module) {
    state().queue.wait_until_idle(lock);
    for (const auto& entry : module->functions) {
        state().functions.remove(entry.second);
    }
    for (const auto& entry : module->globals) {
        state().device_memory.release(entry.second);
    }
}

}  // namespace

extern "C" {

Result cuModuleLoad(CUmodule* module, const char* file) {
    if (file != nullptr && access(file, R_OK) != 0) {
        return call_in_context("cuModuleLoad", [&](Call&) { refuse(CUDA_ERROR_FILE_NOT_FOUND, "%s", file); });
    }
    return load("cuModuleLoad", module, file);
}

Result cuModuleLoadData(CUmodule* module, const void* image) {
    return load("cuModuleLoadData", module, image);
}

Result cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned num_options, int* options, void** values) {
    if (num_options > 0 && (options == nullptr || values == nullptr)) {
        return load("cuModuleLoadDataEx", module, nullptr);
    }
    return load("cuModuleLoadDataEx", module, image);
}

Result cuModuleLoadFatBinary(CUmodule* module, const void* image) {
    return load("cuModuleLoadFatBinary", module, image);
}

Result cuModuleUnload(CUmodule handle) {
    return call_in_context("cuModuleUnload", [&](Call& frame) { unload(frame.lock, state().modules.remove(handle)); });
}

Result cuModuleGetFunction(CUfunction* function, CUmodule handle, const char* name) {
    return call_in_context("cuModuleGetFunction", [&](Call&) {
        require_pointer(function, "hfunc");
        require_pointer(name, "name");
        *function = find_function(*state().modules.find(handle), name);
    });
}

Result cuModuleGetGlobal_v2(CUdeviceptr* address, size_t* bytes, CUmodule handle, const char* name) {
    return call_in_context("cuModuleGetGlobal", [&](Call& frame) {
        require_pointer(name, "name");
        ModulePtr module = state().modules.find(handle);
        const Allocation& global = find_global(frame.lock, *module, name);
        if (address != nullptr) {
            *address = global.base;
        }
        if (bytes != nullptr) {
            *bytes = global.bytes;
        }
    });
}

}  // extern "C"
}  // namespace driver
