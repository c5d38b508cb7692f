// Stream capture and replay of graphs.
#include <thread>

#include "driver_check.h"
#include "driver_test_kernels.h"

using namespace driver_check;

namespace {

int first_of(CUdeviceptr data) {
    int got = 0;
    OK(cuMemcpyDtoH_v2(&got, data, sizeof got));
    return got;
}

Result scale(CUfunction function, CUdeviceptr data, CUstream stream, int factor, int addend) {
    return launch(function, 1, 128, stream, data, 1, factor, addend);
}

CUgraphExec instantiate(CUgraph graph) {
    CUgraphExec exec = nullptr;
    OK(cuGraphInstantiateWithFlags(&exec, graph, 0));
    return exec;
}

size_t num_nodes(CUgraph graph) {
    size_t count = 0;
    OK(cuGraphGetNodes(graph, nullptr, &count));
    return count;
}

void replay_seesChangedMemory() {
    CUfunction function = kernel("scale_add");
    CUdeviceptr data = ints(1, 0);
    int* source = locked_ints(1, 0);
    int* target = locked_ints(1, 0);
    CUstream stream = new_stream();
    CUgraph graph = nullptr;
    OK(cuStreamBeginCapture_v2(stream, CAPTURE_GLOBAL));
    OK(cuMemcpyHtoDAsync_v2(data, source, sizeof(int), stream));
    OK(scale(function, data, stream, 2, 1));
    OK(scale(function, data, stream, 10, 0));
    OK(cuMemcpyDtoHAsync_v2(target, data, sizeof(int), stream));
    OK(cuStreamEndCapture(stream, &graph));
    REQUIRE(num_nodes(graph) == 4);
    REQUIRE(first_of(data) == 0);
    CUgraphExec exec = instantiate(graph);
    OK(cuGraphDestroy(graph));
    long long launches = jmoeEmulatorGet("launches");
    for (int round = 1; round <= 3; round++) {
        *source = round;
        OK(cuGraphLaunch(exec, stream));
        OK(cuStreamSynchronize(stream));
        REQUIRE(*target == round * 20 + 10);
    }
    REQUIRE(jmoeEmulatorGet("launches") == launches + 6);
    OK(cuGraphExecDestroy(exec));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuGraphLaunch(exec, stream));
}

void replays_followEachOtherAndTheStream() {
    CUfunction function = kernel("scale_add");
    CUdeviceptr data = ints(1, 1);
    CUstream stream = new_stream();
    CUstream other = new_stream();
    CUgraph graph = nullptr;
    OK(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL));
    OK(scale(function, data, stream, 2, 1));
    OK(cuStreamEndCapture(stream, &graph));
    CUgraphExec exec = instantiate(graph);
    OK(scale(function, data, stream, 1, 9));
    OK(cuGraphLaunch(exec, stream));
    OK(cuGraphLaunch(exec, other));
    OK(cuGraphLaunch(exec, other));
    OK(scale(function, data, other, 100, 0));
    OK(cuStreamSynchronize(other));
    REQUIRE(first_of(data) == 8700);
}

// The edge between the two is a programmatic one, in each replay.
void early_launchesAreReplayed() {
    CUfunction function = kernel("scale_add");
    CUdeviceptr data = ints(1, 1);
    CUstream stream = new_stream();
    CUgraph graphs[2] = {};
    CUfunction hasty = kernel("scale_add_hasty");
    CUfunction functions[] = {kernel("scale_add_waiting"), hasty};
    for (int i = 0; i < 2; i++) {
        OK(cuStreamBeginCapture_v2(stream, CAPTURE_GLOBAL));
        OK(scale(function, data, stream, 2, 1));
        OK(launch_early(functions[i], 1, stream, data, 1, 10, 0));
        OK(cuStreamEndCapture(stream, &graphs[i]));
    }
    CUgraphExec exec = instantiate(graphs[0]);
    for (int round = 0; round < 3; round++) {
        OK(cuGraphLaunch(exec, stream));
    }
    OK(launch_early(hasty, 1, stream, data, 1, 1, 0));
    OK(cuStreamSynchronize(stream));
    REQUIRE(first_of(data) == 12210);
    OK(cuGraphLaunch(instantiate(graphs[1]), stream));
    if (emulator::has_shadow) {
        EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
        REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "griddepcontrol.wait comes before it");
    }
}

// fork by an event, work in two streams, join by an event
void second_streamJoinsByEvents() {
    CUfunction function = kernel("scale_add");
    CUdeviceptr left = ints(1, 1);
    CUdeviceptr right = ints(1, 1);
    CUstream origin = new_stream();
    CUstream branch = new_stream();
    CUevent forked = new_event();
    CUevent joined = new_event();
    CUgraph graph = nullptr;
    int status = -1;
    OK(cuStreamBeginCapture_v2(origin, CAPTURE_GLOBAL));
    OK(cuMemsetD32Async(left, 2, 1, origin));
    OK(cuEventRecord(forked, origin));
    OK(cuStreamWaitEvent(branch, forked, 0));
    OK(cuStreamIsCapturing(branch, &status));
    REQUIRE(status == CAPTURE_ACTIVE);
    OK(cuMemcpyDtoDAsync_v2(right, left, sizeof(int), branch));
    OK(scale(function, right, branch, 3, 0));
    OK(cuEventRecord(joined, branch));
    OK(cuMemsetD32Async(left, 50, 1, origin));
    OK(cuStreamWaitEvent(origin, joined, 0));
    OK(scale(function, right, origin, 1, 1));
    OK(cuStreamEndCapture(origin, &graph));
    OK(cuStreamIsCapturing(branch, &status));
    REQUIRE(status == CAPTURE_NONE);
    REQUIRE(num_nodes(graph) == 5);
    std::vector<CUgraphNode> nodes(5);
    size_t room = 5;
    int type = -1;
    OK(cuGraphGetNodes(graph, nodes.data(), &room));
    OK(cuGraphNodeGetType(nodes[0], &type));
    REQUIRE(type == NODE_MEMSET);
    CUgraphExec exec = instantiate(graph);
    OK(cuGraphLaunch(exec, origin));
    OK(cuCtxSynchronize());
    REQUIRE(first_of(left) == 50);
    // right was copied either before or after left became 50: nothing orders the two
    int got = first_of(right);
    REQUIRE(got == 7 || got == 151);
    OK(cuMemcpyHtoD_v2(left, &got, sizeof got));
}

void unjoined_captureIsRefused() {
    CUdeviceptr data = ints(1, 1);
    CUstream origin = new_stream();
    CUstream branch = new_stream();
    CUevent forked = new_event();
    CUgraph graph = nullptr;
    OK(cuStreamBeginCapture_v2(origin, CAPTURE_GLOBAL));
    OK(cuEventRecord(forked, origin));
    OK(cuStreamWaitEvent(branch, forked, 0));
    OK(cuMemsetD32Async(data, 3, 1, branch));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, cuStreamEndCapture(origin, &graph));
    REQUIRE(graph == nullptr);
    OK(cuMemsetD32Async(data, 4, 1, origin));
    OK(cuStreamSynchronize(origin));
    REQUIRE(first_of(data) == 4);
}

void unsafe_callsEndTheCapture() {
    CUdeviceptr data = ints(1, 1);
    CUdeviceptr more = 0;
    CUgraph graph = nullptr;
    CUstream stream = new_stream();
    OK(cuStreamBeginCapture_v2(stream, CAPTURE_GLOBAL));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc_v2(&more, 4));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuMemsetD32Async(data, 1, 1, stream));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
    OK(cuStreamBeginCapture_v2(stream, CAPTURE_RELAXED));
    OK(cuMemAlloc_v2(&more, 4));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamSynchronize(stream));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
    int pageable = 0;
    OK(cuStreamBeginCapture_v2(stream, CAPTURE_RELAXED));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemcpyHtoDAsync_v2(data, &pageable, sizeof(int), stream));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
}

void legacy_streamAndCapture() {
    CUdeviceptr data = ints(1, 1);
    CUgraph graph = nullptr;
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamBeginCapture_v2(nullptr, CAPTURE_GLOBAL));
    CUstream blocking = new_stream(STREAM_DEFAULT);
    OK(cuStreamBeginCapture_v2(blocking, CAPTURE_RELAXED));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuMemsetD32_v2(data, 1, 1));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(blocking, &graph));
}

void events_acrossTheBorder() {
    CUdeviceptr data = ints(1, 1);
    CUgraph graph = nullptr;
    CUstream stream = new_stream();
    CUstream outside = new_stream();
    CUevent before = new_event();
    CUevent inside = new_event();
    OK(cuMemsetD32Async(data, 1, 1, outside));
    OK(cuEventRecord(before, outside));
    OK(cuStreamBeginCapture_v2(stream, CAPTURE_RELAXED));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, cuStreamWaitEvent(stream, before, 0));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
    OK(cuStreamBeginCapture_v2(stream, CAPTURE_RELAXED));
    OK(cuEventRecord(inside, stream));
    EXPECT(CUDA_ERROR_CAPTURED_EVENT, cuEventQuery(inside));
    EXPECT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
    EXPECT(CUDA_ERROR_ILLEGAL_STATE, cuStreamEndCapture(stream, &graph));
    OK(cuEventRecord(inside, stream));
    OK(cuEventSynchronize(inside));
}

void other_threadCannotEndACapture() {
    CUstream stream = new_stream();
    CUgraph graph = nullptr;
    OK(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL));
    int result = 0;
    std::thread([&] {
        cuCtxSetCurrent(current_context);
        result = cuStreamEndCapture(stream, &graph);
    }).join();
    REQUIRE(result == CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    OK(cuStreamEndCapture(stream, &graph));
    REQUIRE(num_nodes(graph) == 0);
    OK(cuGraphLaunch(instantiate(graph), stream));
    OK(cuStreamSynchronize(stream));
}

void freed_memoryIsSeenAtReplay() {
    CUfunction function = kernel("scale_add");
    CUdeviceptr data = ints(1, 1);
    CUstream stream = new_stream();
    CUgraph graph = nullptr;
    OK(cuStreamBeginCapture_v2(stream, CAPTURE_GLOBAL));
    OK(scale(function, data, stream, 2, 1));
    OK(cuStreamEndCapture(stream, &graph));
    CUgraphExec exec = instantiate(graph);
    OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemFree_v2(data));
    OK(cuGraphLaunch(exec, stream));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
    REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "scale_add");
    REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "freed");
}

}  // namespace

int main() {
    std::vector<Test> tests;
    add(tests, in_every_timing("replay_seesChangedMemory", replay_seesChangedMemory));
    add(tests, in_every_timing("replays_followEachOtherAndTheStream", replays_followEachOtherAndTheStream));
    add(tests, in_every_timing("early_launchesAreReplayed", early_launchesAreReplayed));
    add(tests, in_every_timing("second_streamJoinsByEvents", second_streamJoinsByEvents));
    add(tests, in_every_timing("unjoined_captureIsRefused", unjoined_captureIsRefused));
    add(tests, in_every_timing("unsafe_callsEndTheCapture", unsafe_callsEndTheCapture));
    add(tests, in_every_timing("legacy_streamAndCapture", legacy_streamAndCapture));
    add(tests, in_every_timing("events_acrossTheBorder", events_acrossTheBorder));
    add(tests, in_every_timing("other_threadCannotEndACapture", other_threadCannotEndACapture));
    add(tests, in_every_timing("freed_memoryIsSeenAtReplay", freed_memoryIsSeenAtReplay));
    return run_all(tests);
}
