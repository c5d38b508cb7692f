// Copies. Where the memory lies decides when the call returns, as the CUDA documentation ("API synchronization
// behavior") has it:
//   pageable to device    the source is read before the call returns, the copy itself happens when the stream gets there
//   device to pageable    the copy is complete when the call returns
//   page-locked, Async    everything happens when the stream gets there: the host memory must stay as it is until then
//   page-locked, not Async    the copy is complete when the call returns
//   device to device      the call never waits, Async or not
//   host to host          the copy is complete when the call returns
#include <cstring>

#include "driver_calls.h"
#include "driver_capture.h"
#include "driver_stream.h"
#include "fail.h"
#include "memory.h"

namespace driver {
namespace {

// Pageable sources beyond this are not staged: the call waits for the stream and copies at once.
constexpr size_t max_staged = 64 << 20;

enum class Kind { device, page_locked, pageable };

struct Place {
    const char* role;
    uint64_t address;
    Kind kind;
};

struct Copy {
    std::string call;
    Place to;
    Place from;
    size_t bytes;
};

unsigned long long printable(uint64_t address) {
    return address;
}

std::string host_fault(uint64_t address, size_t bytes) {
    const HostBlock* block = state().host_memory.around(address);
    bool fits = block && bytes <= block->bytes - (address - block->base);
    return fits ? std::string()
                : emulator::text("%zu bytes at 0x%llx are no longer, or not all, page-locked", bytes,
                                 printable(address));
}

std::string fault_now(const Place& place, size_t bytes) {
    switch (place.kind) {
        case Kind::device:
            return state().device_memory.fault(place.address, bytes, true);
        case Kind::page_locked:
            return host_fault(place.address, bytes);
        default:
            return std::string();
    }
}

Outcome run_copy(const Copy& copy) {
    for (const Place& place : {copy.to, copy.from}) {
        std::string fault = fault_now(place, copy.bytes);
        if (!fault.empty()) {
            return {CUDA_ERROR_ILLEGAL_ADDRESS, copy.call + ": " + place.role + ": " + fault};
        }
    }
    std::memcpy(reinterpret_cast<void*>(copy.to.address), reinterpret_cast<const void*>(copy.from.address),
                copy.bytes);
    if (copy.to.kind == Kind::device) {
        if (copy.from.kind == Kind::device) {
            emulator::copy_written_marks(copy.to.address, copy.from.address, copy.bytes);
        } else {
            emulator::mark_written(copy.to.address, copy.bytes);
        }
    }
    return Outcome();
}

Place device_place(const char* role, CUdeviceptr address, size_t bytes) {
    std::string fault = state().device_memory.fault(address, bytes, false);
    if (!fault.empty()) {
        refuse(CUDA_ERROR_INVALID_VALUE, "%s: %s", role, fault.c_str());
    }
    return {role, address, Kind::device};
}

Place host_place(const char* role, uint64_t address, size_t bytes) {
    if (emulator::in_device_range(address)) {
        refuse(CUDA_ERROR_INVALID_VALUE, "%s: 0x%llx is device memory, not host memory", role, printable(address));
    }
    if (state().host_memory.around(address) != nullptr) {
        std::string fault = host_fault(address, bytes);
        if (!fault.empty()) {
            refuse(CUDA_ERROR_INVALID_VALUE, "%s: %s", role, fault.c_str());
        }
        return {role, address, Kind::page_locked};
    }
    if (address == 0 || !is_mapped(address, bytes)) {
        refuse(CUDA_ERROR_INVALID_VALUE, "%s: %zu bytes at 0x%llx are no memory of this process", role, bytes,
               printable(address));
    }
    return {role, address, Kind::pageable};
}

Place any_place(const char* role, uint64_t address, size_t bytes) {
    return emulator::in_device_range(address) ? device_place(role, address, bytes) : host_place(role, address, bytes);
}

Place host_place(const char* role, const void* address, size_t bytes) {
    return host_place(role, reinterpret_cast<uint64_t>(address), bytes);
}

OperationPtr enqueue_copy(Call& frame, const StreamPtr& stream, Copy copy) {
    return enqueue(frame, stream, Work{NODE_MEMCPY, copy.call, [copy] { return run_copy(copy); }, false});
}

// The source is read now; the operation owns what was read.
void enqueue_staged(Call& frame, const StreamPtr& stream, Copy copy) {
    auto source = reinterpret_cast<const std::byte*>(copy.from.address);
    auto staged = std::make_shared<std::vector<std::byte>>(source, source + copy.bytes);
    copy.from.address = reinterpret_cast<uint64_t>(staged->data());
    enqueue(frame, stream, Work{NODE_MEMCPY, copy.call, [copy, staged] { return run_copy(copy); }, false});
}

void copy(Call& frame, const StreamPtr& stream, Place to, Place from, size_t bytes, bool synchronous) {
    bool both_device = to.kind == Kind::device && from.kind == Kind::device;
    bool pageable = to.kind == Kind::pageable || from.kind == Kind::pageable;
    if (both_device && to.address < from.address + bytes && from.address < to.address + bytes) {
        refuse(CUDA_ERROR_INVALID_VALUE, "source and destination overlap");
    }
    if (stream->capture && pageable) {
        forbid_on_capturing(*stream);
    }
    state().counters.copies++;
    Copy what{frame.name, to, from, bytes};
    if (from.kind == Kind::pageable && to.kind == Kind::device && bytes <= max_staged) {
        if (synchronous) {
            wait_for(frame, stream);
        }
        enqueue_staged(frame, stream, what);
        return;
    }
    OperationPtr operation = enqueue_copy(frame, stream, what);
    bool both_host = to.kind != Kind::device && from.kind != Kind::device;
    if (pageable || both_host || (synchronous && !both_device)) {
        wait_for(frame, operation);
    }
}

// A copy of nothing is valid whatever the pointers are.
template <class Places>
Result copy_call(const char* name, size_t bytes, CUstream stream_handle, bool synchronous, Places places) {
    return call_in_context(name, [&](Call& frame) {
        StreamPtr stream = find_stream(frame, stream_handle);
        if (bytes > 0) {
            auto [to, from] = places();
            copy(frame, stream, to, from, bytes, synchronous);
        }
    });
}

using Places = std::pair<Place, Place>;

Result host_to_device(const char* name, CUdeviceptr to, const void* from, size_t bytes, CUstream stream, bool sync) {
    return copy_call(name, bytes, stream, sync, [&] {
        return Places(device_place("destination", to, bytes), host_place("source", from, bytes));
    });
}

Result device_to_host(const char* name, void* to, CUdeviceptr from, size_t bytes, CUstream stream, bool sync) {
    return copy_call(name, bytes, stream, sync, [&] {
        return Places(host_place("destination", to, bytes), device_place("source", from, bytes));
    });
}

Result device_to_device(const char* name, CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream, bool sync) {
    return copy_call(name, bytes, stream, sync, [&] {
        return Places(device_place("destination", to, bytes), device_place("source", from, bytes));
    });
}

Result any_to_any(const char* name, CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream, bool sync) {
    return copy_call(name, bytes, stream, sync, [&] {
        return Places(any_place("destination", to, bytes), any_place("source", from, bytes));
    });
}

}  // namespace

extern "C" {

Result cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
    return host_to_device("cuMemcpyHtoD", to, from, bytes, nullptr, true);
}

Result cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    return host_to_device("cuMemcpyHtoDAsync", to, from, bytes, stream, false);
}

Result cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
    return device_to_host("cuMemcpyDtoH", to, from, bytes, nullptr, true);
}

Result cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return device_to_host("cuMemcpyDtoHAsync", to, from, bytes, stream, false);
}

Result cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return device_to_device("cuMemcpyDtoD", to, from, bytes, nullptr, true);
}

Result cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return device_to_device("cuMemcpyDtoDAsync", to, from, bytes, stream, false);
}

Result cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return any_to_any("cuMemcpy", to, from, bytes, nullptr, true);
}

Result cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return any_to_any("cuMemcpyAsync", to, from, bytes, stream, false);
}

}  // extern "C"
}  // namespace driver
