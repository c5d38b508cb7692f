// Shuffles, votes, matches, reductions, masks, exited lanes, atomics, arithmetic.
#include "check.h"
#include "simt.h"

using check::Buffer;

namespace {

constexpr unsigned whole_warp = 0xffffffffu;

// Runs a kernel of one warp that stores one int per lane, under every schedule.
template <auto kernel, class Expected>
void check_lanes(const std::string& name, Expected expected) {
    check::passes_always(name, [&] {
        Buffer<int> out(32);
        std::string error = check::run<kernel>({1, 32}, out.data());
        for (int lane = 0; error.empty() && lane < 32; lane++) {
            int want = expected(lane);
            if (out[size_t(lane)] != want) {
                error = emulator::text("lane %d got %d, expected %d", lane, out[size_t(lane)], want);
            }
        }
        return error;
    });
}

__global__ void shuffle_index(int* out) {
    out[threadIdx.x] = __shfl_sync(whole_warp, int(threadIdx.x) * 2, 33 + 7, 16);
}

__global__ void shuffle_up(int* out) { out[threadIdx.x] = __shfl_up_sync(whole_warp, int(threadIdx.x), 33); }
__global__ void shuffle_up_8(int* out) { out[threadIdx.x] = __shfl_up_sync(whole_warp, int(threadIdx.x), 3, 8); }
__global__ void shuffle_down(int* out) { out[threadIdx.x] = __shfl_down_sync(whole_warp, int(threadIdx.x), 4, 8); }
__global__ void shuffle_xor(int* out) { out[threadIdx.x] = __shfl_xor_sync(whole_warp, int(threadIdx.x), 33); }

// An earlier segment may be read by xor, a later one may not.
__global__ void shuffle_xor_4(int* out) { out[threadIdx.x] = __shfl_xor_sync(whole_warp, int(threadIdx.x), 4, 4); }

__global__ void shuffle_wide(int* out) {
    double value = __shfl_xor_sync(whole_warp, threadIdx.x + 0.25, 1);
    long long big = __shfl_sync(whole_warp, (1ll << 40) + threadIdx.x, 5);
    out[threadIdx.x] = int(value * 4) + int(big - (1ll << 40)) * 1000;
}

void check_shuffles() {
    check_lanes<shuffle_index>("__shfl_sync in segments", [](int lane) { return ((lane & 16) + 8) * 2; });
    check_lanes<shuffle_up>("__shfl_up_sync takes five bits", [](int lane) { return lane == 0 ? 0 : lane - 1; });
    check_lanes<shuffle_up_8>("__shfl_up_sync in segments", [](int lane) { return lane % 8 < 3 ? lane : lane - 3; });
    check_lanes<shuffle_down>("__shfl_down_sync in segments", [](int lane) { return lane % 8 < 4 ? lane + 4 : lane; });
    check_lanes<shuffle_xor>("__shfl_xor_sync takes five bits", [](int lane) { return lane ^ 1; });
    check_lanes<shuffle_xor_4>("__shfl_xor_sync reads earlier segments",
                               [](int lane) { return (lane & 4) != 0 ? lane ^ 4 : lane; });
    check_lanes<shuffle_wide>("shuffles of 64 bits", [](int lane) { return (lane ^ 1) * 4 + 1 + 5000; });
}

__global__ void votes(int* out) {
    unsigned lane = threadIdx.x;
    int result = __ballot_sync(whole_warp, lane % 2) == 0xaaaaaaaau;
    result = result * 10 + __any_sync(whole_warp, lane == 9);
    result = result * 10 + __all_sync(whole_warp, lane < 32);
    result = result * 10 + __all_sync(whole_warp, lane < 31);
    out[lane] = result * 10 + __any_sync(whole_warp, 0);
}

__global__ void match(int* out) {
    unsigned lane = threadIdx.x;
    int good = __match_any_sync(whole_warp, lane % 4) == 0x11111111u << lane % 4;
    good += __match_any_sync(whole_warp, (unsigned long long)(lane / 16) << 40) == (lane < 16 ? 0xffffu : 0xffff0000u);
    int all = 7;
    good += __match_all_sync(whole_warp, 5, &all) == whole_warp && all == 1;
    good += __match_all_sync(whole_warp, lane / 31, &all) == 0 && all == 0;
    out[lane] = good;
}

__global__ void reduce(int* out) {
    int value = int(threadIdx.x) - 16;
    int good = __reduce_add_sync(whole_warp, value) == -16;
    good += __reduce_min_sync(whole_warp, value) == -16;
    good += __reduce_max_sync(whole_warp, value) == 15;
    good += __reduce_min_sync(whole_warp, unsigned(value)) == 0;
    good += __reduce_max_sync(whole_warp, unsigned(value)) == 0xffffffffu;
    good += __reduce_or_sync(whole_warp, 1u << threadIdx.x % 8) == 0xff;
    good += __reduce_and_sync(whole_warp, ~(1u << threadIdx.x % 8)) == 0xffffff00u;
    good += __reduce_xor_sync(whole_warp, threadIdx.x) == 0;
    out[threadIdx.x] = good;
}

// Both halves work apart, at different speeds.
__global__ void halves(int* out) {
    unsigned mask = threadIdx.x < 16 ? 0xffffu : 0xffff0000u;
    int sum = 0;
    for (int round = 0; round < (threadIdx.x < 16 ? 3 : 5); round++) {
        sum += __reduce_add_sync(mask, 1);
    }
    out[threadIdx.x] = sum;
}

// Lanes that have exited are not waited for, though the mask names them.
__global__ void exited_lanes(int* out) {
    out[threadIdx.x] = 1;
    if (threadIdx.x % 2 == 0) {
        return;
    }
    __syncwarp();
    out[threadIdx.x] = __popc(__ballot_sync(whole_warp, 1)) + __all_sync(whole_warp, 1);
}

void check_votes() {
    check_lanes<votes>("votes", [](int) { return 11100; });
    check_lanes<match>("matches of 32 and 64 bits", [](int) { return 4; });
    check_lanes<reduce>("reductions, signed and unsigned", [](int) { return 8; });
    check_lanes<halves>("two masks in one warp", [](int lane) { return lane < 16 ? 48 : 80; });
    check_lanes<exited_lanes>("exited lanes in a mask", [](int lane) { return lane % 2 == 0 ? 1 : 17; });
}

__global__ void not_in_own_mask() { __syncwarp(0xfffffffeu); }
__global__ void absent_lanes() { __syncwarp(); }

__global__ void different_operations() {
    if (threadIdx.x < 16) {
        __ballot_sync(whole_warp, 1);
    } else {
        __shfl_sync(whole_warp, 1, 0);
    }
}

__global__ void read_outside_mask() {
    if (threadIdx.x < 16) {
        __shfl_sync(0xffffu, 1, 20);
    }
}

__global__ void read_exited() {
    if (threadIdx.x != 3) {
        __shfl_sync(whole_warp, 1, 3);
    }
}

__global__ void odd_width() { __shfl_sync(whole_warp, 1, 0, 12); }

void check_mask_errors() {
    check::reports<not_in_own_mask>("lane outside of its mask", "lane 0 is not in its own mask fffffffe", {1, 32});
    check::reports<absent_lanes>("mask with lanes the block lacks", "names lanes that this warp does not have",
                                 {1, 48});
    check::reports<different_operations>("different operations meet", "meets", {1, 32});
    check::reports<read_outside_mask>("shuffle from outside of the mask", "reads lane 20", {1, 32});
    check::reports<read_exited>("shuffle from an exited lane", "reads lane 3", {1, 32});
    check::reports<odd_width>("shuffle of odd width", "width 12", {1, 32});
}

__global__ void atomics(int* counters, unsigned* wrapped, unsigned long long* wide, float* sum) {
    int thread = int(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(&counters[0], 2);
    atomicSub(&counters[1], 1);
    atomicMin(&counters[2], -thread);
    atomicMax(&counters[3], thread);
    atomicOr(&counters[4], 1 << thread % 16);
    atomicAnd(&counters[5], ~(1 << thread % 16));
    atomicXor(&counters[6], thread);
    atomicInc(&wrapped[0], 9);
    atomicDec(&wrapped[1], 9);
    atomicAdd(&wide[0], 1ull << 33);
    atomicMax(&wide[1], (unsigned long long)thread << 34);
    atomicAdd(sum, 0.5f);
    if (atomicCAS(&counters[7], 0, 1) == 0) {
        atomicExch(&counters[8], 5);
    }
}

void check_atomics() {
    check::passes_always("atomics", [] {
        Buffer<int> counters(std::vector<int>{0, 0, 0, 0, 0, -1, 0, 0, 0});
        Buffer<unsigned> wrapped(std::vector<unsigned>{0, 0});
        Buffer<unsigned long long> wide(std::vector<unsigned long long>{0, 0});
        Buffer<float> sum(std::vector<float>{0});
        std::string error = check::run<atomics>({3, 32}, counters.data(), wrapped.data(), wide.data(), sum.data());
        const int expected[] = {192, -96, -95, 95, 0xffff, -1 & ~0xffff, 0, 1, 5};
        for (size_t i = 0; error.empty() && i < 9; i++) {
            error = counters[i] == expected[i] ? "" : emulator::text("counter %zu is %d", i, counters[i]);
        }
        bool rest = wrapped[0] == 6 && wrapped[1] == 4 && wide[0] == 96ull << 33 && wide[1] == 95ull << 34 &&
                    sum[0] == 48.0f;
        return error.empty() && !rest ? "wrapped, wide or float counter is wrong" : error;
    });
}

// The hardware flushes subnormals in global memory alone.
__global__ void add_subnormals(float* global, float* out) {
    EMULATOR_SHARED(float, shared, [1]);
    shared[0] = 1e-40f;
    atomicAdd(&shared[0], 1e-40f);
    *out = shared[0];
    atomicAdd(global, 1e-40f);
}

__global__ void misaligned_atomic(char* bytes) { atomicAdd(reinterpret_cast<int*>(bytes + 1), 1); }

void check_subnormals() {
    emulator::set_schedule({});
    Buffer<float> global(std::vector<float>{1e-40f});
    Buffer<float> out(1);
    std::string error = check::run<add_subnormals>({1, 1}, global.data(), out.data());
    check::report("atomicAdd of floats flushes subnormals in global memory alone",
                  error.empty() && global[0] == 0.0f && out[0] == 1e-40f + 1e-40f, error);
    Buffer<int> bytes{1, 2};
    check::reports<misaligned_atomic>("misaligned atomic", "not aligned", {1, 1},
                                      reinterpret_cast<char*>(bytes.data()));
}

__global__ void arithmetic(int* out) {
    int good = __popc(0xf0f0u) == 8 && __ffs(8) == 4 && __ffs(0) == 0 && __clz(1) == 31 && __clz(0) == 32;
    good += __brev(1) == 0x80000000u && __byte_perm(0x33221100u, 0x77665544u, 0x7410u) == 0x77441100u;
    good += __float2int_rn(2.5f) == 2 && __float2int_rz(-2.9f) == -2 && __float2int_rn(1e20f) == 0x7fffffff;
    good += __float2int_rn(NAN) == 0 && min(-1, 1u) == 1u && max(2.0f, NAN) == 2.0f;
    good += __umulhi(0x80000000u, 6) == 3 && __float_as_uint(1.0f) == 0x3f800000u;
    out[threadIdx.x] = good;
}

}  // namespace

int main() {
    check_shuffles();
    check_votes();
    check_mask_errors();
    check_atomics();
    check_subnormals();
    check_lanes<arithmetic>("arithmetic intrinsics", [](int) { return 5; });
    return check::result();
}
