// The primary context of a device: one per device, shared by all who retain it.
#include "driver_call.h"
#include "driver_calls.h"
#include "driver_context.h"

namespace driver {
namespace {

void reset_primary(Lock& lock, Primary& primary) {
    if (primary.context && primary.context->alive) {
        empty_context(lock, primary.context);
        primary.context->alive = false;
    }
}

}  // namespace

extern "C" {

Result cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    return call("cuDevicePrimaryCtxRetain", Needs::driver, [&](Call&) {
        require_pointer(context, "pctx");
        require_device(device);
        Primary& primary = state().primaries[device];
        if (!primary.context) {
            primary.context = new_context(device, primary.flags, true);
        }
        primary.context->alive = true;
        primary.retained++;
        *context = primary.context->handle;
    });
}

Result cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return call("cuDevicePrimaryCtxRelease", Needs::driver, [&](Call& frame) {
        require_device(device);
        Primary& primary = state().primaries[device];
        if (primary.retained == 0) {
            refuse(CUDA_ERROR_INVALID_CONTEXT, "the primary context of device %d is not retained", device);
        }
        if (--primary.retained == 0) {
            reset_primary(frame.lock, primary);
        }
    });
}

// The handle stays; it is usable again after the next cuDevicePrimaryCtxRetain.
Result cuDevicePrimaryCtxReset_v2(CUdevice device) {
    return call("cuDevicePrimaryCtxReset", Needs::driver, [&](Call& frame) {
        require_device(device);
        reset_primary(frame.lock, state().primaries[device]);
    });
}

Result cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
    return call("cuDevicePrimaryCtxGetState", Needs::driver, [&](Call&) {
        require_device(device);
        const Primary& primary = state().primaries[device];
        if (flags != nullptr) {
            *flags = primary.flags;
        }
        if (active != nullptr) {
            *active = primary.context && primary.context->alive ? 1 : 0;
        }
    });
}

Result cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags) {
    return call("cuDevicePrimaryCtxSetFlags", Needs::driver, [&](Call&) {
        require_device(device);
        Primary& primary = state().primaries[device];
        primary.flags = flags;
        if (primary.context) {
            primary.context->flags = flags;
        }
    });
}

}  // extern "C"
}  // namespace driver
