// Programmatic dependent launch: what an early launch must not touch before griddepcontrol.wait, and whom a wait
// serves.
#include "words.h"

using check::Buffer;
using check::Stream;
using check::Words;

namespace {

constexpr check::Shape two_warps = {2, 64};
constexpr uint32_t num_words = 128;
constexpr uint32_t nothing = 1000;  // a value that occurs nowhere

constexpr int producer_line = __LINE__ + 6;

// out[i] = in[i] + 1
__global__ void producer(const uint32_t* in, uint32_t* out) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    ptx::grid_dependency_launch();
    out[i] = in[i] + 1;
}

enum How {
    all_wait,
    one_waits_before_a_barrier,
    one_waits_before_an_mbarrier,
    trigger_before_the_wait,
    other_memory_before_the_wait,
    prefetch_before_the_wait,
    bulk_load_after_the_wait,
    last_that_passes = bulk_load_after_the_wait,
    no_wait,
    load_before_the_wait,
    wait_of_the_other_warp,
    wait_after_the_barrier,
    bulk_load_before_the_wait,
    copy_before_the_wait,
    last_load_that_fails = copy_before_the_wait,
    store_over_what_was_stored,
    store_over_what_was_loaded,
    bulk_store_before_the_wait,
    atomic_before_the_wait,
};

// Thread 0 issues a bulk copy of 16 bytes.
__device__ void load_in_bulk(const uint32_t* in, uint4* piece, uint32_t barrier) {
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect_tx(barrier, 16);
        ptx::bulk_load(ptx::shared_address(piece), in, 16, barrier);
    }
}

__device__ void hand_over_by_mbarrier(uint32_t barrier) {
    if (threadIdx.x == 0) {
        ptx::grid_dependency_wait();
        ptx::mbarrier_arrive(barrier);
    }
    ptx::mbarrier_wait(barrier, 0);
}

// y[i] = factors[i] * x[i], where another launch makes x. `mistakes` is for stores that come too soon.
__global__ void consumer(const uint32_t* x, const uint32_t* factors, uint32_t* y, uint32_t* mistakes, int how) {
    JMOE_SHARED(uint4, piece, [1]);
    JMOE_SHARED(unsigned long long, barrier_word, [1]);
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t barrier = ptx::shared_address(barrier_word);
    uint32_t factor = 0;
    uint32_t early = 0;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
    }
    __syncthreads();
    switch (how) {
        case one_waits_before_a_barrier:
            if (threadIdx.x == 40) {
                ptx::grid_dependency_wait();
            }
            __syncthreads();
            break;
        case one_waits_before_an_mbarrier: hand_over_by_mbarrier(barrier); break;
        case trigger_before_the_wait: ptx::grid_dependency_launch(); break;
        case other_memory_before_the_wait:
            factor = factors[i];
            y[i] = 0;
            break;
        case prefetch_before_the_wait: ptx::bulk_prefetch(x, 64); break;
        case load_before_the_wait: early = x[i]; break;
        case wait_of_the_other_warp:
            if (threadIdx.x < 32) {
                ptx::grid_dependency_wait();
            }
            break;
        case wait_after_the_barrier:
            __syncthreads();
            if (threadIdx.x == 40) {
                ptx::grid_dependency_wait();
            }
            break;
        case bulk_load_before_the_wait: load_in_bulk(x, piece, barrier); break;
        case copy_before_the_wait:
            if (threadIdx.x == 0) {
                ptx::cp_async<4>(ptx::shared_address(piece), x);
                ptx::cp_async_wait_all();
            }
            break;
        case store_over_what_was_stored:
        case store_over_what_was_loaded: mistakes[i] = 1; break;
        case bulk_store_before_the_wait:
            if (threadIdx.x == 0) {
                piece[0] = make_uint4(1, 2, 3, 4);
                ptx::fence_proxy_async();
                ptx::bulk_store(mistakes + 4 * blockIdx.x, ptx::shared_address(piece), 16);
                ptx::bulk_commit_group();
                ptx::bulk_wait_group<0>();
            }
            break;
        case atomic_before_the_wait: atomicAdd(&mistakes[0], 1u); break;
        default: break;
    }
    const bool has_waited = how == no_wait || how == one_waits_before_a_barrier || how == wait_of_the_other_warp ||
                            how == one_waits_before_an_mbarrier || how == wait_after_the_barrier;
    if (!has_waited) {
        ptx::grid_dependency_wait();
    }
    if (how == bulk_load_after_the_wait) {
        load_in_bulk(x, piece, barrier);
        ptx::mbarrier_wait(barrier, 0);
        early = piece[0].x;
    }
    if (how == bulk_load_before_the_wait) {
        ptx::mbarrier_wait(barrier, 0);
    }
    y[i] = (factor == 0 ? factors[i] : factor) * (early == nothing ? 0 : x[i]);
}

struct Memory {
    Buffer<uint32_t> in{Words(num_words, 4)};
    Buffer<uint32_t> x = Buffer<uint32_t>(num_words);
    Buffer<uint32_t> factors{Words(num_words, 10)};
    Buffer<uint32_t> y = Buffer<uint32_t>(num_words);
};

std::string run_pair(How how, bool early) {
    Memory memory;
    Stream stream;
    std::string error = stream.run<producer>(two_warps, memory.in.data(), memory.x.data());
    if (!error.empty()) {
        return error;
    }
    uint32_t* mistakes = how == store_over_what_was_loaded ? memory.in.data() : memory.x.data();
    const auto run = [&](auto launch) {
        return launch(two_warps, memory.x.data(), memory.factors.data(), memory.y.data(), mistakes, int(how));
    };
    error = early ? run([&](auto... values) { return stream.run_early<consumer>(values...); })
                  : run([&](auto... values) { return stream.run<consumer>(values...); });
    const bool right = how > last_load_that_fails || memory.y[num_words - 1] == 50;
    return error.empty() && !right ? "wrong product" : error;
}

const char* name_of(How how) {
    switch (how) {
        case all_wait: return "all threads wait";
        case one_waits_before_a_barrier: return "one thread waits before a barrier";
        case one_waits_before_an_mbarrier: return "one thread waits before it arrives at an mbarrier";
        case trigger_before_the_wait: return "launch_dependents before the wait";
        case other_memory_before_the_wait: return "before the wait, memory that nobody else touches";
        case prefetch_before_the_wait: return "a prefetch before the wait";
        case bulk_load_after_the_wait: return "a bulk load after the wait";
        case no_wait: return "no wait at all";
        case load_before_the_wait: return "a load before the wait";
        case wait_of_the_other_warp: return "the wait of another warp, without a barrier";
        case wait_after_the_barrier: return "the wait of another warp, after the barrier";
        case bulk_load_before_the_wait: return "a bulk load before the wait";
        case copy_before_the_wait: return "cp.async before the wait";
        case store_over_what_was_stored: return "a store before the wait over what was stored";
        case store_over_what_was_loaded: return "a store before the wait over what was loaded";
        case bulk_store_before_the_wait: return "a bulk store before the wait";
        case atomic_before_the_wait: return "an atomic before the wait";
    }
    return "";
}

void check_pairs() {
    for (int how = 0; how <= atomic_before_the_wait; how++) {
        const std::string name = name_of(How(how));
        if (how <= last_load_that_fails) {
            check::passes_always("ordinary launch: " + name, [=] { return run_pair(How(how), false); });
        }
        if (how <= last_that_passes) {
            check::passes_always(name, [=] { return run_pair(How(how), true); });
        } else if (check::is_race_build()) {
            const bool over_a_load = how == store_over_what_was_loaded;
            const char* earlier = over_a_load ? "after a load by kernel checked at early_launches"
                                              : "after a store by kernel checked at early_launches";
            check::reports_somewhere(name, earlier, [=] { return run_pair(How(how), true); });
        }
    }
    check::reports_somewhere(std::string("no wait, and nothing to wait for"), "ends without griddepcontrol.wait", [] {
        Memory memory;
        Buffer<uint32_t> other(Words(num_words, 1));
        Stream stream;
        stream.run<producer>(two_warps, memory.in.data(), memory.x.data());
        return stream.run_early<producer>(two_warps, memory.factors.data(), other.data());
    });
}

// out[i] = in[i] + 1, with a look at `look` before the wait
__global__ void relay(const uint32_t* in, uint32_t* out, const uint32_t* look) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t seen = look == nullptr ? 0 : look[i];
    ptx::grid_dependency_wait();
    ptx::grid_dependency_launch();
    out[i] = seen == nothing ? 0 : in[i] + 1;
}

// Three launches; the last one looks at what the first stored.
std::string run_chain(bool middle_is_early, bool looks_before_the_wait) {
    Memory memory;
    Buffer<uint32_t> out(num_words);
    const uint32_t* none = nullptr;
    Stream stream;
    std::string error = stream.run<producer>(two_warps, memory.in.data(), memory.x.data());
    if (error.empty()) {
        error = middle_is_early ? stream.run_early<relay>(two_warps, memory.factors.data(), memory.y.data(), none)
                                : stream.run<relay>(two_warps, memory.factors.data(), memory.y.data(), none);
    }
    if (error.empty()) {
        error = stream.run_early<relay>(two_warps, memory.x.data(), out.data(),
                                        looks_before_the_wait ? memory.x.data() : none);
    }
    return error.empty() && out[5] != 6 ? "wrong sum" : error;
}

void check_chains() {
    check::passes_always("a chain of three", [] { return run_chain(true, false); });
    check::passes_always("in front of an ordinary launch all have ended", [] { return run_chain(false, true); });
    if (check::is_race_build()) {
        check::reports_somewhere("the launch before the last may still be running", "by kernel checked at",
                                 [] { return run_chain(true, true); });
    }
}

// Block 0 waits; block 1, where it comes last, learns of that before its own wait.
template <bool fenced>
__global__ void learns_from_block_0(const uint32_t* x, uint32_t* arrivals, uint32_t* y) {
    if (blockIdx.x == 0) {
        ptx::grid_dependency_wait();
        if (fenced) {
            __threadfence();
        }
    }
    const bool last = atomicInc(arrivals, 1) == 1;
    if (fenced) {
        __threadfence();
    }
    if (last && blockIdx.x == 1) {
        y[0] = x[0];
    }
    ptx::grid_dependency_wait();
}

template <bool fenced>
std::string run_blocks() {
    Memory memory;
    Buffer<uint32_t> arrivals{0};
    Stream stream;
    std::string error = stream.run<producer>(two_warps, memory.in.data(), memory.x.data());
    return error.empty() ? stream.run_early<learns_from_block_0<fenced>>({2, 1}, memory.x.data(), arrivals.data(),
                                                                         memory.y.data())
                         : error;
}

void check_blocks() {
    check::passes_always("a wait handed on by fences around an atomic", [] { return run_blocks<true>(); });
    if (check::is_race_build()) {
        check::reports_somewhere("a wait is not handed on without fences", "griddepcontrol.wait comes before it",
                                 [] { return run_blocks<false>(); });
    }
}

constexpr int hasty_line = __LINE__ + 4;

// Everything in one line of the report.
__global__ void hasty(const uint32_t* x, uint32_t* y) {
    y[0] = x[0];
    ptx::grid_dependency_wait();
}

void check_report() {
    if (!check::is_race_build()) {
        return;
    }
    emulator::set_schedule({});
    Memory memory;
    Stream stream;
    stream.run<producer>(two_warps, memory.in.data(), memory.x.data());
    const std::string error = stream.run_early<hasty>({1, 1}, memory.x.data(), memory.y.data());
    const std::string start = emulator::text("kernel checked, early_launches.cpp:%d, block (0,0,0) thread (0,0,0): "
                                             "race on device memory at 0x", hasty_line);
    const std::string end = emulator::text(": load after a store by kernel checked at early_launches.cpp:%d, a launch "
                                           "in front of this one that may still be running: griddepcontrol.wait comes "
                                           "before it", producer_line);
    const bool good = error.find(start) == 0 && error.size() > end.size() &&
                      error.compare(error.size() - end.size(), end.size(), end) == 0;
    check::report("the report of an overlap", good, error);
}

}  // namespace

int main() {
    check_pairs();
    check_chains();
    check_blocks();
    check_report();
    return check::result();
}
