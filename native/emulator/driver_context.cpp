#include "driver_context.h"

#include "driver_call.h"
#include "driver_calls.h"
#include "driver_capture.h"
#include "driver_stream.h"

namespace driver {
namespace {

void start_streams(const std::shared_ptr<Context>& context) {
    context->legacy_stream = std::make_shared<Stream>();
    context->legacy_stream->handle = reinterpret_cast<CUstream>(stream_legacy);
    context->legacy_stream->context = context;
    context->legacy_stream->legacy = true;
    context->legacy_stream->id = ++state().counters.ids;
}

template <class Table>
void remove_of(Table& table, const Context& context) {
    table.remove_if([&](const auto& object) { return object.context.get() == &context; });
}

void destroy_context(Lock& lock, const std::shared_ptr<Context>& context) {
    empty_context(lock, context);
    context->alive = false;
    context->legacy_stream.reset();
    state().contexts.remove(context->handle);
}

Result create_context(Call& frame, CUcontext* context, unsigned flags, CUdevice device) {
    require_pointer(context, "pctx");
    require_device(device);
    if (flags > 0xFF) {
        refuse(CUDA_ERROR_INVALID_VALUE, "unknown flags 0x%x", flags);
    }
    (void)frame;
    std::shared_ptr<Context> created = new_context(device, flags, false);
    thread_contexts().push_back(created);
    *context = created->handle;
    return CUDA_SUCCESS;
}

}  // namespace

std::vector<std::shared_ptr<Context>>& thread_contexts() {
    thread_local std::vector<std::shared_ptr<Context>> contexts;
    return contexts;
}

void require_device(CUdevice device) {
    if (device < 0 || device >= state().settings.device_count) {
        refuse(CUDA_ERROR_INVALID_DEVICE, "device %d, but there are %lld", device, state().settings.device_count);
    }
}

std::shared_ptr<Context> new_context(CUdevice device, unsigned flags, bool primary) {
    auto context = std::make_shared<Context>();
    context->device = device;
    context->flags = flags;
    context->primary = primary;
    context->id = ++state().counters.ids;
    context->handle = state().contexts.add(context);
    start_streams(context);
    return context;
}

void lose(Context& context, Result result, const std::string& why) {
    if (context.lost == CUDA_SUCCESS) {
        context.lost = result;
        context.why_lost = why;
        remember_lost_context(result, why);
    }
}

void empty_context(Lock& lock, const std::shared_ptr<Context>& context) {
    state().queue.drop(lock, *context);
    remove_of(state().streams, *context);
    remove_of(state().events, *context);
    remove_of(state().modules, *context);
    remove_of(state().functions, *context);
    remove_of(state().graphs, *context);
    remove_of(state().graph_nodes, *context);
    remove_of(state().graph_execs, *context);
    std::erase_if(state().captures, [&](const auto& capture) { return capture->graph->context == context; });
    for (const AllocationPtr& allocation : state().device_memory.of(*context)) {
        state().device_memory.release(allocation);
    }
    state().host_memory.release_all(*context);
    if (context->lost != CUDA_SUCCESS) {
        forget_lost_contexts();
    }
    context->lost = CUDA_SUCCESS;
    context->why_lost.clear();
    context->thread_streams.clear();
    context->orphans.clear();
    start_streams(context);
}

extern "C" {

Result cuCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device) {
    return call("cuCtxCreate", Needs::driver,
                [&](Call& frame) { return create_context(frame, context, flags, device); });
}

Result cuCtxCreate_v4(CUcontext* context, CUctxCreateParams* params, unsigned flags, CUdevice device) {
    return call("cuCtxCreate", Needs::driver, [&](Call& frame) {
        if (params != nullptr && (params->numExecAffinityParams != 0 || params->cigParams != nullptr)) {
            refuse(CUDA_ERROR_NOT_SUPPORTED, "execution affinity and graphics interoperation are not emulated");
        }
        return create_context(frame, context, flags, device);
    });
}

Result cuCtxDestroy_v2(CUcontext context) {
    return call("cuCtxDestroy", Needs::driver, [&](Call& frame) {
        std::shared_ptr<Context> found = state().contexts.find(context);
        if (found->primary) {
            refuse(CUDA_ERROR_INVALID_CONTEXT, "this is a primary context; use cuDevicePrimaryCtxRelease");
        }
        if (!thread_contexts().empty() && thread_contexts().back() == found) {
            thread_contexts().pop_back();
        }
        destroy_context(frame.lock, found);
    });
}

Result cuCtxSetCurrent(CUcontext context) {
    return call("cuCtxSetCurrent", Needs::driver, [&](Call&) {
        std::shared_ptr<Context> found = context ? state().contexts.find(context) : nullptr;
        if (!thread_contexts().empty()) {
            thread_contexts().pop_back();
        }
        if (found) {
            thread_contexts().push_back(found);
        }
    });
}

Result cuCtxGetCurrent(CUcontext* context) {
    return call("cuCtxGetCurrent", Needs::driver, [&](Call&) {
        require_pointer(context, "pctx");
        *context = thread_contexts().empty() ? nullptr : thread_contexts().back()->handle;
    });
}

Result cuCtxPushCurrent_v2(CUcontext context) {
    return call("cuCtxPushCurrent", Needs::driver,
                [&](Call&) { thread_contexts().push_back(state().contexts.find(context)); });
}

Result cuCtxPopCurrent_v2(CUcontext* context) {
    return call("cuCtxPopCurrent", Needs::driver, [&](Call&) {
        if (thread_contexts().empty()) {
            refuse(CUDA_ERROR_INVALID_CONTEXT, "this thread has no current context");
        }
        if (context != nullptr) {
            *context = thread_contexts().back()->handle;
        }
        thread_contexts().pop_back();
    });
}

Result cuCtxSynchronize() {
    return call_in_context("cuCtxSynchronize", [&](Call& frame) {
        forbid_during_capture(frame);
        wait_for_all(frame);
    });
}

Result cuCtxGetDevice(CUdevice* device) {
    return call_in_context("cuCtxGetDevice", [&](Call& frame) {
        require_pointer(device, "device");
        *device = frame.context->device;
    });
}

Result cuCtxGetFlags(unsigned* flags) {
    return call_in_context("cuCtxGetFlags", [&](Call& frame) {
        require_pointer(flags, "flags");
        *flags = frame.context->flags;
    });
}

Result cuCtxGetId(CUcontext context, unsigned long long* id) {
    return call("cuCtxGetId", Needs::driver, [&](Call&) {
        require_pointer(id, "ctxId");
        if (context == nullptr && thread_contexts().empty()) {
            refuse(CUDA_ERROR_INVALID_CONTEXT, "this thread has no current context");
        }
        *id = context ? state().contexts.find(context)->id : thread_contexts().back()->id;
    });
}

Result cuCtxGetApiVersion(CUcontext context, unsigned* version) {
    return call("cuCtxGetApiVersion", Needs::driver, [&](Call&) {
        require_pointer(version, "version");
        if (context != nullptr) {
            state().contexts.find(context);
        }
        *version = 3020;
    });
}

Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    return call_in_context("cuCtxGetStreamPriorityRange", [&](Call&) {
        if (least != nullptr) {
            *least = 0;
        }
        if (greatest != nullptr) {
            *greatest = greatest_priority;
        }
    });
}

}  // extern "C"
}  // namespace driver
