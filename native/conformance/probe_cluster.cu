// Clusters of two blocks: multicast, copies and stores into the other block. Each block dumps shared_bytes of its
// shared memory to out + rank * shared_bytes. Launch with a cluster of (2,1,1).
#include "common/ptx.cuh"

#ifdef JMOE_SM90

// Shared memory of 0xee, a barrier of count 1 that expects `bytes`, known to the whole cluster.
__device__ __forceinline__ void prepare(unsigned char* shared, int shared_bytes, uint32_t barrier, int bytes) {
    for (int i = threadIdx.x; i < shared_bytes / 4; i += blockDim.x) {
        reinterpret_cast<uint32_t*>(shared)[i] = 0xeeeeeeee;
    }
    ptx::fence_proxy_async();
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(barrier, bytes);
    }
    ptx::cluster_sync();
}

__device__ __forceinline__ void finish(const unsigned char* shared, int shared_bytes, uint32_t barrier, void* out) {
    ptx::mbarrier_wait_cluster(barrier, 0);
    uint32_t* place = static_cast<uint32_t*>(out) + ptx::cluster_rank() * (shared_bytes / 4);
    for (int i = threadIdx.x; i < shared_bytes / 4; i += blockDim.x) {
        place[i] = reinterpret_cast<const uint32_t*>(shared)[i];
    }
    ptx::cluster_sync();
}

#define JMOE_PROBE(expected, ...)                                            \
    JMOE_DYNAMIC_SHARED(shared);                                             \
    JMOE_SHARED(unsigned long long, barrier_word, [1]);                      \
    const uint32_t barrier = ptx::shared_address(barrier_word);              \
    const uint32_t address = ptx::shared_address(shared);                    \
    const uint32_t rank = ptx::cluster_rank();                               \
    prepare(shared, shared_bytes, barrier, expected);                        \
    if (threadIdx.x == 0) {                                                  \
        __VA_ARGS__;                                                         \
    }                                                                        \
    finish(shared, shared_bytes, barrier, out)
#else
#define JMOE_PROBE(expected, ...)
#endif

// Block r loads the box at row y + r * rows to byte r * box_bytes of both blocks.
extern "C" __global__ void __launch_bounds__(128)
    probe_tma_multicast_2d(const __grid_constant__ ptx::TensorMap map, void* out, int box_bytes, int shared_bytes,
                           int x, int y, int rows) {
    JMOE_PROBE(2 * box_bytes, ptx::tma_load_2d_multicast(address + rank * box_bytes, &map, barrier, x,
                                                          y + int(rank) * rows, 3));
}
JMOE_EXPORT(probe_tma_multicast_2d, 128, 1, 0);

// Block r copies bytes [r * bytes, (r + 1) * bytes) of in to its own shared memory, and from there to the other block.
extern "C" __global__ void __launch_bounds__(128)
    probe_bulk_copy_to_block(const void* in, void* out, int bytes, int shared_bytes) {
#ifdef JMOE_SM90
    JMOE_SHARED(uint4, source, [64]);
    for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
        source[i] = static_cast<const uint4*>(in)[ptx::cluster_rank() * (bytes / 16) + i];
    }
    ptx::fence_proxy_async();
#endif
    JMOE_PROBE(bytes, ptx::bulk_copy_to_block(ptx::mapa(address, rank ^ 1), ptx::shared_address(source), bytes,
                                              ptx::mapa(barrier, rank ^ 1)));
}
JMOE_EXPORT(probe_bulk_copy_to_block, 128, 1, 0);

// Block r stores word r of in to byte 4, and words 4 r .. 4 r + 3 of in to byte 16, of the other block.
extern "C" __global__ void __launch_bounds__(128) probe_store_async(const void* in, void* out, int shared_bytes) {
    JMOE_PROBE(20, const uint32_t* words = static_cast<const uint32_t*>(in);
               const uint32_t there = ptx::mapa(address, rank ^ 1);
               ptx::store_async_u32(there + 4, words[rank], ptx::mapa(barrier, rank ^ 1));
               ptx::store_async_v4_u32(there + 16, static_cast<const uint4*>(in)[rank], ptx::mapa(barrier, rank ^ 1)));
}
JMOE_EXPORT(probe_store_async, 128, 1, 0);

// out: [blocks][4] words: rank, size, what the next block's word holds (100 + its rank), the first word of in.
extern "C" __global__ void __launch_bounds__(32) probe_cluster(const void* in, void* out) {
#ifdef JMOE_SM90
    JMOE_SHARED(uint32_t, word, [1]);
    const uint32_t rank = ptx::cluster_rank();
    const uint32_t size = ptx::cluster_size();
    if (threadIdx.x == 0) {
        word[0] = 100 + rank;
    }
    ptx::cluster_sync();
    const uint32_t mapped = ptx::mapa(ptx::shared_address(word), (rank + 1) % size);
    const uint32_t value = ptx::cluster_load_u32(mapped);
    if (threadIdx.x == 0) {
        uint32_t* place = static_cast<uint32_t*>(out) + 4 * blockIdx.x;
        place[0] = rank;
        place[1] = size;
        place[2] = value;
        place[3] = static_cast<const uint32_t*>(in)[0];
    }
    ptx::cluster_sync();
#endif
}
JMOE_EXPORT(probe_cluster, 32, 1, 0);
