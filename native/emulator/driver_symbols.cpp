// Error texts, symbols by name, and the profiler, which has nothing to do here.
#include <dlfcn.h>

#include <string>

#include "driver_call.h"
#include "driver_calls.h"

namespace driver {
namespace {

enum SymbolStatus : int { SYMBOL_FOUND = 0, SYMBOL_NOT_FOUND = 1 };

// This library, or the program it was linked into.
void* own_library() {
    Dl_info info;
    if (dladdr(reinterpret_cast<void*>(&cuInit), &info) == 0) {
        return nullptr;
    }
    void* library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    return library ? library : dlopen(nullptr, RTLD_LAZY);
}

// "cuMemAlloc" means the newest version there is.
void* find_symbol(const std::string& name) {
    static void* library = own_library();
    for (const char* version : {"_v4", "_v3", "_v2", ""}) {
        if (void* address = dlsym(library, (name + version).c_str())) {
            return address;
        }
    }
    return nullptr;
}

Result find_into(const char* symbol, void** address, int* status) {
    return call("cuGetProcAddress", Needs::nothing, [&](Call&) -> Result {
        require_pointer(symbol, "symbol");
        require_pointer(address, "pfn");
        *address = find_symbol(symbol);
        if (status != nullptr) {
            *status = *address ? SYMBOL_FOUND : SYMBOL_NOT_FOUND;
        }
        if (*address == nullptr) {
            refuse(CUDA_ERROR_NOT_FOUND, "no symbol %s", symbol);
        }
        return CUDA_SUCCESS;
    });
}

}  // namespace

extern "C" {

Result cuGetErrorName(int code, const char** name) {
    if (name == nullptr) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *name = error_name(code);
    return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

Result cuGetErrorString(int code, const char** text) {
    if (text == nullptr) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *text = describe_error(code);
    return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

Result cuGetProcAddress(const char* symbol, void** address, int, uint64_t) {
    return find_into(symbol, address, nullptr);
}

Result cuGetProcAddress_v2(const char* symbol, void** address, int, uint64_t, int* status) {
    return find_into(symbol, address, status);
}

Result cuProfilerStart() {
    return call_in_context("cuProfilerStart", [](Call&) {});
}

Result cuProfilerStop() {
    return call_in_context("cuProfilerStop", [](Call&) {});
}

}  // extern "C"
}  // namespace driver
