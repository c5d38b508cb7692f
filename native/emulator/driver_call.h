// The frame of every driver call: ordered faults, initialisation, the current context, sticky errors, the lock, and the
// translation of a refusal into a result. An exported function is one `return call(...)`.
#pragma once

#include <new>
#include <type_traits>

#include "driver_state.h"

namespace driver {

enum class Needs {
    nothing,  // works before cuInit
    driver,   // works without a context
    context,  // needs a healthy current context
};

struct Call {
    const char* name;
    Lock lock;
    std::shared_ptr<Context> context;  // the current one, if Needs::context
};

// Throws Refusal.
Call enter(const char* name, Needs needs);

// Throws the context's sticky error, if it has one: the end of every call that waited for the device.
void require_healthy(const Context& context);

Result fail_call(const char* name, const Refusal& refusal);

template <class Body>
Result call(const char* name, Needs needs, Body body) {
    try {
        Call frame = enter(name, needs);
        if constexpr (std::is_same_v<decltype(body(frame)), void>) {
            body(frame);
            return CUDA_SUCCESS;
        } else {
            return body(frame);
        }
    } catch (const Refusal& refusal) {
        return fail_call(name, refusal);
    } catch (const std::bad_alloc&) {
        return fail_call(name, {CUDA_ERROR_OUT_OF_MEMORY, "the host has no memory left"});
    }
}

template <class Body>
Result call_in_context(const char* name, Body body) {
    return call(name, Needs::context, body);
}

// Refuses a null pointer the caller must not give.
inline void require_pointer(const void* pointer, const char* parameter) {
    if (pointer == nullptr) {
        refuse(CUDA_ERROR_INVALID_VALUE, "%s is null", parameter);
    }
}

}  // namespace driver
