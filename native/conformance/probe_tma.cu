// TMA: a box lands at byte `target` of shared memory, which held 0xee and is dumped afterwards.
#include "common/ptx.cuh"

#ifdef JMOE_SM90

__device__ __forceinline__ void fill_shared(unsigned char* shared, int bytes) {
    for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
        reinterpret_cast<uint4*>(shared)[i] = make_uint4(0xeeeeeeee, 0xeeeeeeee, 0xeeeeeeee, 0xeeeeeeee);
    }
    ptx::fence_proxy_async();
}

__device__ __forceinline__ void dump_shared(const unsigned char* shared, int bytes, void* out) {
    for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
        static_cast<uint4*>(out)[i] = reinterpret_cast<const uint4*>(shared)[i];
    }
}

#define JMOE_LOAD(...)                                                           \
    JMOE_DYNAMIC_SHARED(shared);                                                 \
    JMOE_SHARED(unsigned long long, barrier_word, [1]);                          \
    const uint32_t barrier = ptx::shared_address(barrier_word);                  \
    const uint32_t address = ptx::shared_address(shared) + target;               \
    fill_shared(shared, shared_bytes);                                           \
    if (threadIdx.x == 0) {                                                      \
        ptx::mbarrier_init(barrier, 1);                                          \
        ptx::fence_mbarrier_init();                                              \
    }                                                                            \
    __syncthreads();                                                             \
    if (threadIdx.x == 0) {                                                      \
        ptx::mbarrier_arrive_expect_tx(barrier, box_bytes);                      \
        __VA_ARGS__;                                                             \
    }                                                                            \
    ptx::mbarrier_wait(barrier, 0);                                              \
    dump_shared(shared, shared_bytes, out)
#else
#define JMOE_LOAD(...)
#endif

extern "C" __global__ void __launch_bounds__(128)
    probe_tma_load_1d(const __grid_constant__ ptx::TensorMap map, void* out, int target, int box_bytes,
                      int shared_bytes, int x) {
    JMOE_LOAD(ptx::tma_load_1d(address, &map, barrier, x));
}
JMOE_EXPORT(probe_tma_load_1d, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128)
    probe_tma_load_2d(const __grid_constant__ ptx::TensorMap map, void* out, int target, int box_bytes,
                      int shared_bytes, int x, int y) {
    JMOE_LOAD(ptx::tma_load_2d(address, &map, barrier, x, y));
}
JMOE_EXPORT(probe_tma_load_2d, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128)
    probe_tma_load_3d(const __grid_constant__ ptx::TensorMap map, void* out, int target, int box_bytes,
                      int shared_bytes, int x, int y, int z) {
    JMOE_LOAD(ptx::tma_load_3d(address, &map, barrier, x, y, z));
}
JMOE_EXPORT(probe_tma_load_3d, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128)
    probe_tma_load_4d(const __grid_constant__ ptx::TensorMap map, void* out, int target, int box_bytes,
                      int shared_bytes, int x, int y, int z, int w) {
    JMOE_LOAD(ptx::tma_load_4d(address, &map, barrier, x, y, z, w));
}
JMOE_EXPORT(probe_tma_load_4d, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128)
    probe_tma_load_5d(const __grid_constant__ ptx::TensorMap map, void* out, int target, int box_bytes,
                      int shared_bytes, int x, int y, int z, int w, int v) {
    JMOE_LOAD(ptx::tma_load_5d(address, &map, barrier, x, y, z, w, v));
}
JMOE_EXPORT(probe_tma_load_5d, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128)
    probe_bulk_load(const void* in, void* out, int target, int box_bytes, int shared_bytes) {
    JMOE_LOAD(ptx::bulk_load(address, in, box_bytes, barrier));
}
JMOE_EXPORT(probe_bulk_load, 128, 1, 0);

// Stores: shared memory gets the image, byte for byte; the box is taken from its start.
#ifdef JMOE_SM90
#define JMOE_STORE(...)                                                                         \
    JMOE_DYNAMIC_SHARED(shared);                                                                \
    const uint32_t address = ptx::shared_address(shared);                                       \
    for (int i = threadIdx.x; i < image_bytes / 16; i += blockDim.x) {                          \
        reinterpret_cast<uint4*>(shared)[i] = static_cast<const uint4*>(in)[i];                 \
    }                                                                                           \
    ptx::fence_proxy_async();                                                                   \
    __syncthreads();                                                                            \
    if (threadIdx.x == 0) {                                                                     \
        __VA_ARGS__;                                                                            \
        ptx::bulk_commit_group();                                                               \
        ptx::bulk_wait_group<0>();                                                              \
    }
#else
#define JMOE_STORE(...)
#endif

extern "C" __global__ void __launch_bounds__(128)
    probe_tma_store_2d(const void* in, const __grid_constant__ ptx::TensorMap map, int image_bytes, int x, int y) {
    JMOE_STORE(ptx::tma_store_2d(&map, address, x, y));
}
JMOE_EXPORT(probe_tma_store_2d, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128)
    probe_tma_store_3d(const void* in, const __grid_constant__ ptx::TensorMap map, int image_bytes, int x, int y,
                       int z) {
    JMOE_STORE(ptx::tma_store_3d(&map, address, x, y, z));
}
JMOE_EXPORT(probe_tma_store_3d, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128)
    probe_tma_store_4d(const void* in, const __grid_constant__ ptx::TensorMap map, int image_bytes, int x, int y, int z,
                       int w) {
    JMOE_STORE(ptx::tma_store_4d(&map, address, x, y, z, w));
}
JMOE_EXPORT(probe_tma_store_4d, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128)
    probe_tma_reduce_add_2d(const void* in, const __grid_constant__ ptx::TensorMap map, int image_bytes, int x, int y) {
    JMOE_STORE(ptx::tma_reduce_add_2d(&map, address, x, y));
}
JMOE_EXPORT(probe_tma_reduce_add_2d, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128) probe_bulk_store(const void* in, void* out, int image_bytes) {
    JMOE_STORE(ptx::bulk_store(out, address, image_bytes));
}
JMOE_EXPORT(probe_bulk_store, 128, 1, 0);

extern "C" __global__ void __launch_bounds__(128)
    probe_bulk_reduce_add_f32(const void* in, void* out, int image_bytes) {
    JMOE_STORE(ptx::bulk_reduce_add_f32(static_cast<float*>(out), address, image_bytes));
}
JMOE_EXPORT(probe_bulk_reduce_add_f32, 128, 1, 0);
