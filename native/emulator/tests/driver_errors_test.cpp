// What the driver refuses, how it says so, and how one goes on afterwards.
#include <cstring>
#include <thread>

#include "driver_check.h"
#include "driver_test_kernels.h"

using namespace driver_check;

namespace {

void calls_needAContext() {
    int version = 0;
    CUdeviceptr data = 0;
    CUstream stream = nullptr;
    CUcontext context = nullptr;
    OK(cuCtxSetCurrent(nullptr));
    EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuMemAlloc_v2(&data, 4));
    EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuStreamCreate(&stream, 0));
    EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuCtxSynchronize());
    EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuCtxPopCurrent_v2(&context));
    OK(cuCtxGetCurrent(&context));
    REQUIRE(context == nullptr);
    OK(cuDriverGetVersion(&version));
    OK(cuDeviceGetCount(&version));
    OK(cuCtxSetCurrent(current_context));
    OK(cuCtxSynchronize());
}

void contexts_areAStackPerThread() {
    CUcontext second = nullptr;
    CUcontext got = nullptr;
    OK(cuCtxCreate_v4(&second, nullptr, 0, 0));
    OK(cuCtxGetCurrent(&got));
    REQUIRE(got == second && got != current_context);
    OK(cuCtxPopCurrent_v2(&got));
    REQUIRE(got == second);
    OK(cuCtxGetCurrent(&got));
    REQUIRE(got == current_context);
    int elsewhere = 0;
    std::thread([&] { elsewhere = cuCtxSynchronize(); }).join();
    REQUIRE(elsewhere == CUDA_ERROR_INVALID_CONTEXT);
    OK(cuCtxPushCurrent_v2(second));
    CUstream stream = new_stream();
    OK(cuCtxPopCurrent_v2(nullptr));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuMemsetD8Async(ints(1, 1), 0, 1, stream));
    OK(cuCtxDestroy_v2(second));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuCtxSetCurrent(second));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(stream));
    EXPECT(CUDA_ERROR_INVALID_CONTEXT, cuCtxDestroy_v2(current_context));
}

void handles_areChecked() {
    CUstream stream = new_stream();
    CUevent event = new_event();
    CUmodule module = nullptr;
    CUfunction function = nullptr;
    OK(cuModuleLoadData(&module, "image"));
    OK(cuModuleGetFunction(&function, module, "scale_add"));
    OK(cuStreamDestroy_v2(stream));
    OK(cuEventDestroy_v2(event));
    OK(cuModuleUnload(module));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamDestroy_v2(stream));
    REQUIRE_TEXT(CUDA_ERROR_INVALID_HANDLE, "stream handle");
    REQUIRE_TEXT(CUDA_ERROR_INVALID_HANDLE, "destroyed");
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(event, nullptr));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuEventSynchronize(event));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuModuleUnload(module));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuModuleGetFunction(&function, module, "scale_add"));
    CUdeviceptr data = ints(1, 1);
    EXPECT(CUDA_ERROR_INVALID_HANDLE, launch(function, 1, 32, nullptr, data, 1, 1, 1));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(reinterpret_cast<CUstream>(new_event())));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(reinterpret_cast<CUstream>(0x1234)));
    REQUIRE_TEXT(CUDA_ERROR_INVALID_HANDLE, "never given out");
}

void modules_findByName() {
    CUmodule module = nullptr;
    CUfunction function = nullptr;
    CUdeviceptr address = 0;
    size_t bytes = 0;
    CheckLaunch info = {};
    long long blocks = jmoeEmulatorGet("liveAllocations");
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuModuleLoadData(&module, nullptr));
    EXPECT(CUDA_ERROR_FILE_NOT_FOUND, cuModuleLoad(&module, "/no/such/file"));
    OK(cuModuleLoadData(&module, "image"));
    EXPECT(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction(&function, module, "no_such_kernel"));
    REQUIRE_TEXT(CUDA_ERROR_NOT_FOUND, "no_such_kernel");
    EXPECT(CUDA_ERROR_NOT_FOUND, cuModuleGetGlobal_v2(&address, &bytes, module, "no_such_constant"));
    OK(cuModuleGetGlobal_v2(&address, &bytes, module, "scale_add_launch"));
    REQUIRE(bytes == sizeof info);
    OK(cuMemcpyDtoH_v2(&info, address, bytes));
    REQUIRE(info.threads == 128 && info.items_per_block == 128);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(address));
    REQUIRE(jmoeEmulatorGet("liveAllocations") == blocks);
    OK(cuModuleUnload(module));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH_v2(&info, address, bytes));
}

void launches_areChecked() {
    CUfunction function = kernel("scale_add");
    CUdeviceptr data = ints(1, 1);
    int number = 1;
    void* params[] = {&data, &number, &number, &number};
    void* holes[] = {&data, &number, nullptr, &number};
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(function, 0, 1, 1, 32, 1, 1, 0, nullptr, params, nullptr));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(function, 1, 65536, 1, 32, 1, 1, 0, nullptr, params, nullptr));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(function, 1, 1, 1, 2048, 1, 1, 0, nullptr, params, nullptr));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(function, 1, 1, 1, 64, 64, 1, 0, nullptr, params, nullptr));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(function, 1, 1, 1, 1, 1, 65, 0, nullptr, params, nullptr));
    EXPECT(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, cuLaunchKernel(function, 1, 1, 1, 512, 1, 1, 0, nullptr, params, nullptr));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, nullptr, nullptr, nullptr));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, nullptr, holes, nullptr));
    REQUIRE_TEXT(CUDA_ERROR_INVALID_VALUE, "parameter 2");
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 49153, nullptr, params, nullptr));
    EXPECT(CUDA_ERROR_INVALID_VALUE,
           cuFuncSetAttribute(function, FUNCTION_MAX_DYNAMIC_SHARED_SIZE_BYTES, 232449));
    OK(cuFuncSetAttribute(function, FUNCTION_MAX_DYNAMIC_SHARED_SIZE_BYTES, 232448));
    OK(cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 49153, nullptr, params, nullptr));
    OK(cuCtxSynchronize());
}

void extended_launchesAreChecked() {
    CUfunction function = kernel("scale_add_waiting");
    CUdeviceptr data = ints(64, 1);
    int count = 64;
    int number = 2;
    void* params[] = {&data, &count, &number, &number};
    CUlaunchAttribute attributes[2] = {};
    CUlaunchConfig config = {4, 1, 1, 32, 1, 1, 0, nullptr, attributes, 2};
    attributes[0].id = LAUNCH_CLUSTER_DIMENSION;
    attributes[0].value.cluster = {2, 1, 1};
    attributes[1].id = LAUNCH_PROGRAMMATIC_STREAM_SERIALIZATION;
    attributes[1].value.number = 1;
    OK(cuLaunchKernelEx(&config, function, params, nullptr));
    OK(cuCtxSynchronize());
    attributes[0].value.cluster = {3, 1, 1};
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernelEx(&config, function, params, nullptr));
    config.gridDimX = 32;
    attributes[0].value.cluster = {16, 1, 1};
    EXPECT(CUDA_ERROR_INVALID_CLUSTER_SIZE, cuLaunchKernelEx(&config, function, params, nullptr));
    OK(cuFuncSetAttribute(function, FUNCTION_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1));
    OK(cuLaunchKernelEx(&config, function, params, nullptr));
    attributes[1].id = static_cast<LaunchAttributeId>(1);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernelEx(&config, function, params, nullptr));
    jmoeEmulatorSet("capability", 80);
    config.numAttrs = 1;
    EXPECT(CUDA_ERROR_NOT_SUPPORTED, cuLaunchKernelEx(&config, function, params, nullptr));
    jmoeEmulatorSet("capability", 90);
}

void functions_tellTheirParameters() {
    CUfunction function = kernel("scale_add");
    size_t offset = 99;
    size_t bytes = 99;
    int value = 0;
    OK(cuFuncGetParamInfo(function, 0, &offset, &bytes));
    REQUIRE(offset == 0 && bytes == 8);
    OK(cuFuncGetParamInfo(function, 3, &offset, &bytes));
    REQUIRE(offset == 16 && bytes == 4);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuFuncGetParamInfo(function, 4, &offset, &bytes));
    OK(cuFuncGetAttribute(&value, FUNCTION_MAX_THREADS_PER_BLOCK, function));
    REQUIRE(value == 256);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, function, 128, 100000));
    REQUIRE(value == 2);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, function, 512, 0));
    REQUIRE(value == 0);
}

void occupancy_countsWholeClusters() {
    CUfunction function = kernel("scale_add");
    int clusters = -1;
    CUlaunchAttribute attributes[1] = {};
    CUlaunchConfig config = {2, 1, 1, 128, 1, 1, 0, nullptr, attributes, 1};
    attributes[0].id = LAUNCH_CLUSTER_DIMENSION;
    attributes[0].value.cluster = {2, 1, 1};
    OK(cuFuncSetAttribute(function, FUNCTION_MAX_DYNAMIC_SHARED_SIZE_BYTES, 200000));
    config.sharedMemBytes = 200000;
    OK(cuOccupancyMaxActiveClusters(&clusters, function, &config));
    REQUIRE(clusters == 66);
    config.sharedMemBytes = 100000;
    OK(cuOccupancyMaxActiveClusters(&clusters, function, &config));
    REQUIRE(clusters == 132);
    jmoeEmulatorSet("multiprocessors", 3);
    config.sharedMemBytes = 200000;
    OK(cuOccupancyMaxActiveClusters(&clusters, function, &config));
    REQUIRE(clusters == 1);
    jmoeEmulatorSet("multiprocessors", 132);
    config.sharedMemBytes = 200001;
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuOccupancyMaxActiveClusters(&clusters, function, &config));
    config.sharedMemBytes = 0;
    config.gridDimX = 3;
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuOccupancyMaxActiveClusters(&clusters, function, &config));
    config.gridDimX = 16;
    attributes[0].value.cluster = {16, 1, 1};
    EXPECT(CUDA_ERROR_INVALID_CLUSTER_SIZE, cuOccupancyMaxActiveClusters(&clusters, function, &config));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuOccupancyMaxActiveClusters(nullptr, function, &config));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuOccupancyMaxActiveClusters(&clusters, function, nullptr));
    config.numAttrs = 0;
    EXPECT(CUDA_ERROR_INVALID_CLUSTER_SIZE, cuOccupancyMaxActiveClusters(&clusters, function, &config));
    config.numAttrs = 1;
    jmoeEmulatorSet("capability", 80);
    attributes[0].value.cluster = {2, 1, 1};
    EXPECT(CUDA_ERROR_NOT_SUPPORTED, cuOccupancyMaxActiveClusters(&clusters, function, &config));
    jmoeEmulatorSet("capability", 90);
}

void kernel_errorIsStickyUntilReset() {
    CUdeviceptr data = ints(4, 1);
    CUstream stream = new_stream();
    OK(launch(kernel("fail_always"), 1, 32, stream, data, 4));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
    REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "kernel fail_always");
    REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "failed as asked");
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuCtxSynchronize());
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuMemAlloc_v2(&data, 4));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuStreamDestroy_v2(stream));
    OK(cuDevicePrimaryCtxReset_v2(0));
    EXPECT(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuCtxSynchronize());
    REQUIRE(jmoeEmulatorGet("liveAllocations") == 0);
    CUcontext context = nullptr;
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(stream));
    REQUIRE(text_of(CUDA_ERROR_LAUNCH_FAILED) == "unspecified launch failure");
    data = ints(4, 1);
    OK(launch(kernel("scale_add"), 1, 32, nullptr, data, 4, 2, 2));
    int got = 0;
    OK(cuMemcpyDtoH_v2(&got, data, 4));
    REQUIRE(got == 4);
    OK(cuDevicePrimaryCtxRelease_v2(0));
}

void kernel_refusesHostPointers() {
    int pageable[4] = {};
    OK(launch(kernel("scale_add"), 1, 32, nullptr, reinterpret_cast<CUdeviceptr>(pageable), 4, 2, 2));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuCtxSynchronize());
    REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "parameter 0");
}

void faults_strikeWhenTheyAreDue() {
    CUstream stream = new_stream();
    CUdeviceptr data = 0;
    jmoeEmulatorFault("cuMemAlloc", 2, CUDA_ERROR_OUT_OF_MEMORY);
    OK(cuMemAlloc_v2(&data, 4));
    EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&data, 4));
    OK(cuMemAlloc_v2(&data, 4));
    jmoeEmulatorFault("cuMemAllocAsync", 1, CUDA_ERROR_OUT_OF_MEMORY);
    jmoeEmulatorFault("cuStreamSynchronize", 1, CUDA_ERROR_UNKNOWN);
    jmoeEmulatorFault("*clear*", 0, 0);
    OK(cuMemAllocAsync(&data, 4, stream));
    OK(cuStreamSynchronize(stream));
    jmoeEmulatorFault("cuLaunchKernel", 1, CUDA_ERROR_LAUNCH_FAILED);
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, launch(kernel("scale_add"), 1, 32, stream, data, 1, 1, 1));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
    REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "fault ordered");
}

void errors_haveNames() {
    const char* text = nullptr;
    OK(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
    REQUIRE(std::strcmp(text, "CUDA_ERROR_ILLEGAL_ADDRESS") == 0);
    OK(cuGetErrorString(CUDA_SUCCESS, &text));
    REQUIRE(std::strcmp(text, "no error") == 0);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuGetErrorName(12345, &text));
    REQUIRE(text == nullptr);
}

void machine_isAsDescribed() {
    int value = 0;
    char name[64] = {};
    jmoeEmulatorSet("driverVersion", 12080);
    OK(cuDriverGetVersion(&value));
    REQUIRE(value == 12080);
    jmoeEmulatorSet("driverVersion", 13000);
    jmoeEmulatorSet("deviceCount", 2);
    OK(cuDeviceGetCount(&value));
    REQUIRE(value == 2);
    OK(cuDeviceGet(&value, 1));
    EXPECT(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&value, 2));
    jmoeEmulatorSet("deviceCount", 1);
    OK(cuDeviceGetAttribute(&value, COMPUTE_CAPABILITY_MAJOR, 0));
    REQUIRE(value == 9);
    OK(cuDeviceGetAttribute(&value, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0));
    REQUIRE(value == 232448);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuDeviceGetAttribute(&value, 5000, 0));
    OK(cuDeviceGetName(name, sizeof name, 0));
    REQUIRE(std::strstr(name, "jmoe emulator") != nullptr);
    REQUIRE(jmoeEmulatorGet("no such key") == -1);
}

void discarded_launchesAreChecked() {
    CUfunction function = kernel("scale_add");
    CUdeviceptr data = ints(1, 1);
    long long launches = jmoeEmulatorGet("launches");
    jmoeEmulatorSet("discardLaunches", 1);
    OK(launch(function, 1, 32, nullptr, data, 1, 5, 5));
    EXPECT(CUDA_ERROR_INVALID_VALUE, launch(function, 0, 32, nullptr, data, 1, 5, 5));
    jmoeEmulatorSet("discardLaunches", 0);
    int got = 0;
    OK(cuMemcpyDtoH_v2(&got, data, 4));
    REQUIRE(got == 1);
    REQUIRE(jmoeEmulatorGet("launches") == launches + 1);
}

void symbols_areFoundByName() {
    void* address = nullptr;
    int status = -1;
    EXPECT(CUDA_ERROR_NOT_FOUND, cuGetProcAddress_v2("cuNoSuchCall", &address, 13000, 0, &status));
    REQUIRE(address == nullptr && status == 1);
}

void before_cuInit() {
    CUdeviceptr data = 0;
    int number = 0;
    EXPECT(CUDA_ERROR_NOT_INITIALIZED, cuMemAlloc_v2(&data, 4));
    EXPECT(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&number));
    OK(cuDriverGetVersion(&number));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuInit(1));
    jmoeEmulatorSet("deviceCount", 0);
    EXPECT(CUDA_ERROR_NO_DEVICE, cuInit(0));
    jmoeEmulatorSet("deviceCount", 1);
}

}  // namespace

int main() {
    std::vector<Test> tests;
    tests.push_back({"before_cuInit", before_cuInit});
    add(tests, in_every_timing("calls_needAContext", calls_needAContext));
    add(tests, in_every_timing("contexts_areAStackPerThread", contexts_areAStackPerThread));
    add(tests, in_every_timing("handles_areChecked", handles_areChecked));
    add(tests, in_every_timing("modules_findByName", modules_findByName));
    add(tests, in_every_timing("launches_areChecked", launches_areChecked));
    add(tests, in_every_timing("extended_launchesAreChecked", extended_launchesAreChecked));
    add(tests, in_every_timing("functions_tellTheirParameters", functions_tellTheirParameters));
    add(tests, in_every_timing("occupancy_countsWholeClusters", occupancy_countsWholeClusters));
    add(tests, in_every_timing("kernel_errorIsStickyUntilReset", kernel_errorIsStickyUntilReset));
    add(tests, in_every_timing("kernel_refusesHostPointers", kernel_refusesHostPointers));
    add(tests, in_every_timing("faults_strikeWhenTheyAreDue", faults_strikeWhenTheyAreDue));
    add(tests, in_every_timing("machine_isAsDescribed", machine_isAsDescribed));
    add(tests, in_every_timing("discarded_launchesAreChecked", discarded_launchesAreChecked));
    tests.push_back({"errors_haveNames", errors_haveNames});
    tests.push_back({"symbols_areFoundByName", symbols_areFoundByName});
    return run_all(tests);
}
