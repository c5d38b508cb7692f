// What the driver's check programs share: one line per test, a fresh primary context for each, and results by name.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "driver_calls.h"
#include "schedule.h"

namespace driver_check {

using namespace driver;

struct Mismatch {
    std::string why;
};

inline std::string place(const char* file, int line) {
    std::string path(file);
    return path.substr(path.rfind('/') + 1) + ":" + std::to_string(line) + ": ";
}

inline const char* name_of(int result) {
    const char* name = nullptr;
    cuGetErrorName(result, &name);
    return name ? name : "no such code";
}

inline std::string text_of(int result) {
    const char* text = nullptr;
    cuGetErrorString(result, &text);
    return text ? text : "";
}

inline void expect_result(int got, int wanted, const char* call, const char* file, int line) {
    if (got != wanted) {
        std::string text = got == CUDA_SUCCESS ? "" : " (" + text_of(got) + ")";
        throw Mismatch{place(file, line) + call + ": " + name_of(got) + text + ", expected " + name_of(wanted)};
    }
}

#define EXPECT(result, call) driver_check::expect_result(call, result, #call, __FILE__, __LINE__)
#define OK(call) EXPECT(driver::CUDA_SUCCESS, call)
#define REQUIRE(condition)                                                                          \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            throw driver_check::Mismatch{driver_check::place(__FILE__, __LINE__) + #condition};     \
        }                                                                                           \
    } while (false)
#define REQUIRE_TEXT(result, part)                                                                          \
    do {                                                                                                    \
        std::string text = driver_check::text_of(result);                                                   \
        if (text.find(part) == std::string::npos) {                                                         \
            throw driver_check::Mismatch{driver_check::place(__FILE__, __LINE__) + "'" + text + "' without '" + part + "'"}; \
        }                                                                                                   \
    } while (false)

constexpr int late = emulator::async_late;
constexpr int early = emulator::async_early;
constexpr int at_random = emulator::async_random;

inline CUcontext current_context = nullptr;

// The device as a process finds it, with a current primary context.
inline void start(int async, unsigned long long seed = 1) {
    OK(cuInit(0));
    jmoeEmulatorFault("*clear*", 0, 0);
    OK(cuDevicePrimaryCtxReset_v2(0));
    jmoeEmulatorSchedule(emulator::in_order, seed, async, 0);
    OK(cuDevicePrimaryCtxRetain(&current_context, 0));
    OK(cuCtxSetCurrent(current_context));
}

inline CUfunction kernel(const char* name) {
    CUmodule module = nullptr;
    CUfunction function = nullptr;
    OK(cuModuleLoadData(&module, "any image"));
    OK(cuModuleGetFunction(&function, module, name));
    return function;
}

template <class... Params>
Result launch(CUfunction function, unsigned grid, unsigned block, CUstream stream, Params... params) {
    void* pointers[] = {&params..., nullptr};
    return cuLaunchKernel(function, grid, 1, 1, block, 1, 1, 0, stream, pointers, nullptr);
}

// With PROGRAMMATIC_STREAM_SERIALIZATION of that value.
template <class... Params>
Result launch_early(CUfunction function, int value, CUstream stream, Params... params) {
    void* pointers[] = {&params..., nullptr};
    CUlaunchAttribute attribute = {};
    attribute.id = LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.number = value;
    CUlaunchConfig config = {1, 1, 1, 128, 1, 1, 0, stream, &attribute, 1};
    return cuLaunchKernelEx(&config, function, pointers, nullptr);
}

inline CUdeviceptr ints(size_t count, int value) {
    CUdeviceptr address = 0;
    OK(cuMemAlloc_v2(&address, count * sizeof(int)));
    OK(cuMemsetD32_v2(address, static_cast<unsigned>(value), count));
    OK(cuCtxSynchronize());
    return address;
}

inline CUstream new_stream(unsigned flags = STREAM_NON_BLOCKING) {
    CUstream stream = nullptr;
    OK(cuStreamCreate(&stream, flags));
    return stream;
}

inline CUevent new_event(unsigned flags = 0) {
    CUevent event = nullptr;
    OK(cuEventCreate(&event, flags));
    return event;
}

// Page-locked ints.
inline int* locked_ints(size_t count, int value) {
    void* memory = nullptr;
    OK(cuMemAllocHost_v2(&memory, count * sizeof(int)));
    int* numbers = static_cast<int*>(memory);
    for (size_t i = 0; i < count; i++) {
        numbers[i] = value;
    }
    return numbers;
}

struct Test {
    std::string name;
    std::function<void()> run;
};

inline int run_all(const std::vector<Test>& tests) {
    int failures = 0;
    for (const Test& test : tests) {
        try {
            test.run();
            std::printf("ok %s\n", test.name.c_str());
        } catch (const Mismatch& mismatch) {
            failures++;
            std::printf("FAILED %s: %s\n", test.name.c_str(), mismatch.why.c_str());
        }
        std::fflush(stdout);
    }
    return failures == 0 ? 0 : 1;
}

// One test per asynchronous timing, several seeds for the random one.
inline std::vector<Test> in_every_timing(const std::string& name, const std::function<void()>& body) {
    auto timed = [body](int timing, int seeds) {
        return [body, timing, seeds] {
            for (int seed = 1; seed <= seeds; seed++) {
                start(timing, static_cast<unsigned long long>(seed));
                body();
            }
        };
    };
    return {{name + "_late", timed(late, 1)}, {name + "_early", timed(early, 1)}, {name + "_random", timed(at_random, 20)}};
}

inline void add(std::vector<Test>& tests, std::vector<Test> more) {
    tests.insert(tests.end(), more.begin(), more.end());
}

}  // namespace driver_check
