#include "driver_capture.h"

#include <algorithm>

#include "driver_calls.h"

namespace driver {
namespace {

thread_local CaptureMode thread_mode = CAPTURE_GLOBAL;

[[noreturn]] void invalidate(Capture& capture, Result result, const char* why) {
    capture.status = CAPTURE_INVALIDATED;
    refuse(result, "%s; the capture is lost", why);
}

bool forbids_unsafe_calls(const Capture& capture) {
    bool own = capture.thread == std::this_thread::get_id();
    switch (thread_mode) {
        case CAPTURE_GLOBAL:
            return capture.mode == CAPTURE_GLOBAL || (own && capture.mode == CAPTURE_THREAD_LOCAL);
        case CAPTURE_THREAD_LOCAL:
            return own && capture.mode != CAPTURE_RELAXED;
        default:
            return false;
    }
}

void require_active(const Capture& capture) {
    if (capture.status == CAPTURE_INVALIDATED) {
        refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "an earlier call ended this capture");
    }
}

void merge(std::vector<size_t>& nodes, const std::vector<size_t>& others) {
    nodes.insert(nodes.end(), others.begin(), others.end());
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
}

// Marks the nodes of the frontier and all before them.
std::vector<bool> ancestry(const Graph& graph, const std::vector<size_t>& frontier) {
    std::vector<bool> reached(graph.nodes.size());
    for (size_t node : frontier) {
        reached[node] = true;
    }
    for (size_t node = graph.nodes.size(); node-- > 0;) {
        if (reached[node]) {
            for (size_t predecessor : graph.nodes[node].predecessors) {
                reached[predecessor] = true;
            }
        }
    }
    return reached;
}

std::vector<StreamPtr> streams_of(const std::shared_ptr<Capture>& capture) {
    std::vector<StreamPtr> found;
    for (const StreamPtr& stream : state().streams.all()) {
        if (stream->capture == capture) {
            found.push_back(stream);
        }
    }
    for (const auto& entry : capture->graph->context->thread_streams) {
        if (entry.second->capture == capture) {
            found.push_back(entry.second);
        }
    }
    return found;
}

bool is_joined(const std::shared_ptr<Capture>& capture, const Stream& origin) {
    std::vector<bool> reached = ancestry(*capture->graph, origin.frontier);
    for (const StreamPtr& stream : streams_of(capture)) {
        for (size_t node : stream->frontier) {
            if (!reached[node]) {
                return false;
            }
        }
    }
    return true;
}

void begin_capture(const Call& frame, const StreamPtr& stream, int mode) {
    if (mode < CAPTURE_GLOBAL || mode > CAPTURE_RELAXED) {
        refuse(CUDA_ERROR_INVALID_VALUE, "unknown mode %d", mode);
    }
    if (stream->legacy) {
        refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the legacy stream cannot be captured");
    }
    if (stream->capture) {
        refuse(CUDA_ERROR_ILLEGAL_STATE, "the stream is being captured already");
    }
    auto capture = std::make_shared<Capture>();
    capture->id = ++state().counters.ids;
    capture->mode = static_cast<CaptureMode>(mode);
    capture->thread = std::this_thread::get_id();
    capture->origin = stream;
    capture->graph = std::make_shared<Graph>();
    capture->graph->context = frame.context;
    state().captures.push_back(capture);
    stream->capture = capture;
    stream->frontier.clear();
    stream->last_launch.reset();
}

// Ends the capture whatever its state; the graph, if it is whole, gets its handles.
CUgraph end_capture(const StreamPtr& stream) {
    std::shared_ptr<Capture> capture = stream->capture;
    bool valid = capture->status == CAPTURE_ACTIVE;
    bool joined = valid && is_joined(capture, *stream);
    for (const StreamPtr& joined_stream : streams_of(capture)) {
        joined_stream->capture.reset();
        joined_stream->frontier.clear();
        joined_stream->last_launch.reset();
    }
    std::erase(state().captures, capture);
    if (!valid) {
        refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "an earlier call ended this capture");
    }
    if (!joined) {
        refuse(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "a stream that joined the capture was not waited for by its origin");
    }
    Graph& graph = *capture->graph;
    for (GraphNode& node : graph.nodes) {
        node.handle = state().graph_nodes.add(std::make_shared<GraphNode>(node));
    }
    graph.handle = state().graphs.add(capture->graph);
    return graph.handle;
}

}  // namespace

void forbid_during_capture(const Call& frame) {
    for (const std::shared_ptr<Capture>& capture : state().captures) {
        if (forbids_unsafe_calls(*capture)) {
            invalidate(*capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                       (std::string(frame.name) + " is unsafe while a stream is captured").c_str());
        }
    }
}

void forbid_on_capturing(const Stream& stream) {
    if (stream.capture) {
        invalidate(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is being captured");
    }
}

void forbid_implicit_dependency(const Stream& legacy) {
    for (const std::shared_ptr<Capture>& capture : state().captures) {
        for (const StreamPtr& stream : streams_of(capture)) {
            if (stream->blocking && stream->context == legacy.context) {
                invalidate(*capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
                           "the legacy stream would have to wait for a blocking stream that is being captured");
            }
        }
    }
}

void add_to_capture(Stream& stream, std::shared_ptr<const Work> work) {
    require_active(*stream.capture);
    std::vector<GraphNode>& nodes = stream.capture->graph->nodes;
    nodes.push_back({nullptr, stream.context, std::move(work), stream.frontier});
    stream.frontier = {nodes.size() - 1};
}

void wait_in_capture(Stream& stream, const Event& event) {
    if (!event.capture) {
        if (event.record) {
            invalidate(*stream.capture, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
                       "a captured stream must not wait for an event that was recorded outside of the capture");
        }
        return;
    }
    if (event.capture->status == CAPTURE_INVALIDATED) {
        require_active(*event.capture);
    }
    if (std::find(state().captures.begin(), state().captures.end(), event.capture) == state().captures.end()) {
        refuse(CUDA_ERROR_CAPTURED_EVENT, "the event was last recorded in a capture that has ended");
    }
    if (stream.capture && stream.capture != event.capture) {
        stream.capture->status = CAPTURE_INVALIDATED;
        invalidate(*event.capture, CUDA_ERROR_STREAM_CAPTURE_MERGE, "two captures would become one");
    }
    if (stream.legacy) {
        invalidate(*event.capture, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the legacy stream cannot join a capture");
    }
    if (!stream.capture) {
        stream.capture = event.capture;
        stream.frontier.clear();
        stream.last_launch.reset();
    }
    merge(stream.frontier, event.frontier);
}

extern "C" {

Result cuStreamBeginCapture_v2(CUstream handle, int mode) {
    return call_in_context("cuStreamBeginCapture",
                           [&](Call& frame) { begin_capture(frame, find_stream(frame, handle), mode); });
}

Result cuStreamEndCapture(CUstream handle, CUgraph* graph) {
    return call_in_context("cuStreamEndCapture", [&](Call& frame) {
        require_pointer(graph, "phGraph");
        *graph = nullptr;
        StreamPtr stream = find_stream(frame, handle);
        if (!stream->capture) {
            refuse(CUDA_ERROR_ILLEGAL_STATE, "the stream is not being captured");
        }
        Capture& capture = *stream->capture;
        if (capture.origin.lock() != stream) {
            invalidate(capture, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the capture began in another stream");
        }
        if (capture.mode != CAPTURE_RELAXED && capture.thread != std::this_thread::get_id()) {
            refuse(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "the capture began in another thread");
        }
        *graph = end_capture(stream);
    });
}

Result cuStreamIsCapturing(CUstream handle, int* status) {
    return call_in_context("cuStreamIsCapturing", [&](Call& frame) {
        require_pointer(status, "captureStatus");
        StreamPtr stream = find_stream(frame, handle);
        if (stream->legacy) {
            forbid_implicit_dependency(*stream);
        }
        *status = stream->capture ? stream->capture->status : CAPTURE_NONE;
    });
}

Result cuThreadExchangeStreamCaptureMode(int* mode) {
    return call("cuThreadExchangeStreamCaptureMode", Needs::driver, [&](Call&) {
        require_pointer(mode, "mode");
        if (*mode < CAPTURE_GLOBAL || *mode > CAPTURE_RELAXED) {
            refuse(CUDA_ERROR_INVALID_VALUE, "unknown mode %d", *mode);
        }
        int previous = thread_mode;
        thread_mode = static_cast<CaptureMode>(*mode);
        *mode = previous;
    });
}

}  // extern "C"
}  // namespace driver
