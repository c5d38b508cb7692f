// Order between operations: streams, events, the legacy stream, and how lazy the device may be.
#include "driver_check.h"
#include "driver_test_kernels.h"

using namespace driver_check;

namespace {

constexpr size_t count = 300;

std::vector<int> read(CUdeviceptr data) {
    std::vector<int> numbers(count);
    OK(cuMemcpyDtoH_v2(numbers.data(), data, count * sizeof(int)));
    return numbers;
}

void scale(CUdeviceptr data, CUstream stream, int factor, int addend) {
    OK(launch(kernel("scale_add"), 3, 128, stream, data, int(count), factor, addend));
}

void one_stream_keepsOrder() {
    CUdeviceptr data = ints(count, 1);
    CUstream stream = new_stream();
    scale(data, stream, 3, 1);
    scale(data, stream, 5, 2);
    OK(cuMemsetD32Async(data, 7, 1, stream));
    scale(data, stream, 2, 0);
    OK(cuStreamSynchronize(stream));
    REQUIRE(read(data)[0] == 14);
    REQUIRE(read(data)[count - 1] == 44);
}

Result scale_early(const char* name, CUdeviceptr data, CUstream stream, int value = 1) {
    return launch_early(kernel(name), value, stream, data, 1, 10, 1);
}

// Only the race build knows what an early launch must not touch; all know that it has to wait.
void require_overlap(CUstream stream) {
    if (emulator::has_shadow) {
        EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
        REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "scale_add_hasty, driver_test_kernels.h");
        REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "a store by kernel scale_add at");
        REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "griddepcontrol.wait comes before it");
    }
}

void early_launchKeepsOrder() {
    CUdeviceptr data = ints(count, 1);
    CUstream stream = new_stream();
    scale(data, stream, 3, 1);
    OK(scale_early("scale_add_waiting", data, stream));
    OK(scale_early("scale_add_waiting", data, stream));
    OK(cuStreamSynchronize(stream));
    REQUIRE(read(data)[0] == 411);
    REQUIRE(read(data)[1] == 4);
}

void early_launchOverlaps() {
    CUdeviceptr data = ints(count, 1);
    CUstream stream = new_stream();
    scale(data, stream, 3, 1);
    OK(scale_early("scale_add_hasty", data, stream));
    require_overlap(stream);
}

void early_launchOverlapsAcrossAnEvent() {
    CUdeviceptr data = ints(count, 1);
    CUdeviceptr other = ints(count, 1);
    CUstream stream = new_stream();
    scale(data, stream, 3, 1);
    OK(cuEventRecord(new_event(), stream));
    OK(scale_early("scale_add_waiting", other, stream));
    OK(scale_early("scale_add_hasty", data, stream));
    require_overlap(stream);
}

// Ordinary launches, copies, fills, other streams and the host's waiting leave nothing that could still be running.
void early_launchAfterTheEnd() {
    CUdeviceptr data = ints(count, 1);
    CUdeviceptr other = ints(count, 1);
    CUstream stream = new_stream();
    OK(scale_early("scale_add_hasty", data, stream));
    OK(cuMemsetD32Async(other, 7, 1, stream));
    OK(scale_early("scale_add_hasty", data, stream));
    scale(other, stream, 1, 1);
    OK(scale_early("scale_add_hasty", data, stream));
    OK(cuStreamSynchronize(stream));
    OK(scale_early("scale_add_hasty", data, stream));
    OK(cuCtxSynchronize());
    OK(scale_early("scale_add_hasty", data, stream));
    OK(scale_early("scale_add_hasty", data, stream, 0));
    OK(cuCtxSynchronize());
    OK(scale_early("scale_add_hasty", data, new_stream()));
    OK(cuCtxSynchronize());
}

void early_launchMustWait() {
    CUdeviceptr data = ints(count, 1);
    CUstream stream = new_stream();
    OK(scale_early("scale_add", data, stream, 0));
    OK(cuStreamSynchronize(stream));
    OK(scale_early("scale_add", data, stream));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
    REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "kernel scale_add: block (0,0,0) of an early launch ends without");
}

void event_ordersTwoStreams() {
    CUdeviceptr data = ints(count, 1);
    CUstream first = new_stream();
    CUstream second = new_stream();
    CUevent event = new_event();
    scale(data, first, 3, 1);
    OK(cuEventRecord(event, first));
    scale(data, first, 1, 0);
    OK(cuStreamWaitEvent(second, event, 0));
    scale(data, second, 5, 0);
    OK(cuStreamSynchronize(second));
    REQUIRE(read(data)[5] == 20);
}

void event_waitsForTheRecordThatWas() {
    CUdeviceptr data = ints(count, 1);
    CUdeviceptr other = ints(count, 1);
    CUstream first = new_stream();
    CUstream second = new_stream();
    CUevent event = new_event();
    scale(data, first, 3, 0);
    OK(cuEventRecord(event, first));
    OK(cuStreamWaitEvent(second, event, 0));
    OK(cuEventRecord(event, second));
    scale(other, second, 2, 0);
    OK(cuEventSynchronize(event));
    REQUIRE(read(data)[0] == 3);
    OK(cuCtxSynchronize());
    REQUIRE(read(other)[0] == 2);
}

void unrecorded_eventIsNoObstacle() {
    CUstream stream = new_stream();
    CUevent event = new_event();
    OK(cuEventQuery(event));
    OK(cuEventSynchronize(event));
    OK(cuStreamWaitEvent(stream, event, 0));
    OK(cuStreamSynchronize(stream));
}

void legacy_streamOrdersBlockingStreams() {
    CUdeviceptr data = ints(count, 1);
    CUstream first = new_stream(STREAM_DEFAULT);
    CUstream second = new_stream(STREAM_DEFAULT);
    scale(data, first, 3, 0);
    scale(data, nullptr, 1, 4);
    scale(data, second, 10, 0);
    OK(cuStreamSynchronize(second));
    REQUIRE(read(data)[1] == 70);
}

void destroyed_streamStillWorks() {
    CUdeviceptr data = ints(count, 1);
    CUstream stream = new_stream(STREAM_DEFAULT);
    scale(data, stream, 3, 0);
    OK(cuStreamDestroy_v2(stream));
    scale(data, nullptr, 1, 1);
    REQUIRE(read(data)[0] == 4);
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(stream));
}

void thread_streamIsAStream() {
    CUdeviceptr data = ints(count, 1);
    auto own = reinterpret_cast<CUstream>(stream_per_thread);
    scale(data, own, 3, 0);
    scale(data, nullptr, 1, 1);
    scale(data, own, 2, 0);
    OK(cuStreamSynchronize(own));
    REQUIRE(read(data)[0] == 8);
}

void launch_copiesItsParameters() {
    CUdeviceptr data = ints(count, 1);
    CUstream stream = new_stream();
    int size = count;
    int factor = 3;
    int addend = 0;
    void* params[] = {&data, &size, &factor, &addend};
    OK(cuLaunchKernel(kernel("scale_add"), 3, 1, 1, 128, 1, 1, 0, stream, params, nullptr));
    factor = 1000;
    size = 0;
    OK(cuStreamSynchronize(stream));
    REQUIRE(read(data)[count - 1] == 3);
}

void extra_bufferIsAParameterList() {
    CUdeviceptr data = ints(count, 2);
    struct {
        CUdeviceptr data;
        int count, factor, addend;
    } buffer = {data, int(count), 4, 1};
    size_t bytes = 20;
    void* extra[] = {reinterpret_cast<void*>(launch_param_buffer_pointer), &buffer,
                     reinterpret_cast<void*>(launch_param_buffer_size), &bytes, nullptr};
    OK(cuLaunchKernel(kernel("scale_add"), 3, 1, 1, 128, 1, 1, 0, nullptr, nullptr, extra));
    REQUIRE(read(data)[7] == 9);
}

void query_comesToAnEnd() {
    CUdeviceptr data = ints(count, 1);
    CUstream stream = new_stream();
    CUevent event = new_event();
    for (int i = 0; i < 5; i++) {
        scale(data, stream, 2, 0);
    }
    OK(cuEventRecord(event, stream));
    int polls = 0;
    while (cuEventQuery(event) == CUDA_ERROR_NOT_READY && polls < 100) {
        polls++;
    }
    OK(cuEventQuery(event));
    OK(cuStreamQuery(stream));
    REQUIRE(read(data)[0] == 32);
}

void pageable_sourceIsReadAtOnce() {
    CUdeviceptr data = ints(count, 0);
    CUstream stream = new_stream();
    std::vector<int> numbers(count, 9);
    OK(cuMemcpyHtoDAsync_v2(data, numbers.data(), count * sizeof(int), stream));
    numbers.assign(count, 1);
    OK(cuStreamSynchronize(stream));
    REQUIRE(read(data)[3] == 9);
}

void pageable_destinationIsThereOnReturn() {
    CUdeviceptr data = ints(count, 1);
    CUstream stream = new_stream();
    std::vector<int> numbers(count);
    scale(data, stream, 6, 0);
    OK(cuMemcpyDtoHAsync_v2(numbers.data(), data, count * sizeof(int), stream));
    REQUIRE(numbers[count - 1] == 6);
}

void elapsed_timeIsNotNegative() {
    CUdeviceptr data = ints(count, 1);
    CUstream stream = new_stream();
    CUevent begin = new_event();
    CUevent end = new_event();
    float milliseconds = -1;
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&milliseconds, begin, end));
    OK(cuEventRecord(begin, stream));
    scale(data, stream, 6, 0);
    OK(cuEventRecord(end, stream));
    OK(cuEventSynchronize(end));
    OK(cuEventElapsedTime_v2(&milliseconds, begin, end));
    REQUIRE(milliseconds >= 0);
}

void late_meansNothingHappensBefore() {
    start(late);
    CUdeviceptr data = ints(1, 1);
    int* target = locked_ints(1, -5);
    CUstream stream = new_stream();
    OK(cuMemcpyDtoHAsync_v2(target, data, sizeof(int), stream));
    REQUIRE(*target == -5);
    REQUIRE(jmoeEmulatorGet("pending") == 1);
    EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
    OK(cuStreamSynchronize(stream));
    REQUIRE(*target == 1);
}

void late_sourceIsReadWhenTheStreamGetsThere() {
    start(late);
    CUdeviceptr data = ints(1, 1);
    int* source = locked_ints(1, 5);
    CUstream stream = new_stream();
    OK(cuMemcpyHtoDAsync_v2(data, source, sizeof(int), stream));
    *source = 6;
    OK(cuStreamSynchronize(stream));
    int got = 0;
    OK(cuMemcpyDtoH_v2(&got, data, sizeof got));
    REQUIRE(got == 6);
}

void late_waitsForNoOtherStream() {
    start(late);
    CUdeviceptr data = ints(1, 1);
    int* target = locked_ints(1, -5);
    CUstream idle = new_stream();
    CUstream stream = new_stream();
    OK(cuMemcpyDtoHAsync_v2(target, data, sizeof(int), idle));
    OK(cuMemsetD32Async(data, 2, 1, stream));
    OK(cuStreamSynchronize(stream));
    REQUIRE(*target == -5);
    OK(cuCtxSynchronize());
    REQUIRE(*target == 2);
}

void early_meansAtOnce() {
    start(early);
    CUdeviceptr data = ints(1, 1);
    int* target = locked_ints(1, -5);
    OK(cuMemcpyDtoHAsync_v2(target, data, sizeof(int), new_stream()));
    REQUIRE(*target == 1);
    REQUIRE(jmoeEmulatorGet("pending") == 0);
}

// Two streams without an order between them: some seeds must show one order, some the other.
void random_showsBothOrders() {
    bool seen[2] = {};
    for (unsigned long long seed = 1; seed <= 40; seed++) {
        start(at_random, seed);
        CUdeviceptr data = ints(1, 0);
        OK(cuMemsetD32Async(data, 1, 1, new_stream()));
        OK(cuMemsetD32Async(data, 2, 1, new_stream()));
        OK(cuCtxSynchronize());
        int got = 0;
        OK(cuMemcpyDtoH_v2(&got, data, sizeof got));
        REQUIRE(got == 1 || got == 2);
        seen[got - 1] = true;
    }
    REQUIRE(seen[0] && seen[1]);
}

void thousands_ofOperationsQueueUp() {
    start(late);
    CUdeviceptr data = ints(1, 0);
    CUstream stream = new_stream();
    for (int i = 1; i <= 10000; i++) {
        OK(cuMemsetD32Async(data, static_cast<unsigned>(i), 1, stream));
    }
    OK(cuStreamSynchronize(stream));
    int got = 0;
    OK(cuMemcpyDtoH_v2(&got, data, sizeof got));
    REQUIRE(got == 10000);
}

void add_one(void* number) {
    ++*static_cast<int*>(number);
    if (cuCtxSynchronize() != CUDA_ERROR_NOT_PERMITTED) {
        *static_cast<int*>(number) = -1;
    }
}

void host_functionRunsInOrder() {
    CUstream stream = new_stream();
    int number = 0;
    OK(cuLaunchHostFunc(stream, add_one, &number));
    OK(cuStreamSynchronize(stream));
    REQUIRE(number == 1);
}

}  // namespace

int main() {
    std::vector<Test> tests;
    add(tests, in_every_timing("one_stream_keepsOrder", one_stream_keepsOrder));
    add(tests, in_every_timing("early_launchKeepsOrder", early_launchKeepsOrder));
    add(tests, in_every_timing("early_launchOverlaps", early_launchOverlaps));
    add(tests, in_every_timing("early_launchOverlapsAcrossAnEvent", early_launchOverlapsAcrossAnEvent));
    add(tests, in_every_timing("early_launchAfterTheEnd", early_launchAfterTheEnd));
    add(tests, in_every_timing("early_launchMustWait", early_launchMustWait));
    add(tests, in_every_timing("event_ordersTwoStreams", event_ordersTwoStreams));
    add(tests, in_every_timing("event_waitsForTheRecordThatWas", event_waitsForTheRecordThatWas));
    add(tests, in_every_timing("unrecorded_eventIsNoObstacle", unrecorded_eventIsNoObstacle));
    add(tests, in_every_timing("legacy_streamOrdersBlockingStreams", legacy_streamOrdersBlockingStreams));
    add(tests, in_every_timing("destroyed_streamStillWorks", destroyed_streamStillWorks));
    add(tests, in_every_timing("thread_streamIsAStream", thread_streamIsAStream));
    add(tests, in_every_timing("launch_copiesItsParameters", launch_copiesItsParameters));
    add(tests, in_every_timing("extra_bufferIsAParameterList", extra_bufferIsAParameterList));
    add(tests, in_every_timing("query_comesToAnEnd", query_comesToAnEnd));
    add(tests, in_every_timing("pageable_sourceIsReadAtOnce", pageable_sourceIsReadAtOnce));
    add(tests, in_every_timing("pageable_destinationIsThereOnReturn", pageable_destinationIsThereOnReturn));
    add(tests, in_every_timing("elapsed_timeIsNotNegative", elapsed_timeIsNotNegative));
    add(tests, in_every_timing("host_functionRunsInOrder", host_functionRunsInOrder));
    tests.push_back({"late_meansNothingHappensBefore", late_meansNothingHappensBefore});
    tests.push_back({"late_sourceIsReadWhenTheStreamGetsThere", late_sourceIsReadWhenTheStreamGetsThere});
    tests.push_back({"late_waitsForNoOtherStream", late_waitsForNoOtherStream});
    tests.push_back({"early_meansAtOnce", early_meansAtOnce});
    tests.push_back({"random_showsBothOrders", random_showsBothOrders});
    tests.push_back({"thousands_ofOperationsQueueUp", thousands_ofOperationsQueueUp});
    return run_all(tests);
}
