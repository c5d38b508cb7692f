// The sentences about warps, atomics, ldmatrix and dependent launches, each under its name.
#include <bit>

#include "words.h"

using check::computes;
using check::fails_somewhere;
using check::refuses;
using check::Words;

namespace {

constexpr check::Shape one_warp = {1, 32};

// out[0]: elected lanes; out[1]: 1 if the second time elects the same.
__global__ void elect(const uint32_t*, uint32_t* out) {
    const bool first = ptx::elect_one();
    const bool second = ptx::elect_one();
    const unsigned elected = __ballot_sync(~0u, first);
    const unsigned again = __ballot_sync(~0u, second);
    if (threadIdx.x == 0) {
        out[0] = uint32_t(__popc(elected));
        out[1] = elected == again;
    }
}

__global__ void elect_is_lane_0(const uint32_t*, uint32_t* out) {
    const bool elected = ptx::elect_one();
    if (threadIdx.x == 0) {
        out[0] = elected;
    }
}

__global__ void shuffles(const uint32_t*, uint32_t* out) {
    const unsigned lane = threadIdx.x;
    out[lane] = __shfl_up_sync(~0u, lane, 33);
    out[32 + lane] = __shfl_xor_sync(~0u, lane, 33);
    out[64 + lane] = __shfl_down_sync(~0u, lane, 33);
    out[96 + lane] = __shfl_sync(~0u, lane, 33 + int(lane));
}

void check_shuffles() {
    Words expected(128);
    for (uint32_t lane = 0; lane < 32; lane++) {
        expected[lane] = lane == 0 ? 0 : lane - 1;
        expected[32 + lane] = lane ^ 1;
        expected[64 + lane] = lane == 31 ? 31 : lane + 1;
        expected[96 + lane] = (lane + 1) % 32;
    }
    computes<shuffles>("shfl.range", one_warp, {}, expected);
}

// Lanes from 20 on are gone; the masks name them still.
__global__ void exited(const uint32_t*, uint32_t* out) {
    if (threadIdx.x >= 20) {
        return;
    }
    out[threadIdx.x] = __shfl_xor_sync(~0u, threadIdx.x, 1);
    const unsigned sum = __reduce_add_sync(~0u, 1u);
    const unsigned equal = __match_any_sync(~0u, 5u);
    __syncwarp();
    if (threadIdx.x == 0) {
        out[20] = sum;
        out[21] = equal;
    }
}

__global__ void reduce(const uint32_t*, uint32_t* out) {
    const int value = int(threadIdx.x) - 16;
    const int largest = __reduce_max_sync(~0u, value);
    const int smallest = __reduce_min_sync(~0u, value);
    const unsigned largest_unsigned = __reduce_max_sync(~0u, unsigned(value));
    const unsigned smallest_unsigned = __reduce_min_sync(~0u, unsigned(value));
    if (threadIdx.x == 0) {
        out[0] = uint32_t(largest);
        out[1] = uint32_t(smallest);
        out[2] = largest_unsigned;
        out[3] = smallest_unsigned;
    }
}

__global__ void match(const uint32_t*, uint32_t* out) {
    const unsigned lane = threadIdx.x;
    const unsigned any = __match_any_sync(~0u, lane % 2);
    const unsigned any_long = __match_any_sync(~0u, 1ull << 40 | lane / 16);
    int equal = 0;
    const unsigned all = __match_all_sync(~0u, 7, &equal);
    int unequal = 1;
    const unsigned none = __match_all_sync(~0u, int(lane), &unequal);
    if (lane == 1) {
        out[0] = any;
        out[1] = any_long;
        out[2] = all;
        out[3] = uint32_t(equal);
        out[4] = none;
        out[5] = uint32_t(unequal);
    }
}

// The smallest float, added to itself, in shared memory and in global memory.
__global__ void subnormals(const uint32_t*, uint32_t* out) {
    JMOE_SHARED(float, sum, [1]);
    const float smallest = __uint_as_float(1);
    sum[0] = smallest;
    atomicAdd(&sum[0], smallest);
    out[0] = __float_as_uint(sum[0]);
    auto* global = reinterpret_cast<float*>(out + 1);
    *global = smallest;
    atomicAdd(global, smallest);
}

// inc wraps to 0 after b, dec to b: results lie in 0 .. b.
__global__ void wrapping(const uint32_t*, uint32_t* out) {
    JMOE_SHARED(unsigned, up, [1]);
    JMOE_SHARED(unsigned, down, [1]);
    if (threadIdx.x == 0) {
        up[0] = 0;
        down[0] = 0;
        out[2] = 0;
    }
    __syncthreads();
    atomicInc(&up[0], 4);
    atomicDec(&down[0], 4);
    atomicAdd(&out[2], 1u);
    __syncthreads();
    if (threadIdx.x == 0) {
        out[0] = up[0];
        out[1] = down[0];
    }
}

enum Matrix { x1, x2, misaligned, lane_exited };

// Lanes that the instruction does not ask give an address outside of everything.
__global__ void load_matrix(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint4, rows, [16]);
    const unsigned lane = threadIdx.x;
    if (lane < 16) {
        rows[lane] = make_uint4(lane, lane + 100, lane + 200, lane + 300);
    }
    __syncthreads();
    const uint32_t how = in[0];
    const unsigned used = how == x2 ? 16 : 8;
    uint32_t address = lane < used ? ptx::shared_address(&rows[lane]) : 0xfffffff0;
    if (how == misaligned && lane == 3) {
        address += 8;
    }
    if (how == lane_exited && lane == 31) {
        return;
    }
    uint32_t matrices[2] = {};
    if (how == x2) {
        ptx::ldmatrix_x2(matrices, address);
    } else {
        uint32_t one[1];
        ptx::ldmatrix_x1(one, address);
        matrices[0] = one[0];
    }
    out[lane] = matrices[0];
    out[32 + lane] = matrices[1];
}

void check_ldmatrix() {
    Words expected(64, 0);
    for (uint32_t lane = 0; lane < 32; lane++) {
        expected[lane] = lane / 4 + 100 * (lane % 4);
    }
    computes<load_matrix>("ldmatrix: x1 asks 8 lanes", one_warp, {x1}, expected);
    for (uint32_t lane = 0; lane < 32; lane++) {
        expected[32 + lane] = expected[lane] + 8;
    }
    computes<load_matrix>("ldmatrix: x2 asks 16 lanes", one_warp, {x2}, expected);
    refuses<load_matrix>("ldmatrix: misaligned row", "not aligned to 16 bytes", one_warp, {misaligned});
    refuses<load_matrix>("ldmatrix: a lane has exited", "ldmatrix", one_warp, {lane_exited});
}

__global__ void dependent(const uint32_t* in, uint32_t* out) {
    ptx::grid_dependency_launch();
    ptx::grid_dependency_wait();
    if (threadIdx.x == 0) {
        out[0] = in[0] + 1;
    }
}

// Grids run one after another, so only the permitted outcome exists here: what the first wrote is there.
void check_dependent_launch() {
    check::passes_always("pdl.wait", [] {
        check::Buffer<uint32_t> values(Words{1, 0, 0});
        std::string error = check::run<dependent>(one_warp, values.data(), values.data() + 1);
        error += check::run<dependent>(one_warp, values.data() + 1, values.data() + 2);
        return error.empty() ? check::compare(values, {1, 2, 3}) : error;
    });
}

}  // namespace

int main() {
    computes<elect>("elect", one_warp, {}, {1, 1});
    fails_somewhere<elect_is_lane_0>("elect: which lane is not specified", one_warp, {0}, {1});
    check_shuffles();
    Words expected(22);
    for (uint32_t lane = 0; lane < 20; lane++) {
        expected[lane] = lane ^ 1;
    }
    expected[20] = 20;
    expected[21] = 0xfffff;
    computes<exited>("sync.exited", one_warp, {}, expected);
    computes<reduce>("redux.signed", one_warp, {}, {15, uint32_t(-16), ~0u, 0});
    computes<match>("match", one_warp, {}, {0xaaaaaaaa, 0xffff, ~0u, 1, 0, 0});
    computes<subnormals>("atom.f32", {1, 1}, {}, {2, 0});
    computes<wrapping>("atom.scope: inc and dec", one_warp, {}, {32 % 5, (5 - 32 % 5) % 5, 32});
    check_ldmatrix();
    check_dependent_launch();
    return check::result();
}
