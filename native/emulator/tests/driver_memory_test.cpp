// Device memory, pools and host memory: what is refused, what is counted, what is noticed later.
#include "driver_check.h"
#include "driver_test_kernels.h"

using namespace driver_check;

namespace {

CUdeviceptr allocate_async(size_t bytes, CUstream stream) {
    CUdeviceptr address = 0;
    OK(cuMemAllocAsync(&address, bytes, stream));
    return address;
}

void copies_stayInBounds() {
    CUdeviceptr data = ints(4, 1);
    int numbers[8] = {};
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(data, numbers, 17));
    REQUIRE_TEXT(CUDA_ERROR_INVALID_VALUE, "destination");
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH_v2(numbers, data + 8, 9));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH_v2(numbers, data + 16, 1));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH_v2(numbers, data, SIZE_MAX));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemsetD8_v2(data, 0, 17));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemsetD32_v2(data + 2, 0, 1));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemsetD32_v2(data, 0, SIZE_MAX / 2));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoD_v2(data, data + 4, 8));
    OK(cuMemcpyDtoH_v2(numbers, data, 16));
    OK(cuMemcpyHtoD_v2(0, nullptr, 0));
    REQUIRE(numbers[3] == 1 && numbers[4] == 0);
}

void host_andDevicePointersAreNotMixedUp() {
    CUdeviceptr data = ints(4, 1);
    int pageable[4] = {};
    int* locked = locked_ints(4, 1);
    auto host = reinterpret_cast<CUdeviceptr>(pageable);
    auto device = reinterpret_cast<void*>(data);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(host, pageable, 4));
    REQUIRE_TEXT(CUDA_ERROR_INVALID_VALUE, "host address");
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(reinterpret_cast<CUdeviceptr>(locked), pageable, 4));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(data, device, 4));
    REQUIRE_TEXT(CUDA_ERROR_INVALID_VALUE, "device memory");
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH_v2(device, data, 4));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(data, nullptr, 4));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(data, reinterpret_cast<void*>(0x10000), 4));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD_v2(0, pageable, 4));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(host));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(pageable));
}

void generic_copyFindsOutWhereMemoryLies() {
    CUdeviceptr data = ints(4, 3);
    CUdeviceptr other = ints(4, 0);
    int pageable[4] = {};
    int* locked = locked_ints(4, 0);
    OK(cuMemcpy(other, data, 16));
    OK(cuMemcpy(reinterpret_cast<CUdeviceptr>(pageable), other, 16));
    OK(cuMemcpy(reinterpret_cast<CUdeviceptr>(locked), reinterpret_cast<CUdeviceptr>(pageable), 16));
    REQUIRE(pageable[3] == 3 && locked[3] == 3);
    CUstream stream = new_stream();
    locked[0] = 8;
    OK(cuMemcpyAsync(data, reinterpret_cast<CUdeviceptr>(locked), 4, stream));
    OK(cuMemcpyAsync(reinterpret_cast<CUdeviceptr>(pageable), data, 4, stream));
    REQUIRE(pageable[0] == 8);
}

void frees_areCheckedAndCounted() {
    long long blocks = jmoeEmulatorGet("liveAllocations");
    long long bytes = jmoeEmulatorGet("liveBytes");
    CUdeviceptr data = ints(4, 1);
    CUstream stream = new_stream();
    CUdeviceptr pooled = allocate_async(100, stream);
    REQUIRE(jmoeEmulatorGet("liveAllocations") == blocks + 2);
    REQUIRE(jmoeEmulatorGet("liveBytes") == bytes + 116);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(0));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(data + 4));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFreeAsync(data, stream));
    OK(cuMemFree_v2(data));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(data));
    REQUIRE_TEXT(CUDA_ERROR_INVALID_VALUE, "freed");
    OK(cuMemFreeAsync(pooled, stream));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFreeAsync(pooled, stream));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(pooled));
    OK(cuStreamSynchronize(stream));
    REQUIRE(jmoeEmulatorGet("liveAllocations") == blocks);
    REQUIRE(jmoeEmulatorGet("liveBytes") == bytes);
    int number = 0;
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH_v2(&number, data, 4));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemAlloc_v2(&data, 0));
}

void late_freeBeforeTheCopyIsNoticed() {
    start(late);
    CUdeviceptr data = ints(4, 1);
    int* locked = locked_ints(4, 1);
    CUstream stream = new_stream();
    OK(cuMemcpyHtoDAsync_v2(data, locked, 16, stream));
    OK(cuMemFree_v2(data));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(stream));
    REQUIRE_TEXT(CUDA_ERROR_ILLEGAL_ADDRESS, "freed");
}

void late_hostFreeBeforeTheCopyIsNoticed() {
    start(late);
    CUdeviceptr data = ints(4, 1);
    int* locked = locked_ints(4, 1);
    CUstream stream = new_stream();
    OK(cuMemcpyHtoDAsync_v2(data, locked, 16, stream));
    OK(cuMemFreeHost(locked));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(stream));
    REQUIRE_TEXT(CUDA_ERROR_ILLEGAL_ADDRESS, "page-locked");
}

void late_useBeforeTheAllocationIsNoticed() {
    start(late);
    CUstream first = new_stream();
    CUstream second = new_stream();
    CUdeviceptr data = allocate_async(16, first);
    OK(cuMemsetD8Async(data, 0, 16, second));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(second));
    REQUIRE_TEXT(CUDA_ERROR_ILLEGAL_ADDRESS, "cuMemAllocAsync");
}

void late_useAfterAnOrderedFreeIsNoticed() {
    start(late);
    CUfunction function = kernel("scale_add");
    CUstream stream = new_stream();
    CUdeviceptr data = allocate_async(16, stream);
    OK(cuMemFreeAsync(data, stream));
    OK(launch(function, 1, 128, stream, data, 4, 1, 1));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
    REQUIRE_TEXT(CUDA_ERROR_LAUNCH_FAILED, "parameter 0");
}

void fresh_memoryIsPoisoned() {
    CUdeviceptr data = 0;
    unsigned numbers[4] = {};
    OK(cuMemAlloc_v2(&data, 16));
    OK(cuMemcpyDtoH_v2(numbers, data, 16));
    REQUIRE(numbers[0] == 0xFFFFFFFF && numbers[3] == 0xFFFFFFFF);
    REQUIRE(static_cast<unsigned>(*locked_ints(1, -1)) == 0xFFFFFFFF);
}

void memory_runsOut() {
    size_t free = 0;
    size_t total = 0;
    CUdeviceptr data = 0;
    CUdeviceptr second = 0;
    jmoeEmulatorSet("totalMemory", 1 << 20);
    OK(cuMemGetInfo_v2(&free, &total));
    REQUIRE(total == 1 << 20 && free == total);
    OK(cuMemAlloc_v2(&data, 700 << 10));
    EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&second, 400 << 10));
    OK(cuMemGetInfo_v2(&free, &total));
    REQUIRE(free == 324 << 10);
    OK(cuMemFree_v2(data));
    CUstream stream = new_stream();
    data = allocate_async(700 << 10, stream);
    OK(cuMemFreeAsync(data, stream));
    data = allocate_async(600 << 10, stream);
    OK(cuStreamSynchronize(stream));
    jmoeEmulatorSet("totalMemory", 140LL << 30);
}

void pool_keepsWhatItMay() {
    CUmemoryPool pool = nullptr;
    uint64_t bytes = 0;
    uint64_t all = UINT64_MAX;
    OK(cuDeviceGetDefaultMemPool(&pool, 0));
    OK(cuMemPoolSetAttribute(pool, POOL_RELEASE_THRESHOLD, &all));
    CUstream stream = new_stream();
    CUdeviceptr data = allocate_async(4096, stream);
    OK(cuMemPoolGetAttribute(pool, POOL_USED_MEM_CURRENT, &bytes));
    REQUIRE(bytes == 4096);
    OK(cuMemFreeAsync(data, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuMemPoolGetAttribute(pool, POOL_USED_MEM_CURRENT, &bytes));
    REQUIRE(bytes == 0);
    OK(cuMemPoolGetAttribute(pool, POOL_RESERVED_MEM_CURRENT, &bytes));
    REQUIRE(bytes >= 4096);
    OK(cuMemPoolTrimTo(pool, 0));
    OK(cuMemPoolGetAttribute(pool, POOL_RESERVED_MEM_CURRENT, &bytes));
    REQUIRE(bytes == 0);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemPoolGetAttribute(pool, 99, &bytes));
    all = 0;
    OK(cuMemPoolSetAttribute(pool, POOL_RELEASE_THRESHOLD, &all));
    jmoeEmulatorSet("memoryPools", 0);
    EXPECT(CUDA_ERROR_NOT_SUPPORTED, cuMemAllocAsync(&data, 16, stream));
    jmoeEmulatorSet("memoryPools", 1);
}

void pointers_knowWhatTheyAre() {
    CUdeviceptr data = ints(4, 1);
    int* locked = locked_ints(4, 1);
    unsigned type = 0;
    size_t bytes = 0;
    CUdeviceptr base = 0;
    OK(cuPointerGetAttribute(&type, POINTER_MEMORY_TYPE, data + 4));
    REQUIRE(type == MEMORYTYPE_DEVICE);
    OK(cuPointerGetAttribute(&bytes, POINTER_RANGE_SIZE, data + 4));
    REQUIRE(bytes == 16);
    OK(cuPointerGetAttribute(&type, POINTER_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(locked)));
    REQUIRE(type == MEMORYTYPE_HOST);
    EXPECT(CUDA_ERROR_INVALID_VALUE,
           cuPointerGetAttribute(&type, POINTER_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(&type)));
    OK(cuMemGetAddressRange_v2(&base, &bytes, data + 15));
    REQUIRE(base == data && bytes == 16);
    int attributes[] = {POINTER_MEMORY_TYPE, POINTER_RANGE_SIZE};
    void* values[] = {&type, &bytes};
    OK(cuPointerGetAttributes(2, attributes, values, reinterpret_cast<CUdeviceptr>(&type)));
    REQUIRE(type == 0 && bytes == 0);
}

void registered_memoryIsPageLocked() {
    start(late);
    CUdeviceptr data = ints(1, 0);
    std::vector<int> numbers(100, 5);
    OK(cuMemHostRegister_v2(numbers.data(), 400, 0));
    EXPECT(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister_v2(numbers.data() + 50, 400, 0));
    CUstream stream = new_stream();
    OK(cuMemcpyHtoDAsync_v2(data, numbers.data(), 4, stream));
    numbers[0] = 6;
    OK(cuStreamSynchronize(stream));
    int got = 0;
    OK(cuMemcpyDtoH_v2(&got, data, 4));
    REQUIRE(got == 6);
    OK(cuMemHostUnregister(numbers.data()));
    EXPECT(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(numbers.data()));
}

#ifndef __SANITIZE_ADDRESS__  // which writes one byte of its own for eight of ours
// More floats than an int counts cost nothing until they are touched.
void huge_blocksAreCheap() {
    start(late);
    CUdeviceptr data = 0;
    size_t bytes = 10ULL << 30;
    int number = 7;
    OK(cuMemAlloc_v2(&data, bytes));
    OK(cuMemcpyHtoD_v2(data + bytes - 4, &number, 4));
    number = 0;
    OK(cuMemcpyDtoH_v2(&number, data + bytes - 4, 4));
    REQUIRE(number == 7);
    OK(cuMemFree_v2(data));
}
#endif

}  // namespace

int main() {
    std::vector<Test> tests;
    add(tests, in_every_timing("copies_stayInBounds", copies_stayInBounds));
    add(tests, in_every_timing("host_andDevicePointersAreNotMixedUp", host_andDevicePointersAreNotMixedUp));
    add(tests, in_every_timing("generic_copyFindsOutWhereMemoryLies", generic_copyFindsOutWhereMemoryLies));
    add(tests, in_every_timing("frees_areCheckedAndCounted", frees_areCheckedAndCounted));
    add(tests, in_every_timing("fresh_memoryIsPoisoned", fresh_memoryIsPoisoned));
    add(tests, in_every_timing("memory_runsOut", memory_runsOut));
    add(tests, in_every_timing("pool_keepsWhatItMay", pool_keepsWhatItMay));
    add(tests, in_every_timing("pointers_knowWhatTheyAre", pointers_knowWhatTheyAre));
#ifndef __SANITIZE_ADDRESS__
    tests.push_back({"huge_blocksAreCheap", huge_blocksAreCheap});
#endif
    tests.push_back({"late_freeBeforeTheCopyIsNoticed", late_freeBeforeTheCopyIsNoticed});
    tests.push_back({"late_hostFreeBeforeTheCopyIsNoticed", late_hostFreeBeforeTheCopyIsNoticed});
    tests.push_back({"late_useBeforeTheAllocationIsNoticed", late_useBeforeTheAllocationIsNoticed});
    tests.push_back({"late_useAfterAnOrderedFreeIsNoticed", late_useAfterAnOrderedFreeIsNoticed});
    tests.push_back({"registered_memoryIsPageLocked", registered_memoryIsPageLocked});
    return run_all(tests);
}
