// Fibers, indices, barriers, deadlocks.
#include "check.h"
#include "simt.h"

using check::Buffer;

namespace {

__global__ void store_indices(int* out) {
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] = int(block * 1000 + thread);
}

void check_indices() {
    check::passes_always("indices of a three-dimensional grid", [] {
        Buffer<int> out(2 * 3 * 2 * 24);
        std::string error = check::run<store_indices>({{2, 3, 2}, {4, 3, 2}}, out.data());
        for (int i = 0; error.empty() && i < 288; i++) {
            error = out[size_t(i)] == i / 24 * 1000 + i % 24 ? "" : emulator::text("wrong value at %d", i);
        }
        return error;
    });
}

__device__ int deep(int depth) {
    volatile char padding[512] = {};
    padding[depth] = 1;
    return depth == 0 ? padding[0] : 1 + deep(depth - 1) + (padding[depth] - 1);
}

__global__ void use_stack(int* out) {
    int depth = deep(40);
    __syncthreads();
    out[threadIdx.x] = depth;
}

void check_stacks() {
    check::passes_always("stacks keep their values across switches", [] {
        Buffer<int> out(1024);
        std::string error = check::run<use_stack>({1, 1024}, out.data());
        for (size_t i = 0; error.empty() && i < 1024; i++) {
            error = out[i] == 41 ? "" : "wrong value";
        }
        return error;
    });
}

// Each thread passes its value around the block through shared memory.
__global__ void rotate(int* out, int rounds) {
    EMULATOR_SHARED(int, values, [96]);
    unsigned thread = threadIdx.x;
    values[thread] = int(thread);
    __syncthreads();
    for (int round = 0; round < rounds; round++) {
        int next = values[(thread + 1) % 96];
        __syncthreads();
        values[thread] = next;
        __syncthreads();
    }
    out[blockIdx.x * 96 + thread] = values[thread];
}

__global__ void vote(int* out) {
    int thread = int(threadIdx.x);
    out[thread] = __syncthreads_count(thread % 3 == 0);
    out[thread] = out[thread] * 10 + __syncthreads_or(thread == 63);
    out[thread] = out[thread] * 10 + __syncthreads_and(thread < 64);
    out[thread] = out[thread] * 10 + __syncthreads_and(thread < 63);
    out[thread] = out[thread] * 10 + __syncthreads_or(0);
}

// Threads 0..63 hand a value to threads 64..127 without waiting for them.
__global__ void named_barrier(int* out) {
    EMULATOR_SHARED(int, values, [64]);
    if (threadIdx.x < 64) {
        values[threadIdx.x] = int(threadIdx.x) * 3;
        emulator::barrier_arrive(3, 128, emulator::Site::here());
    } else {
        emulator::barrier_sync(3, 128, emulator::Site::here());
        out[threadIdx.x - 64] = values[threadIdx.x - 64];
    }
}

__global__ void add_over_cluster(int* out) {
    unsigned char* mine = emulator::dynamic_shared();
    int* values = reinterpret_cast<int*>(mine);
    if (threadIdx.x == 0) {
        values[0] = int(emulator::current_block().rank) + 1;
    }
    emulator::cluster_arrive(emulator::Site::here());
    emulator::cluster_wait(emulator::Site::here());
    if (threadIdx.x == 0) {
        int sum = 0;
        for (unsigned rank = 0; rank < 4; rank++) {
            uint32_t address = emulator::map_shared_rank(emulator::shared_address(values), rank);
            emulator::shared_read(emulator::running_agent(), address, 4, emulator::Proxy::generic, "ld.shared",
                                  emulator::Site::here());
            int value;
            std::memcpy(&value, emulator::shared_pointer(address, 4, "ld.shared"), 4);
            sum += value;
        }
        out[blockIdx.x] = sum;
    }
    emulator::cluster_arrive(emulator::Site::here());
    emulator::cluster_wait(emulator::Site::here());
}

void check_barriers() {
    check::passes_always("__syncthreads orders shared memory", [] {
        Buffer<int> out(3 * 96);
        std::string error = check::run<rotate>({3, 96}, out.data(), 5);
        for (size_t i = 0; error.empty() && i < 288; i++) {
            error = out[i] == int((i + 5) % 96) ? "" : "wrong value";
        }
        return error;
    });
    check::passes_always("__syncthreads_count, _or, _and", [] {
        Buffer<int> out(64);
        std::string error = check::run<vote>({1, 64}, out.data());
        for (size_t i = 0; error.empty() && i < 64; i++) {
            error = out[i] == 221100 ? "" : emulator::text("got %d", out[i]);
        }
        return error;
    });
    check::passes_always("named barrier, arriving and waiting apart", [] {
        Buffer<int> out(64);
        std::string error = check::run<named_barrier>({1, 128}, out.data());
        return error.empty() && out[63] != 189 ? "wrong value" : error;
    });
    check::passes_always("cluster barrier and the shared memory of other blocks", [] {
        Buffer<int> out(8);
        std::string error = check::run<add_over_cluster>({8, 32, 16, 4}, out.data());
        return error.empty() && (out[0] != 10 || out[7] != 10) ? "wrong sum" : error;
    });
}

__global__ void divergent_barrier() {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

__global__ void exit_before_barrier() {
    if (threadIdx.x == 5) {
        return;
    }
    __syncthreads();
}

__global__ void wrong_counts() { emulator::barrier_sync(1, threadIdx.x < 32 ? 64 : 96, emulator::Site::here()); }

__global__ void odd_count() { emulator::barrier_sync(1, 33, emulator::Site::here()); }

__global__ void cluster_without_wait() {
    emulator::cluster_arrive(emulator::Site::here());
    emulator::cluster_arrive(emulator::Site::here());
}

__global__ void wait_forever() {
    if (threadIdx.x >= 32) {
        emulator::barrier_sync(2, 128, emulator::Site::here());
    }
}

// Lane 16 is waited for by lanes 0..15, and waits itself for a warp that has gone.
__global__ void circle() {
    if (threadIdx.x < 16) {
        __shfl_sync(0x1ffffu, 1, 0);
    } else if (threadIdx.x == 16) {
        emulator::barrier_sync(5, 64, emulator::Site::here());
    }
}

__global__ void poll_forever() {
    EMULATOR_SHARED(int, flag, [1]);
    if (threadIdx.x == 0) {
        flag[0] = 0;
    }
    __syncthreads();
    while (atomicAdd(&flag[0], 0) == 0) {
    }
}

__global__ void spin_lock(int* lock, int* count) {
    while (atomicCAS(lock, 0, 1) != 0) {
    }
    __threadfence();
    *count += 1;
    __threadfence();
    atomicExch(lock, 0);
}

__global__ void trap() { __trap(); }

void check_errors() {
    check::reports<divergent_barrier>("divergent __syncthreads", "two places", {1, 64});
    check::reports<exit_before_barrier>("exit before a barrier", "exit", {1, 64});
    check::reports<wrong_counts>("barrier with two counts", "is used with", {1, 96});
    check::reports<odd_count>("barrier count that is no multiple of 32", "33 threads", {1, 64});
    check::reports<cluster_without_wait>("cluster barrier arrived at twice", "arrive twice", {2, 32, 0, 2});
    check::reports<wait_forever>("deadlock in a named barrier", "barrier 2, 96 of 128 threads have come", {1, 128});
    check::reports<wait_forever>("a deadlock says who has exited",
                                 "32 threads from thread (0,0,0) to thread (31,0,0) have exited", {1, 128});
    check::reports<circle>("deadlock in a warp mask", "mask 0001ffff, lanes 0000ffff have come", {1, 64});
    check::reports<trap>("trap names kernel, line, block and thread", "kernel checked, threads.cpp:", {1, 1});
    check::reports<trap>("trap names block and thread", "block (0,0,0) thread (0,0,0): __trap", {1, 1});
}

void check_polling() {
    emulator::set_schedule({});
    std::string error = check::run<poll_forever>({1, 32});
    check::report("polling forever is reported", error.find("only poll") != std::string::npos, error);
    check::passes_always("spin lock in global memory", [] {
        Buffer<int> lock{0};
        Buffer<int> count{0};
        std::string failure = check::run<spin_lock>({2, 64}, lock.data(), count.data());
        return failure.empty() && count[0] != 128 ? "wrong count" : failure;
    });
}

void check_workers() {
    emulator::set_workers(4);
    check::passes_always("several workers share a grid", [] {
        Buffer<int> out(64 * 96);
        std::string error = check::run<rotate>({64, 96}, out.data(), 2);
        return error.empty() && out[63 * 96] != 2 ? "wrong value" : error;
    });
    emulator::set_workers(1);
}

}  // namespace

int main() {
    check_indices();
    check_stacks();
    check_barriers();
    check_errors();
    check_polling();
    check_workers();
    return check::result();
}
