// Events: marks in a stream that others wait for, and clocks.
#include "driver_calls.h"
#include "driver_capture.h"
#include "driver_stream.h"

namespace driver {
namespace {

using EventPtr = std::shared_ptr<Event>;

// Refuses an event whose last record went into a graph.
void forbid_captured(const Event& event) {
    if (event.capture) {
        event.capture->status = CAPTURE_INVALIDATED;
        refuse(CUDA_ERROR_CAPTURED_EVENT, "the event was last recorded in a capture");
    }
}

void record_event(Call& frame, CUevent event_handle, CUstream stream_handle, unsigned flags) {
    if (flags != 0) {
        refuse(CUDA_ERROR_INVALID_VALUE, "flags 0x%x are not emulated", flags);
    }
    EventPtr event = state().events.find(event_handle);
    StreamPtr stream = find_stream(frame, stream_handle);
    if (event->context != stream->context) {
        refuse(CUDA_ERROR_INVALID_HANDLE, "event and stream belong to different contexts");
    }
    if (stream->capture) {
        event->capture = stream->capture;
        event->frontier = stream->frontier;
        return;
    }
    event->capture.reset();
    event->frontier.clear();
    event->record = enqueue(frame, stream, Work{NODE_EMPTY, frame.name, nullptr, false});
}

Result elapsed_time(float* milliseconds, CUevent start_handle, CUevent end_handle) {
    return call_in_context("cuEventElapsedTime", [&](Call&) -> Result {
        require_pointer(milliseconds, "pMilliseconds");
        EventPtr start = state().events.find(start_handle);
        EventPtr end = state().events.find(end_handle);
        for (const EventPtr& event : {start, end}) {
            if (event->flags & EVENT_DISABLE_TIMING) {
                refuse(CUDA_ERROR_INVALID_HANDLE, "an event was created without timing");
            }
            if (event->capture || !event->record) {
                refuse(CUDA_ERROR_INVALID_HANDLE, "an event was never recorded outside of a capture");
            }
        }
        if (!start->record->done || !end->record->done) {
            return CUDA_ERROR_NOT_READY;
        }
        *milliseconds =
            std::chrono::duration<float, std::milli>(end->record->finished - start->record->finished).count();
        return CUDA_SUCCESS;
    });
}

}  // namespace

extern "C" {

Result cuEventCreate(CUevent* handle, unsigned flags) {
    return call_in_context("cuEventCreate", [&](Call& frame) {
        require_pointer(handle, "phEvent");
        bool known = flags <= (EVENT_BLOCKING_SYNC | EVENT_DISABLE_TIMING | EVENT_INTERPROCESS);
        if (!known || ((flags & EVENT_INTERPROCESS) && !(flags & EVENT_DISABLE_TIMING))) {
            refuse(CUDA_ERROR_INVALID_VALUE, "flags 0x%x", flags);
        }
        auto event = std::make_shared<Event>();
        event->context = frame.context;
        event->flags = flags;
        event->handle = state().events.add(event);
        *handle = event->handle;
    });
}

Result cuEventDestroy_v2(CUevent handle) {
    return call_in_context("cuEventDestroy", [&](Call&) { state().events.remove(handle); });
}

Result cuEventRecord(CUevent event, CUstream stream) {
    return call_in_context("cuEventRecord", [&](Call& frame) { record_event(frame, event, stream, 0); });
}

Result cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags) {
    return call_in_context("cuEventRecordWithFlags", [&](Call& frame) { record_event(frame, event, stream, flags); });
}

Result cuEventSynchronize(CUevent handle) {
    return call_in_context("cuEventSynchronize", [&](Call& frame) {
        EventPtr event = state().events.find(handle);
        forbid_captured(*event);
        wait_for(frame, OperationPtr(event->record));
    });
}

Result cuEventQuery(CUevent handle) {
    return call_in_context("cuEventQuery", [&](Call& frame) -> Result {
        EventPtr event = state().events.find(handle);
        forbid_captured(*event);
        OperationPtr record = event->record;
        bool done = !record || record->done;
        if (!done) {
            state().queue.advance(frame.lock, record);
        }
        require_healthy(*frame.context);
        return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
    });
}

Result cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    return elapsed_time(milliseconds, start, end);
}

Result cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
    return elapsed_time(milliseconds, start, end);
}

}  // extern "C"
}  // namespace driver
