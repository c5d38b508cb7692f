// The sentences about wgmma and setmaxnreg, each under its name. Tiles hold ones everywhere: each wgmma adds its k.
#include <bit>

#include "words.h"

using check::computes;
using check::fails_somewhere;
using check::refuses;
using check::refuses_in_race_build;
using check::Words;

namespace {

constexpr check::Shape warpgroup = {1, 128, 16384};

uint32_t bits(float value) { return std::bit_cast<uint32_t>(value); }

Words all(float value) { return Words(128, bits(value)); }

struct Tiles {
    uint64_t a;
    uint64_t b;
};

// Two tiles of 64 x 64 bf16, or 64 x 32 words, of this pattern.
__device__ Tiles tiles_of(uint32_t pattern) {
    JMOE_DYNAMIC_SHARED(shared);
    for (int i = int(threadIdx.x); i < 16384 / 4; i += 128) {
        reinterpret_cast<uint32_t*>(shared)[i] = pattern;
    }
    ptx::fence_proxy_async();
    __syncthreads();
    const uint32_t address = ptx::shared_address(shared);
    return {ptx::k_major_descriptor(address), ptx::k_major_descriptor(address + 8192)};
}

constexpr uint32_t two_ones = 0x3f803f80;

void finish() {
    ptx::wgmma_commit_group();
    ptx::wgmma_wait_group<0>();
}

__device__ bool same(const float* values, int count) {
    for (int i = 1; i < count; i++) {
        if (values[i] != values[0]) {
            return false;
        }
    }
    return true;
}

__device__ void store(uint32_t* out, const float (&d)[32]) {
    out[threadIdx.x] = same(d, 32) ? __float_as_uint(d[0]) : 0;
}

enum Fence { once, none, after_touch, touch_without, touch_after_fence, other_shape, other_shape_fenced };

__global__ void fences(const uint32_t* in, uint32_t* out) {
    const Tiles tiles = tiles_of(two_ones);
    float d[32];
    const uint32_t how = in[0];
    if (how != none) {
        ptx::wgmma_fence();
    }
    ptx::wgmma_bf16<64>(d, tiles.a, tiles.b, 0);
    ptx::wgmma_commit_group();
    if (how == once) {
        ptx::wgmma_bf16<64>(d, tiles.a, tiles.b, 1);
        finish();
        store(out, d);
        return;
    }
    ptx::wgmma_wait_group<0>();
    if (how == other_shape || how == other_shape_fenced) {
        if (how == other_shape_fenced) {
            ptx::wgmma_fence();
        }
        float(&half)[16] = reinterpret_cast<float(&)[16]>(d);
        ptx::wgmma_bf16<32>(half, tiles.a, tiles.b, 1);
        finish();
        out[threadIdx.x] = __float_as_uint(half[0]);
        return;
    }
    if (how == touch_after_fence) {
        ptx::wgmma_fence();
    }
    for (float& value : d) {
        value += 1;
    }
    if (how == after_touch) {
        ptx::wgmma_fence();
    }
    ptx::wgmma_bf16<64>(d, tiles.a, tiles.b, 1);
    finish();
    store(out, d);
}

enum Wait { all_of_them, one_left, none_waited, not_committed, written_early, a_written_early };

__global__ void waits(const uint32_t* in, uint32_t* out) {
    const Tiles tiles = tiles_of(two_ones);
    const uint32_t how = in[0];
    float first[32];
    float second[32];
    uint32_t a[4] = {two_ones, two_ones, two_ones, two_ones};
    ptx::wgmma_fence();
    ptx::wgmma_bf16<64>(first, tiles.a, tiles.b, 0);
    ptx::wgmma_commit_group();
    ptx::wgmma_bf16_registers<64>(second, a, tiles.b, 0);
    if (how != not_committed) {
        ptx::wgmma_commit_group();
    }
    if (how == written_early) {
        second[3] = 1;
    }
    if (how == a_written_early) {
        a[2] = 0;
    }
    if (how == one_left) {
        ptx::wgmma_wait_group<1>();
        store(out, first);
        ptx::wgmma_wait_group<0>();
        return;
    }
    if (how == none_waited) {
        store(out, second);
        ptx::wgmma_wait_group<0>();
        return;
    }
    ptx::wgmma_wait_group<0>();
    store(out, second);
    finish();
}

enum Mistake { no_mistake, thread_differs, warp_differs, reserved_bits, base_offset, outside };

__global__ void descriptors(const uint32_t* in, uint32_t* out) {
    Tiles tiles = tiles_of(two_ones);
    switch (in[0]) {
        case thread_differs: tiles.a += threadIdx.x == 77 ? 2 : 0; break;
        case warp_differs: tiles.b += threadIdx.x / 32 == 2 ? 2 : 0; break;
        case reserved_bits: tiles.a |= 1ull << 14; break;
        case base_offset: tiles.b |= 1ull << 49; break;
        case outside: tiles.b = ptx::k_major_descriptor(0x30000); break;
        default: break;
    }
    float d[32];
    ptx::wgmma_fence();
    ptx::wgmma_bf16<64>(d, tiles.a, tiles.b, 0);
    finish();
    store(out, d);
}

// The products of tf32 see the upper 19 bits of a word.
__global__ void truncation(const uint32_t* in, uint32_t* out) {
    const Tiles tiles = tiles_of(in[0]);
    float d[32];
    ptx::wgmma_fence();
    ptx::wgmma_tf32<64>(d, tiles.a, tiles.b, 0);
    finish();
    store(out, d);
}

// After the wait, ordinary stores may replace the tiles: no fence. The next wgmma needs one again; in[0] tells.
__global__ void rewrite(const uint32_t* in, uint32_t* out) {
    const Tiles tiles = tiles_of(two_ones);
    float d[32];
    ptx::wgmma_fence();
    ptx::wgmma_bf16<64>(d, tiles.a, tiles.b, 0);
    finish();
    __syncthreads();
    JMOE_DYNAMIC_SHARED(shared);
    for (int i = int(threadIdx.x); i < 16384 / 4; i += 128) {
        reinterpret_cast<uint32_t*>(shared)[i] = 0x40004000;
    }
    if (in[0] != 0) {
        ptx::fence_proxy_async();
    }
    __syncthreads();
    ptx::wgmma_fence();
    ptx::wgmma_bf16<64>(d, tiles.a, tiles.b, 1);
    finish();
    store(out, d);
}

template <int... TRANSPOSE>
concept TransposesTf32 = requires(float (&d)[32]) { ptx::wgmma_tf32<64, TRANSPOSE...>(d, 0, 0, 0); };
template <int... TRANSPOSE>
concept TransposesE4m3 = requires(float (&d)[32]) { ptx::wgmma_e4m3<64, TRANSPOSE...>(d, 0, 0, 0); };
template <int... TRANSPOSE>
concept TransposesBf16 = requires(float (&d)[32]) { ptx::wgmma_bf16<64, TRANSPOSE...>(d, 0, 0, 0); };
template <int... TRANSPOSE>
concept TransposesRegisters =
    requires(float (&d)[32], uint32_t (&a)[4]) { ptx::wgmma_bf16_registers<64, TRANSPOSE...>(d, a, 0, 0); };

void check_wgmma() {
    computes<fences>("wgmma.fence: once for a chain, over a commit", warpgroup, {once}, all(32));
    refuses<fences>("wgmma.fence: none", "without a wgmma.fence", warpgroup, {none});
    computes<fences>("wgmma.fence: after a touch", warpgroup, {after_touch}, all(33));
    refuses<fences>("wgmma.fence: touch without", "touched by their threads", warpgroup, {touch_without});
    refuses<fences>("wgmma.fence: touch after it", "touched by their threads", warpgroup, {touch_after_fence});
    refuses<fences>("wgmma.fence: another shape", "another shape", warpgroup, {other_shape});
    computes<fences>("wgmma.fence: another shape, fenced", warpgroup, {other_shape_fenced}, all(32));
    computes<waits>("wgmma.wait", warpgroup, {all_of_them}, all(16));
    computes<waits>("wgmma.wait: one group left", warpgroup, {one_left}, all(16));
    fails_somewhere<waits>("wgmma.wait: read before it", warpgroup, {none_waited}, all(16));
    fails_somewhere<waits>("wgmma.wait: not committed", warpgroup, {not_committed}, all(16));
    refuses<waits>("wgmma.wait: accumulators written before it", "written before", warpgroup, {written_early});
    refuses<waits>("wgmma.wait: A written before it", "registers of A", warpgroup, {a_written_early});
    computes<descriptors>("wgmma.desc", warpgroup, {no_mistake}, all(16));
    refuses<descriptors>("wgmma.desc: differs in a thread", "descriptors differ", warpgroup, {thread_differs});
    refuses<descriptors>("wgmma.desc: differs in a warp", "descriptors differ", warpgroup, {warp_differs});
    refuses<descriptors>("wgmma.desc: bits outside of fields", "outside of its fields", warpgroup, {reserved_bits});
    refuses<descriptors>("wgmma.desc: outside of shared memory", "wgmma", warpgroup, {outside});
    refuses<descriptors>("wgmma.base_offset: other than 0", "base offset 1", warpgroup, {base_offset});
    computes<truncation>("wgmma.tf32", warpgroup, {0x3f801fff}, all(8));
    computes<truncation>("wgmma.tf32: the last bit that counts", warpgroup, {0x3f802000},
                         all(8 * (1 + 0x1p-10f) * (1 + 0x1p-10f)));
    computes<rewrite>("wgmma.proxy", warpgroup, {1}, all(16 + 64));
    refuses_in_race_build<rewrite>("proxy.read: ordinary stores before wgmma", "proxy", warpgroup, {0});
    check::report("wgmma.trans", TransposesBf16<1, 1> && TransposesRegisters<1> && !TransposesRegisters<1, 1> &&
                                     !TransposesTf32<1> && !TransposesE4m3<1>);
}

// The first warpgroup gives registers, the others take them.
enum Registers { balanced, too_many, dec_up, inc_down, twice, twice_synchronised, part_of_warpgroup };

__global__ void registers(const uint32_t* in, uint32_t* out) {
    const bool gives = threadIdx.x < 128;
    switch (in[0]) {
        case balanced:
            if (gives) {
                ptx::setmaxnreg_dec<40>();
            } else {
                ptx::setmaxnreg_inc<232>();
            }
            break;
        case too_many:
            if (gives) {
                ptx::setmaxnreg_dec<40>();
            } else {
                ptx::setmaxnreg_inc<240>();
            }
            break;
        case dec_up: ptx::setmaxnreg_dec<256>(); break;
        case inc_down:
            ptx::setmaxnreg_dec<64>();
            __syncthreads();
            ptx::setmaxnreg_inc<56>();
            break;
        case twice:
            ptx::setmaxnreg_dec<64>();
            ptx::setmaxnreg_dec<40>();
            break;
        case twice_synchronised:
            ptx::setmaxnreg_dec<64>();
            ptx::named_barrier_sync(1 + int(threadIdx.x / 128), 128);
            ptx::setmaxnreg_dec<40>();
            break;
        default:
            if (threadIdx.x >= 32) {
                ptx::setmaxnreg_dec<40>();
            }
            break;
    }
    out[threadIdx.x] = 1;
}

std::string run_registers(int threads, Registers how) {
    check::Buffer<uint32_t> in(Words{uint32_t(how)});
    check::Buffer<uint32_t> out(size_t{512});
    return check::run_bounded<registers>(threads, {1, unsigned(threads)}, in.data(), out.data());
}

void check_registers() {
    const auto passes = [](const char* name, int threads, Registers how) {
        check::passes_always(name, [=] { return run_registers(threads, how); });
    };
    const auto reports = [](const char* name, const char* expected, int threads, Registers how) {
        check::reports_somewhere(name, expected, [=] { return run_registers(threads, how); });
    };
    // 384 threads start with 168 registers each: 40 + 2 * 232 fit in 3 * 168, 40 + 2 * 240 do not.
    passes("setmaxnreg", 384, balanced);
    reports("setmaxnreg: more than the pool", "deadlock", 384, too_many);
    passes("setmaxnreg: twice, with a barrier", 256, twice_synchronised);
    reports("setmaxnreg: twice", "has not synchronised", 256, twice);
    reports("setmaxnreg: dec to more", "setmaxnreg.dec 256", 384, dec_up);
    reports("setmaxnreg: inc to fewer", "setmaxnreg.inc 56", 256, inc_down);
    reports("setmaxnreg: by a part of the warpgroup", "", 256, part_of_warpgroup);
    refuses<registers>("setmaxnreg: no launch bounds", "without launch bounds", {1, 256}, {balanced});
}

}  // namespace

int main() {
    check_wgmma();
    check_registers();
    return check::result();
}
