#include "driver_stream.h"

#include <algorithm>

#include "driver_calls.h"
#include "driver_capture.h"

namespace driver {
namespace {

void forget_done(std::vector<OperationPtr>& operations) {
    std::erase_if(operations, [](const OperationPtr& operation) { return !operation || operation->done; });
}

// All but the legacy one.
std::vector<StreamPtr> streams_of(const Context& context) {
    std::vector<StreamPtr> streams;
    for (const StreamPtr& stream : state().streams.all()) {
        if (stream->context.get() == &context) {
            streams.push_back(stream);
        }
    }
    for (const auto& entry : context.thread_streams) {
        streams.push_back(entry.second);
    }
    return streams;
}

// Stream order, events waited for, and the legacy stream: it waits for all blocking streams, and they wait for it.
std::vector<OperationPtr> predecessors(Stream& stream) {
    std::vector<OperationPtr> found{stream.last};
    Context& context = *stream.context;
    if (stream.legacy) {
        for (const StreamPtr& other : streams_of(context)) {
            if (other->blocking) {
                found.push_back(other->last);
            }
        }
        found.insert(found.end(), context.orphans.begin(), context.orphans.end());
        context.orphans.clear();
    } else if (stream.blocking) {
        found.push_back(context.legacy_stream->last);
    }
    forget_done(found);
    return found;
}

StreamPtr thread_stream(const std::shared_ptr<Context>& context) {
    StreamPtr& stream = context->thread_streams[std::this_thread::get_id()];
    if (!stream) {
        stream = std::make_shared<Stream>();
        stream->handle = reinterpret_cast<CUstream>(stream_per_thread);
        stream->context = context;
        stream->id = ++state().counters.ids;
    }
    return stream;
}

Result create_stream(const Call& frame, CUstream* handle, unsigned flags, int priority) {
    require_pointer(handle, "phStream");
    if (flags != STREAM_DEFAULT && flags != STREAM_NON_BLOCKING) {
        refuse(CUDA_ERROR_INVALID_VALUE, "unknown flags 0x%x", flags);
    }
    auto stream = std::make_shared<Stream>();
    stream->context = frame.context;
    stream->blocking = flags == STREAM_DEFAULT;
    stream->priority = std::clamp(priority, greatest_priority, 0);
    stream->id = ++state().counters.ids;
    stream->handle = state().streams.add(stream);
    *handle = stream->handle;
    return CUDA_SUCCESS;
}

}  // namespace

StreamPtr find_stream(const Call& frame, CUstream handle) {
    auto number = reinterpret_cast<uintptr_t>(handle);
    if (number == 0 || number == stream_legacy) {
        return frame.context->legacy_stream;
    }
    if (number == stream_per_thread) {
        return thread_stream(frame.context);
    }
    StreamPtr stream = state().streams.find(handle);
    if (stream->context != frame.context) {
        refuse(CUDA_ERROR_INVALID_HANDLE, "the stream belongs to another context than the current one");
    }
    return stream;
}

OperationPtr enqueue(Call& frame, const StreamPtr& stream, Work work) {
    bool orders_launches = work.type == NODE_MEMCPY || work.type == NODE_MEMSET || work.type == NODE_HOST;
    if (orders_launches) {
        stream->last_launch.reset();
    }
    auto shared = std::make_shared<const Work>(std::move(work));
    if (stream->capture) {
        add_to_capture(*stream, shared);
        return nullptr;
    }
    return enqueue_after(frame, stream, shared, {});
}

OperationPtr enqueue_after(Call& frame, const StreamPtr& stream, std::shared_ptr<const Work> work,
                           std::vector<OperationPtr> others) {
    if (stream->legacy) {
        forbid_implicit_dependency(*stream);
    }
    forget_done(others);
    std::vector<OperationPtr> before = predecessors(*stream);
    before.insert(before.end(), others.begin(), others.end());
    OperationPtr operation = state().queue.add(std::move(work), stream->context, std::move(before));
    stream->last = operation;
    state().queue.let_some_run(frame.lock);
    return operation;
}

void wait_for(Call& frame, const OperationPtr& operation) {
    if (operation) {
        state().queue.finish(frame.lock, operation);
    }
    require_healthy(*frame.context);
}

void wait_for(Call& frame, const StreamPtr& stream) {
    stream->last_launch.reset();
    wait_for(frame, OperationPtr(stream->last));
}

void wait_for_all(Call& frame) {
    Context& context = *frame.context;
    for (const StreamPtr& stream : streams_of(context)) {
        stream->last_launch.reset();
    }
    context.legacy_stream->last_launch.reset();
    state().queue.finish_all(frame.lock, context);
    require_healthy(context);
}

extern "C" {

Result cuStreamCreate(CUstream* stream, unsigned flags) {
    return call_in_context("cuStreamCreate", [&](Call& frame) { return create_stream(frame, stream, flags, 0); });
}

Result cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority) {
    return call_in_context("cuStreamCreateWithPriority",
                           [&](Call& frame) { return create_stream(frame, stream, flags, priority); });
}

// Returns at once; what the stream has still to do is done later.
Result cuStreamDestroy_v2(CUstream handle) {
    return call_in_context("cuStreamDestroy", [&](Call&) {
        StreamPtr stream = state().streams.remove(handle);
        if (stream->capture) {
            stream->capture->status = CAPTURE_INVALIDATED;
        }
        if (stream->blocking && stream->last) {
            stream->context->orphans.push_back(stream->last);
            forget_done(stream->context->orphans);
        }
    });
}

Result cuStreamSynchronize(CUstream handle) {
    return call_in_context("cuStreamSynchronize", [&](Call& frame) {
        StreamPtr stream = find_stream(frame, handle);
        forbid_on_capturing(*stream);
        wait_for(frame, stream);
    });
}

Result cuStreamQuery(CUstream handle) {
    return call_in_context("cuStreamQuery", [&](Call& frame) -> Result {
        StreamPtr stream = find_stream(frame, handle);
        forbid_on_capturing(*stream);
        OperationPtr last = stream->last;
        bool done = !last || last->done;
        if (!done) {
            state().queue.advance(frame.lock, last);
        }
        require_healthy(*frame.context);
        return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
    });
}

Result cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned flags) {
    return call_in_context("cuStreamWaitEvent", [&](Call& frame) {
        if (flags != 0) {
            refuse(CUDA_ERROR_INVALID_VALUE, "flags 0x%x are not emulated", flags);
        }
        StreamPtr stream = find_stream(frame, handle);
        std::shared_ptr<Event> event = state().events.find(event_handle);
        if (stream->capture || event->capture) {
            wait_in_capture(*stream, *event);
        } else if (event->record) {
            auto work = std::make_shared<const Work>(Work{NODE_EMPTY, frame.name, nullptr, false});
            enqueue_after(frame, stream, work, {event->record});
        }
    });
}

Result cuStreamGetPriority(CUstream handle, int* priority) {
    return call_in_context("cuStreamGetPriority", [&](Call& frame) {
        require_pointer(priority, "priority");
        *priority = find_stream(frame, handle)->priority;
    });
}

Result cuStreamGetFlags(CUstream handle, unsigned* flags) {
    return call_in_context("cuStreamGetFlags", [&](Call& frame) {
        require_pointer(flags, "flags");
        *flags = find_stream(frame, handle)->blocking ? STREAM_DEFAULT : STREAM_NON_BLOCKING;
    });
}

Result cuStreamGetId(CUstream handle, unsigned long long* id) {
    return call_in_context("cuStreamGetId", [&](Call& frame) {
        require_pointer(id, "streamId");
        *id = find_stream(frame, handle)->id;
    });
}

Result cuStreamGetCtx(CUstream handle, CUcontext* context) {
    return call_in_context("cuStreamGetCtx", [&](Call& frame) {
        require_pointer(context, "pctx");
        *context = find_stream(frame, handle)->context->handle;
    });
}

}  // extern "C"
}  // namespace driver
