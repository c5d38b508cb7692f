// All that the driver knows: one State per process, under one lock. What runs on the device for long (kernels, host
// functions) runs without the lock, one at a time.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "driver_abi.h"
#include "driver_faults.h"
#include "driver_handles.h"
#include "driver_memory.h"
#include "driver_queue.h"
#include "driver_settings.h"
#include "grid.h"

namespace driver {

struct Capture;

struct Stream {
    CUstream handle = nullptr;
    std::shared_ptr<Context> context;
    bool blocking = true;  // takes part in the legacy stream's implicit waiting
    bool legacy = false;
    int priority = 0;
    unsigned long long id = 0;
    OperationPtr last;
    std::shared_ptr<const emulator::Launch> last_launch;  // null: work of another kind followed, or the host has waited

    std::shared_ptr<Capture> capture;  // not null while the stream's work goes into a graph
    std::vector<size_t> frontier;  // nodes of the capture the next one depends on
};

struct Event {
    CUevent handle = nullptr;
    std::shared_ptr<Context> context;
    unsigned flags = 0;
    OperationPtr record;

    std::shared_ptr<Capture> capture;  // the last record was captured, at these nodes
    std::vector<size_t> frontier;
};

struct Context {
    CUcontext handle = nullptr;
    CUdevice device = 0;
    bool primary = false;
    bool alive = true;
    unsigned flags = 0;
    unsigned long long id = 0;

    Result lost = CUDA_SUCCESS;  // the sticky error
    std::string why_lost;

    std::shared_ptr<Stream> legacy_stream;
    std::map<std::thread::id, std::shared_ptr<Stream>> thread_streams;
    std::vector<OperationPtr> orphans;  // last operations of destroyed blocking streams
};

struct Module {
    CUmodule handle = nullptr;
    std::shared_ptr<Context> context;
    std::map<std::string, CUfunction> functions;
    std::map<std::string, std::shared_ptr<Allocation>> globals;
};

struct Function {
    CUfunction handle = nullptr;
    std::shared_ptr<Context> context;
    CUmodule module = nullptr;
    const emulator::Kernel* kernel = nullptr;
    int max_dynamic_shared = 48 * 1024;
    int shared_carveout = -1;
    bool clusters_over_eight = false;
};

struct GraphNode {
    CUgraphNode handle = nullptr;
    std::shared_ptr<Context> context;
    std::shared_ptr<const Work> work;
    std::vector<size_t> predecessors;
};

struct Graph {
    CUgraph handle = nullptr;
    std::shared_ptr<Context> context;
    std::vector<GraphNode> nodes;
};

struct GraphExec {
    CUgraphExec handle = nullptr;
    std::shared_ptr<Context> context;
    std::vector<GraphNode> nodes;
    OperationPtr last_launch;  // an executable graph does not overlap itself
};

// A stream capture under way; several streams may have joined it by events.
struct Capture {
    unsigned long long id = 0;
    CaptureMode mode = CAPTURE_GLOBAL;
    CaptureStatus status = CAPTURE_ACTIVE;
    std::thread::id thread;
    std::weak_ptr<Stream> origin;
    std::shared_ptr<Graph> graph;
};

struct Primary {
    std::shared_ptr<Context> context;
    int retained = 0;
    unsigned flags = 0;
};

struct DevicePools {
    std::shared_ptr<Pool> of_device;
    std::shared_ptr<Pool> current;
};

struct Counters {
    long long launches = 0;
    long long copies = 0;
    unsigned long long ids = 0;  // streams, contexts, captures
};

struct State {
    std::mutex mutex;
    bool initialised = false;
    bool environment_read = false;
    Settings settings;
    Faults faults;
    Counters counters;

    Handles<Context, CUcontext, 1> contexts{"context"};
    Handles<Module, CUmodule, 2> modules{"module"};
    Handles<Function, CUfunction, 3> functions{"function"};
    Handles<Stream, CUstream, 4> streams{"stream"};
    Handles<Event, CUevent, 5> events{"event"};
    Handles<Graph, CUgraph, 6> graphs{"graph"};
    Handles<GraphNode, CUgraphNode, 7> graph_nodes{"graph node"};
    Handles<GraphExec, CUgraphExec, 8> graph_execs{"executable graph"};
    Handles<Pool, CUmemoryPool, 9> pools{"memory pool"};

    std::map<CUdevice, Primary> primaries;
    std::map<CUdevice, DevicePools> device_pools;
    DeviceMemory device_memory;
    HostMemory host_memory;
    std::vector<std::shared_ptr<Capture>> captures;
    Queue queue;
};

State& state();

// Makes an error sticky: from now on every call that needs this context returns it.
void lose(Context& context, Result result, const std::string& why);

}  // namespace driver
