// Graphs: captured work that is replayed.
#include "driver_calls.h"
#include "driver_capture.h"
#include "driver_stream.h"

namespace driver {
namespace {

void count_replay(const GraphExec& exec) {
    for (const GraphNode& node : exec.nodes) {
        state().counters.launches += node.work->type == NODE_KERNEL;
        state().counters.copies += node.work->type == NODE_MEMCPY;
    }
}

// One operation per node, with the graph's edges; nodes without predecessors follow the stream, and a last operation
// that waits for all of them stands for the launch in the stream.
OperationPtr launch_graph(Call& frame, GraphExec& exec, const StreamPtr& stream) {
    auto mark = std::make_shared<const Work>(Work{NODE_EMPTY, frame.name, nullptr, false});
    stream->last_launch.reset();
    OperationPtr start = enqueue_after(frame, stream, mark, {exec.last_launch});
    std::vector<OperationPtr> operations;
    for (const GraphNode& node : exec.nodes) {
        std::vector<OperationPtr> predecessors;
        if (node.predecessors.empty() && !start->done) {
            predecessors.push_back(start);
        }
        for (size_t predecessor : node.predecessors) {
            if (!operations[predecessor]->done) {
                predecessors.push_back(operations[predecessor]);
            }
        }
        operations.push_back(state().queue.add(node.work, exec.context, std::move(predecessors)));
    }
    return enqueue_after(frame, stream, mark, operations);
}

Result instantiate(Call& frame, CUgraphExec* handle, CUgraph graph_handle, unsigned long long flags) {
    require_pointer(handle, "phGraphExec");
    if (flags != 0) {
        refuse(CUDA_ERROR_NOT_SUPPORTED, "flags 0x%llx are not emulated", flags);
    }
    std::shared_ptr<Graph> graph = state().graphs.find(graph_handle);
    auto exec = std::make_shared<GraphExec>();
    exec->context = frame.context;
    exec->nodes = graph->nodes;
    exec->handle = state().graph_execs.add(exec);
    *handle = exec->handle;
    return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

Result cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long flags) {
    return call_in_context("cuGraphInstantiate",
                           [&](Call& frame) { return instantiate(frame, exec, graph, flags); });
}

Result cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
    return call_in_context("cuGraphLaunch", [&](Call& frame) {
        std::shared_ptr<GraphExec> exec = state().graph_execs.find(handle);
        StreamPtr stream = find_stream(frame, stream_handle);
        if (stream->capture) {
            refuse(CUDA_ERROR_NOT_SUPPORTED, "graphs inside of captured graphs are not emulated");
        }
        count_replay(*exec);
        if (!state().settings.discard_launches) {
            exec->last_launch = launch_graph(frame, *exec, stream);
        }
    });
}

Result cuGraphUpload(CUgraphExec handle, CUstream stream) {
    return call_in_context("cuGraphUpload", [&](Call& frame) {
        state().graph_execs.find(handle);
        find_stream(frame, stream);
    });
}

Result cuGraphExecDestroy(CUgraphExec handle) {
    return call_in_context("cuGraphExecDestroy", [&](Call&) { state().graph_execs.remove(handle); });
}

Result cuGraphDestroy(CUgraph handle) {
    return call_in_context("cuGraphDestroy", [&](Call&) {
        std::shared_ptr<Graph> graph = state().graphs.remove(handle);
        for (const GraphNode& node : graph->nodes) {
            state().graph_nodes.remove(node.handle);
        }
    });
}

// With nodes == null only the count; else at most *count handles, and null for those beyond the last.
Result cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
    return call_in_context("cuGraphGetNodes", [&](Call&) {
        require_pointer(count, "numNodes");
        std::shared_ptr<Graph> graph = state().graphs.find(handle);
        const std::vector<GraphNode>& found = graph->nodes;
        if (nodes != nullptr) {
            for (size_t node = 0; node < *count; node++) {
                nodes[node] = node < found.size() ? found[node].handle : nullptr;
            }
        }
        if (nodes == nullptr || *count > found.size()) {
            *count = found.size();
        }
    });
}

Result cuGraphNodeGetType(CUgraphNode node, int* type) {
    return call_in_context("cuGraphNodeGetType", [&](Call&) {
        require_pointer(type, "type");
        *type = state().graph_nodes.find(node)->work->type;
    });
}

}  // extern "C"
}  // namespace driver
