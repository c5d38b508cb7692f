// What the race build alone can find, and that it leaves correct kernels alone.
#include "async.h"
#include "check.h"
#include "simt.h"

using check::Buffer;
using emulator::Site;

namespace {

// A block's sum by warps, as in a real kernel; `synchronised` leaves out the barrier before the second stage.
template <bool synchronised>
__global__ void block_sum(const int* in, int* out) {
    EMULATOR_SHARED(int, warp_sums, [4]);
    int value = in[blockIdx.x * 128 + threadIdx.x];
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    }
    if (threadIdx.x % 32 == 0) {
        warp_sums[threadIdx.x / 32] = value;
    }
    if (synchronised) {
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        out[blockIdx.x] = warp_sums[0] + warp_sums[1] + warp_sums[2] + warp_sums[3];
    }
}

// Reads what the next thread stored, without and with a barrier before it is overwritten.
template <bool synchronised>
__global__ void shift(int* out) {
    EMULATOR_SHARED(int, values, [64]);
    values[threadIdx.x] = int(threadIdx.x);
    __syncthreads();
    int next = values[(threadIdx.x + 1) % 64];
    if (synchronised) {
        __syncthreads();
    }
    values[threadIdx.x] = next;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

__global__ void all_store_one(int* out) {
    EMULATOR_SHARED(int, counter, [1]);
    counter[0] = 0;
    __syncthreads();
    *out = 1;
}

// Lanes of one warp need __syncwarp between a store and another lane's load.
template <bool synchronised>
__global__ void through_the_warp(int* out) {
    EMULATOR_SHARED(int, values, [32]);
    values[threadIdx.x] = int(threadIdx.x);
    if (synchronised) {
        __syncwarp();
    } else {
        __shfl_sync(0xffffffffu, 0, 0);
    }
    out[threadIdx.x] = values[threadIdx.x ^ 1];
}

__global__ void histogram(const int* in, int* out, int count) {
    EMULATOR_SHARED(int, bins, [8]);
    if (threadIdx.x < 8) {
        bins[threadIdx.x] = 0;
    }
    __syncthreads();
    for (int i = int(threadIdx.x); i < count; i += 64) {
        atomicAdd(&bins[in[i]], 1);
    }
    __syncthreads();
    if (threadIdx.x < 8) {
        atomicAdd(&out[threadIdx.x], bins[threadIdx.x]);
    }
}

__global__ void store_beside_atomic(int* out) {
    if (threadIdx.x == 0) {
        out[0] = 0;
    } else {
        atomicAdd(&out[0], 1);
    }
}

__global__ void past_shared_array() {
    EMULATOR_SHARED(int, first, [8]);
    EMULATOR_SHARED(int, second, [8]);
    if (threadIdx.x == 0) {
        second[0] = 0;
    }
    first[threadIdx.x] = 0;
}

__global__ void past_dynamic_shared() {
    unsigned char* bytes = emulator::dynamic_shared();
    bytes[threadIdx.x] = 0;
}

__global__ void misaligned(char* bytes) { *reinterpret_cast<int*>(bytes + 2) = 1; }

void check_shared() {
    Buffer<int> in(std::vector<int>(256, 1));
    Buffer<int> out(256);
    check::passes<block_sum<true>>("block sum", {2, 128}, in.data(), out.data());
    check::passes<shift<true>>("two barriers around a shift", {1, 64}, out.data());
    check::passes<through_the_warp<true>>("__syncwarp orders memory", {1, 32}, out.data());
    if (!check::is_race_build()) {
        return;
    }
    check::reports<block_sum<false>>("missing __syncthreads", "array warp_sums", {2, 128}, in.data(), out.data());
    check::reports<shift<false>>("missing __syncthreads after a load", "store by thread", {1, 64}, out.data());
    check::reports<all_store_one>("all lanes store one counter", "race on byte 0 of shared array counter", {1, 32},
                                  out.data());
    check::reports<through_the_warp<false>>("a shuffle orders no memory", "array values", {1, 32}, out.data());
    check::reports<past_shared_array>("a store past a shared array", "of first, which has 32", {1, 16});
    check::reports<past_dynamic_shared>("a store past dynamic shared memory", "dynamic shared memory, which has 20",
                                        {1, 32, 20});
    check::reports<misaligned>("a misaligned store", "not aligned", {1, 1}, reinterpret_cast<char*>(out.data()));
}

void check_atomics() {
    Buffer<int> in(std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 1});
    check::passes_always("histogram by atomics", [&] {
        Buffer<int> out(std::vector<int>(8, 0));
        std::string error = check::run<histogram>({3, 64}, in.data(), out.data(), 12);
        return error.empty() && out[0] != 12 ? "wrong count" : error;
    });
    if (check::is_race_build()) {
        Buffer<int> out{0};
        check::reports<store_beside_atomic>("a store beside an atomic", "race on device memory", {1, 2}, out.data());
    }
}

__global__ void neighbours(int* out) { out[threadIdx.x] = int(threadIdx.x); }
__global__ void neighbours_16(short* out) { out[blockIdx.x * 32 + threadIdx.x] = short(threadIdx.x); }
__global__ void every_block_stores(int* out) { out[threadIdx.x] = 1; }

// Reads its neighbour's element while that is being replaced.
__global__ void in_place(int* values) {
    int next = values[threadIdx.x + 1];
    values[threadIdx.x] = next;
}

__global__ void read_other_block(int* values) { values[blockIdx.x] = values[blockIdx.x + 1]; }
__global__ void read_unwritten(const int* in, int* out) { out[threadIdx.x] = in[threadIdx.x]; }

// The last block to come adds up what all have stored. The fences make that legal.
template <bool fenced>
__global__ void last_block_sums(int* partial, int* arrived, int* out) {
    EMULATOR_SHARED(int, is_last, [1]);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = int(blockIdx.x);
        if (fenced) {
            __threadfence();
        }
        is_last[0] = atomicAdd(arrived, 1) == int(gridDim.x) - 1;
        if (fenced) {
            __threadfence();
        }
    }
    __syncthreads();
    if (is_last[0] && threadIdx.x < gridDim.x) {
        atomicAdd(out, partial[threadIdx.x]);
    }
}

enum Missing {
    nothing,
    first_fence,
    fences_of_others,
    first_barrier,
    second_fence,
    second_barrier,
};

// Every thread stores, the last block to arrive reads what the other threads of all blocks have stored. The counter
// is 0 again for the next launch.
__device__ void store_part(int* parts, int launch) {
    parts[blockIdx.x * blockDim.x + threadIdx.x] = int(blockIdx.x) + launch;
}

__device__ int sum_of_parts(const int* parts) {
    int sum = 0;
    for (unsigned block = 0; block < gridDim.x; block++) {
        sum += parts[block * blockDim.x + (threadIdx.x + 33) % blockDim.x];
    }
    return sum;
}

template <Missing missing>
__global__ void last_to_arrive(int* parts, unsigned* arrivals, int* out, int launch) {
    EMULATOR_SHARED(int, is_last, [1]);
    store_part(parts, launch);
    if (missing != first_fence && (missing != fences_of_others || threadIdx.x == 0)) {
        __threadfence();
    }
    if (missing != first_barrier) {
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        is_last[0] = atomicInc(arrivals, gridDim.x - 1) == gridDim.x - 1;
    }
    if (missing != second_fence) {
        __threadfence();
    }
    if (missing != second_barrier) {
        __syncthreads();
    }
    if (is_last[0]) {
        out[threadIdx.x] = sum_of_parts(parts);
    }
}

// The same with the fences of one thread alone, which come after the barrier, and before the next one.
template <Missing missing>
__global__ void last_to_arrive_by_one(int* parts, unsigned* arrivals, int* out, int launch) {
    EMULATOR_SHARED(int, is_last, [1]);
    store_part(parts, launch);
    if (missing != first_barrier) {
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        if (missing != first_fence) {
            __threadfence();
        }
        is_last[0] = atomicInc(arrivals, gridDim.x - 1) == gridDim.x - 1;
        if (missing != second_fence) {
            __threadfence();
        }
    }
    if (missing != second_barrier) {
        __syncthreads();
    }
    if (is_last[0]) {
        out[threadIdx.x] = sum_of_parts(parts);
    }
}

template <auto kernel>
std::string run_arrivals() {
    Buffer<int> parts(8 * 64);
    Buffer<unsigned> arrivals{0};
    Buffer<int> out(64);
    for (int launch = 0; launch < 3; launch++) {
        std::string error = check::run<kernel>({8, 64}, parts.data(), arrivals.data(), out.data(), launch);
        if (!error.empty()) {
            return error;
        }
        for (size_t i = 0; i < 64; i++) {
            if (out[i] != 28 + 8 * launch || arrivals[0] != 0) {
                return emulator::text("sum %d, counter %u", out[i], arrivals[0]);
            }
        }
    }
    return "";
}

void check_arrivals() {
    check::passes_always("the last to arrive goes on", run_arrivals<last_to_arrive<nothing>>);
    check::passes_always("the same with fences of one thread", run_arrivals<last_to_arrive_by_one<nothing>>);
    if (!check::is_race_build()) {
        return;
    }
    const auto reports = [](const char* name, const char* expected, std::string (*once)()) {
        check::reports_somewhere(std::string("the last to arrive: ") + name, expected, once);
    };
    reports("no fence before", "race on device memory", run_arrivals<last_to_arrive<first_fence>>);
    reports("only one thread fences", "race on device memory", run_arrivals<last_to_arrive<fences_of_others>>);
    reports("no barrier before", "race on device memory", run_arrivals<last_to_arrive<first_barrier>>);
    reports("no fence after", "race on device memory", run_arrivals<last_to_arrive<second_fence>>);
    reports("no barrier after", "is_last", run_arrivals<last_to_arrive<second_barrier>>);
    reports("no fence of the one before", "race on device memory", run_arrivals<last_to_arrive_by_one<first_fence>>);
    reports("no barrier before the one", "race on device memory", run_arrivals<last_to_arrive_by_one<first_barrier>>);
    reports("no fence of the one after", "race on device memory", run_arrivals<last_to_arrive_by_one<second_fence>>);
    reports("no barrier after the one", "is_last", run_arrivals<last_to_arrive_by_one<second_barrier>>);
}

void check_device_memory() {
    Buffer<int> out(std::vector<int>(65, 0));
    check::passes<neighbours>("neighbouring elements", {1, 64}, out.data());
    check::passes<neighbours_16>("neighbouring elements of two bytes", {4, 32}, reinterpret_cast<short*>(out.data()));
    check::passes_always("the last block reads the others' results", [] {
        Buffer<int> partial(8);
        Buffer<int> arrived{0};
        Buffer<int> sum{0};
        std::string error = check::run<last_block_sums<true>>({8, 32}, partial.data(), arrived.data(), sum.data());
        return error.empty() && sum[0] != 28 ? "wrong sum" : error;
    });
    if (!check::is_race_build()) {
        return;
    }
    check::reports<every_block_stores>("two blocks store one element", "race on device memory", {2, 64}, out.data());
    check::reports<in_place>("an element read while it is replaced", "race on device memory", {1, 64}, out.data());
    check::reports<read_other_block>("a block reads what another stores", "block (", {8, 1}, out.data());
    check::reports_somewhere("the last block without fences", "race on device memory", [] {
        Buffer<int> partial(8);
        Buffer<int> arrived{0};
        Buffer<int> sum{0};
        return check::run<last_block_sums<false>>({8, 32}, partial.data(), arrived.data(), sum.data());
    });
    check::reports_somewhere("a load of device memory that nobody wrote", "uninitialised device memory", [&] {
        Buffer<int> fresh(64);
        return check::run<read_unwritten>({1, 64}, fresh.data(), out.data());
    });
    check::reports_somewhere("a load of freed memory", "freed since", [&] {
        Buffer<int> stale(std::vector<int>(64, 1));
        emulator::free(emulator::DeviceAddress(stale.data()));
        return check::run<read_unwritten>({1, 64}, stale.data(), out.data());
    });
}

// An asynchronous copy into shared memory: thread 0 starts it, everybody reads the result after a barrier.
template <bool waits, bool fences>
__global__ void copy_later(const int* in, int* out) {
    unsigned char* bytes = emulator::dynamic_shared();
    int* values = reinterpret_cast<int*>(bytes);
    values[threadIdx.x] = -1;
    if (fences) {
        emulator::proxy_fence(emulator::running_agent());
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t to = emulator::shared_address(values);
        auto copy = emulator::defer("copy", Site::here(), nullptr, [=](emulator::AsyncOperation& self) {
            emulator::global_read(self.agent, in, 128, "copy", self.site);
            emulator::shared_write(self.agent, to, 128, emulator::Proxy::async, "copy", self.site);
            std::memcpy(emulator::shared_pointer(*self.block, to, 128, "copy", self.site), in, 128);
        });
        emulator::complete(copy);
        if (waits) {
            copy->finished.acquire(emulator::running_agent());
        }
    }
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

__global__ void never_waits() {
    if (threadIdx.x == 0) {
        emulator::defer("copy", Site::here(), nullptr, [](emulator::AsyncOperation&) {});
    }
}

// Operations of one chain keep their order whatever the timing.
__global__ void chained(int* out) {
    int* order = out;
    for (int i = 0; i < 8; i++) {
        emulator::defer("step", Site::here(), out, [=](emulator::AsyncOperation&) { order[0] = order[0] * 2 + i % 2; });
    }
    __syncthreads();
    while (order[0] < 256) {
        emulator::poll("order", Site::here());
    }
}

void check_async() {
    Buffer<int> in(std::vector<int>(32, 7));
    Buffer<int> out(32);
    check::passes<copy_later<true, true>>("an asynchronous copy", {1, 32, 128}, in.data(), out.data());
    check::equal("its result", out[31], 7);
    check::passes_always("operations of one chain in order", [] {
        Buffer<int> order{1};
        std::string error = check::run<chained>({1, 1}, order.data());
        return error.empty() && order[0] != 256 + 0x55 ? emulator::text("got %#x", order[0]) : error;
    });
    emulator::set_schedule({emulator::in_order, 1, emulator::async_late, 0});
    std::string error = check::run<never_waits>({1, 32});
    bool found = error.find("copy of thread (0,0,0) is still in flight") != std::string::npos;
    check::report("a copy that nobody waits for", found, error);
    if (check::is_race_build()) {
        check::reports<copy_later<false, true>>("a result read without waiting", "an asynchronous operation",
                                                {1, 32, 128}, in.data(), out.data());
        check::reports<copy_later<true, false>>("stores before an asynchronous copy", "fence.proxy.async",
                                                {1, 32, 128}, in.data(), out.data());
    }
}

constexpr int located_line = __LINE__ + 4;

__global__ void located(int* out) {
    EMULATOR_SHARED(int, values, [32]);
    out[0] = values[threadIdx.x];
}

void check_places() {
    if (!check::is_race_build()) {
        return;
    }
    Buffer<int> out(1);
    emulator::set_schedule({});
    std::string error = check::run<located>({1, 32}, out.data());
    std::string expected = emulator::text("kernel checked, races.cpp:%d, block (0,0,0) thread (0,0,0): load",
                                          located_line);
    check::report("a load is reported with its line", error.find(expected) != std::string::npos, error);
}

}  // namespace

int main() {
    check_shared();
    check_atomics();
    check_device_memory();
    check_arrivals();
    check_async();
    check_places();
    return check::result();
}
