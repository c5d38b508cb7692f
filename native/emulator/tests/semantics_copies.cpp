// The sentences about cp.async, each under its name.
#include "words.h"

using check::computes;
using check::fails_somewhere;
using check::refuses;
using check::refuses_in_race_build;
using check::Words;

namespace {

constexpr check::Shape one_thread = {1, 1};
constexpr check::Shape one_warp = {1, 32};
constexpr check::Shape two_warps = {1, 64};

Words counting(size_t count) {
    Words words(count);
    for (size_t i = 0; i < count; i++) {
        words[i] = uint32_t(i + 1);
    }
    return words;
}

// Every thread copies its word; thread 0 waits for the barrier. in[64]: 0 the plain form, 1 noinc with all in the
// count.
__global__ void copies_arrive(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint32_t, words, [64]);
    JMOE_SHARED(unsigned long long, barrier_word, [1]);
    const uint32_t barrier = ptx::shared_address(barrier_word);
    const bool noinc = in[64] == 1;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, noinc ? 65 : 1);
    }
    __syncthreads();
    ptx::cp_async<4>(ptx::shared_address(&words[threadIdx.x]), in + threadIdx.x);
    if (noinc) {
        ptx::cp_async_mbarrier_arrive_noinc(barrier);
    } else {
        ptx::cp_async_mbarrier_arrive(barrier);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive(barrier);
        ptx::mbarrier_wait(barrier, 0);
        for (int i = 0; i < 64; i++) {
            out[i] = words[i];
        }
    }
    ptx::cp_async_wait_all();
    __syncthreads();
}

// The count leaves the copies out, although noinc does not add them.
__global__ void noinc_not_counted(const uint32_t* in, uint32_t*) {
    JMOE_SHARED(uint32_t, words, [32]);
    JMOE_SHARED(unsigned long long, barrier_word, [1]);
    const uint32_t barrier = ptx::shared_address(barrier_word);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
    }
    __syncthreads();
    ptx::cp_async<4>(ptx::shared_address(&words[threadIdx.x]), in);
    ptx::cp_async_mbarrier_arrive_noinc(barrier);
    ptx::cp_async_wait_all();
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::mbarrier_wait(barrier, 0);
    }
}

// One thread: two groups with an empty one between them; in[8] tells how many may be under way when word in[9] is read.
__global__ void groups(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint32_t, words, [4]);
    const uint32_t place = ptx::shared_address(words);
    for (int i = 0; i < 4; i++) {
        words[i] = 0;
    }
    ptx::cp_async<4>(place, in);
    ptx::cp_async_commit_group();
    ptx::cp_async_commit_group();
    ptx::cp_async<4>(place + 4, in + 1);
    ptx::cp_async_commit_group();
    ptx::cp_async<4>(place + 8, in + 2);
    switch (in[8]) {
        case 0: ptx::cp_async_wait_group<0>(); break;
        case 1: ptx::cp_async_wait_group<1>(); break;
        case 2: ptx::cp_async_wait_group<2>(); break;
        default: ptx::cp_async_wait_group<3>(); break;
    }
    out[0] = words[in[9]];
    ptx::cp_async_wait_all();
    out[1] = words[0] + words[1] + words[2];
}

// Lane i + 1 reads what lane i copied; in[32] chooses whether a barrier stands between.
__global__ void neighbour(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint32_t, words, [64]);
    ptx::cp_async<4>(ptx::shared_address(&words[threadIdx.x]), in + threadIdx.x);
    ptx::cp_async_wait_all();
    if (in[64] == 1) {
        __syncthreads();
    }
    out[threadIdx.x] = words[(threadIdx.x + 1) % 64];
}

template <int BYTES>
__global__ void zero_fill(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint4, piece, [1]);
    piece[0] = make_uint4(~0u, ~0u, ~0u, ~0u);
    ptx::cp_async<BYTES>(ptx::shared_address(piece), in, int(in[4]));
    ptx::cp_async_wait_all();
    out[0] = piece[0].x;
    out[1] = piece[0].y;
    out[2] = piece[0].z;
    out[3] = piece[0].w;
}

__global__ void misaligned(const uint32_t* in, uint32_t*) {
    JMOE_SHARED(uint4, pieces, [2]);
    ptx::cp_async<16>(ptx::shared_address(pieces) + in[0], in + in[1]);
    ptx::cp_async_wait_all();
}

void check_groups() {
    Words in = counting(64);
    in.push_back(0);
    computes<copies_arrive>("cpasync.mbar: plain", two_warps, in, counting(64));
    in[64] = 1;
    computes<copies_arrive>("cpasync.mbar: noinc", two_warps, in, counting(64));
    refuses<noinc_not_counted>("cpasync.mbar: noinc outside of the count", "arriv", one_warp);
    const auto with = [](uint32_t pending, uint32_t word) { return Words{11, 12, 13, 0, 0, 0, 0, 0, pending, word}; };
    computes<groups>("cpasync.groups: none pending", one_thread, with(0, 1), {12, 36});
    computes<groups>("cpasync.groups: the empty one counts", one_thread, with(2, 0), {11, 36});
    fails_somewhere<groups>("cpasync.groups: one too many pending", one_thread, with(3, 0), {11, 36});
    fails_somewhere<groups>("cpasync.groups: newest still pending", one_thread, with(1, 1), {12, 36});
    fails_somewhere<groups>("cpasync.groups: not committed", one_thread, with(0, 2), {13, 36});
}

void check_visibility() {
    Words in = counting(65);
    Words rotated(64);
    for (uint32_t i = 0; i < 64; i++) {
        rotated[i] = (i + 1) % 64 + 1;
    }
    in[64] = 1;
    computes<neighbour>("cpasync.wait_all", two_warps, in, rotated);
    computes<neighbour>("cpasync.visible: after a barrier", two_warps, in, rotated);
    in[64] = 0;
    fails_somewhere<neighbour>("cpasync.visible: without a barrier", two_warps, in, rotated);
    refuses_in_race_build<neighbour>("cpasync.visible: without a barrier, race", "", two_warps, in);
}

void check_fill() {
    const Words data = {0x04030201, 0x08070605, 0x0c0b0a09, 0x100f0e0d};
    const auto with = [&](uint32_t bytes) {
        Words in = data;
        in.push_back(bytes);
        return in;
    };
    computes<zero_fill<16>>("cpasync.zfill 16 of 16", one_thread, with(16), data);
    computes<zero_fill<16>>("cpasync.zfill 6 of 16", one_thread, with(6), {0x04030201, 0x0605, 0, 0});
    computes<zero_fill<16>>("cpasync.zfill 0 of 16", one_thread, with(0), {0, 0, 0, 0});
    computes<zero_fill<8>>("cpasync.zfill 5 of 8", one_thread, with(5), {0x04030201, 0x05, ~0u, ~0u});
    computes<zero_fill<4>>("cpasync.zfill 1 of 4", one_thread, with(1), {0x01, ~0u, ~0u, ~0u});
    refuses<zero_fill<8>>("cpasync.zfill 9 of 8", "src-size 9", one_thread, with(9));
    refuses<misaligned>("cp.async to a misaligned address", "not aligned", one_thread, {8, 0, 0, 0, 0, 0, 0, 0});
    refuses<misaligned>("cp.async from a misaligned address", "not aligned", one_thread, {0, 1, 0, 0, 0, 0, 0, 0});
}

}  // namespace

int main() {
    check_groups();
    check_visibility();
    check_fill();
    return check::result();
}
