// Memset: like a kernel, it happens when the stream gets there, also without Async.
#include <cstring>

#include "driver_calls.h"
#include "driver_stream.h"
#include "memory.h"

namespace driver {
namespace {

template <class Value>
Outcome run_fill(const std::string& call, CUdeviceptr to, Value value, size_t count) {
    std::string fault = state().device_memory.fault(to, count * sizeof(Value), true);
    if (!fault.empty()) {
        return {CUDA_ERROR_ILLEGAL_ADDRESS, call + ": " + fault};
    }
    auto* destination = reinterpret_cast<std::byte*>(to);
    for (size_t i = 0; i < count; i++) {
        std::memcpy(destination + i * sizeof(Value), &value, sizeof(Value));
    }
    emulator::mark_written(to, count * sizeof(Value));
    return Outcome();
}

template <class Value>
Result fill(const char* name, CUdeviceptr to, Value value, size_t count, CUstream stream_handle) {
    return call_in_context(name, [&](Call& frame) {
        StreamPtr stream = find_stream(frame, stream_handle);
        if (count == 0) {
            return;
        }
        if (to % sizeof(Value) != 0) {
            refuse(CUDA_ERROR_INVALID_VALUE, "0x%llx is no multiple of %zu", static_cast<unsigned long long>(to),
                   sizeof(Value));
        }
        size_t bytes = count > SIZE_MAX / sizeof(Value) ? SIZE_MAX : count * sizeof(Value);
        std::string fault = state().device_memory.fault(to, bytes, false);
        if (!fault.empty()) {
            refuse(CUDA_ERROR_INVALID_VALUE, "%s", fault.c_str());
        }
        auto run = [call = std::string(name), to, value, count] { return run_fill(call, to, value, count); };
        enqueue(frame, stream, Work{NODE_MEMSET, name, run, false});
    });
}

}  // namespace

extern "C" {

Result cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
    return fill("cuMemsetD8", to, value, count, nullptr);
}

Result cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count) {
    return fill("cuMemsetD16", to, value, count, nullptr);
}

Result cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count) {
    return fill("cuMemsetD32", to, value, count, nullptr);
}

Result cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    return fill("cuMemsetD8Async", to, value, count, stream);
}

Result cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
    return fill("cuMemsetD16Async", to, value, count, stream);
}

Result cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    return fill("cuMemsetD32Async", to, value, count, stream);
}

}  // extern "C"
}  // namespace driver
