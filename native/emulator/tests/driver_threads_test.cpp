// Many host threads at once: each with its stream and memory, all with one context.
#include <atomic>
#include <thread>

#include "driver_check.h"
#include "driver_test_kernels.h"

using namespace driver_check;

namespace {

constexpr int num_threads = 8;
constexpr int rounds = 20;

// What one thread does; the result is what went wrong.
std::string work(CUfunction function, int thread) {
    try {
        OK(cuCtxSetCurrent(current_context));
        CUstream stream = new_stream(thread % 2 ? STREAM_DEFAULT : STREAM_NON_BLOCKING);
        CUevent event = new_event();
        for (int round = 0; round < rounds; round++) {
            CUdeviceptr data = 0;
            int number = thread;
            OK(cuMemAllocAsync(&data, sizeof number, stream));
            OK(cuMemcpyHtoDAsync_v2(data, &number, sizeof number, stream));
            OK(launch(function, 1, 32, stream, data, 1, 10, round));
            OK(cuEventRecord(event, stream));
            OK(cuEventSynchronize(event));
            OK(cuMemcpyDtoHAsync_v2(&number, data, sizeof number, stream));
            OK(cuMemFreeAsync(data, stream));
            REQUIRE(number == thread * 10 + round);
        }
        OK(cuStreamSynchronize(stream));
        OK(cuEventDestroy_v2(event));
        OK(cuStreamDestroy_v2(stream));
    } catch (const Mismatch& mismatch) {
        return mismatch.why;
    }
    return std::string();
}

void threads_shareAContext() {
    CUfunction function = kernel("scale_add");
    std::vector<std::string> problems(num_threads);
    std::vector<std::thread> threads;
    for (int thread = 0; thread < num_threads; thread++) {
        threads.emplace_back([&, thread] { problems[static_cast<size_t>(thread)] = work(function, thread); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    for (const std::string& problem : problems) {
        if (!problem.empty()) {
            throw Mismatch{problem};
        }
    }
    OK(cuCtxSynchronize());
    REQUIRE(jmoeEmulatorGet("liveAllocations") == 0);
    REQUIRE(jmoeEmulatorGet("pending") == 0);
}

// A thread's last refusal is its own.
void texts_belongToTheirThread() {
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(12345));
    std::string elsewhere;
    std::thread([&] { elsewhere = text_of(CUDA_ERROR_INVALID_VALUE); }).join();
    REQUIRE(elsewhere == "invalid argument");
    REQUIRE(text_of(CUDA_ERROR_INVALID_VALUE) != elsewhere);
}

std::atomic<bool> released{false};

void wait_for_release(void*) {
    while (!released) {
        std::this_thread::yield();
    }
}

// A host function that waits for another thread must not keep that thread from the driver.
void host_functionLetsOthersCall() {
    released = false;
    CUstream stream = new_stream();
    OK(cuLaunchHostFunc(stream, wait_for_release, nullptr));
    int result = -1;
    std::thread other([&] {
        int got = 0;
        cuCtxSetCurrent(current_context);
        result = cuDeviceGetCount(&got);
        released = true;
    });
    OK(cuStreamSynchronize(stream));
    other.join();
    OK(static_cast<Result>(result));
}

}  // namespace

int main() {
    std::vector<Test> tests;
    add(tests, in_every_timing("threads_shareAContext", threads_shareAContext));
    add(tests, in_every_timing("texts_belongToTheirThread", texts_belongToTheirThread));
    tests.push_back({"host_functionLetsOthersCall", [] {
                         start(late);
                         host_functionLetsOthersCall();
                     }});
    return run_all(tests);
}
