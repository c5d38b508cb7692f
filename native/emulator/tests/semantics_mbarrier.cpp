// The sentences about mbarriers, each under its name.
#include "words.h"

using check::computes;
using check::fails_somewhere;
using check::refuses;
using check::refuses_in_race_build;

namespace {

constexpr check::Shape one_thread = {1, 1};
constexpr check::Shape one_warp = {1, 32};

#define JMOE_BARRIER(name)                              \
    JMOE_SHARED(unsigned long long, name##_word, [1]);  \
    const uint32_t name = ptx::shared_address(name##_word)

__global__ void fresh_barrier(const uint32_t*, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 3);
    out[0] = ptx::mbarrier_test_wait(barrier, 1);
    out[1] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_wait(barrier, 1);
}

__global__ void phases(const uint32_t*, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 2);
    ptx::mbarrier_arrive(barrier);
    ptx::mbarrier_expect_tx(barrier, 8);
    out[0] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_arrive(barrier);
    out[1] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_complete_tx(barrier, 8);
    out[2] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_arrive(barrier);
    out[3] = ptx::mbarrier_test_wait(barrier, 1);
    ptx::mbarrier_arrive(barrier);
    out[4] = ptx::mbarrier_test_wait(barrier, 1);
}

__global__ void too_many_arrivals(const uint32_t*, uint32_t*) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 2);
    ptx::mbarrier_arrive_count(barrier, 3);
}

__global__ void completed_before_expected(const uint32_t*, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 1);
    ptx::mbarrier_complete_tx(barrier, 64);
    out[0] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_expect_tx(barrier, 64);
    out[1] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_arrive(barrier);
    out[2] = ptx::mbarrier_test_wait(barrier, 0);
}

__global__ void too_many_bytes(const uint32_t* in, uint32_t*) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 1);
    ptx::mbarrier_expect_tx(barrier, 1048575);
    ptx::mbarrier_expect_tx(barrier, in[0]);
}

__global__ void arrive_expects_first(const uint32_t*, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 1);
    ptx::mbarrier_arrive_expect_tx(barrier, 16);
    out[0] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_complete_tx(barrier, 16);
    out[1] = ptx::mbarrier_test_wait(barrier, 0);
}

// The late expect belongs to the next phase: bytes of phase 0 make its count negative, and it takes them back.
__global__ void late_expect(const uint32_t*, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 1);
    ptx::mbarrier_arrive(barrier);
    out[0] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_complete_tx(barrier, 16);
    ptx::mbarrier_arrive(barrier);
    out[1] = ptx::mbarrier_test_wait(barrier, 1);
    ptx::mbarrier_expect_tx(barrier, 16);
    out[2] = ptx::mbarrier_test_wait(barrier, 1);
}

__global__ void parity_window(const uint32_t*, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 1);
    ptx::mbarrier_arrive(barrier);
    out[0] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_arrive(barrier);
    out[1] = ptx::mbarrier_test_wait(barrier, 0);  // phase 0 has finished, but the window has moved on
    out[2] = ptx::mbarrier_test_wait(barrier, 1);
}

// One thread waits for phase 0 after phase 1 has completed: it waits for ever.
__global__ void late_waiter(const uint32_t*, uint32_t*) {
    JMOE_BARRIER(barrier);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
        ptx::mbarrier_arrive(barrier);
        ptx::mbarrier_wait(barrier, 0);
        ptx::mbarrier_arrive(barrier);
    }
    __syncthreads();
    if (threadIdx.x == 1) {
        ptx::mbarrier_wait(barrier, 0);
    }
}

__global__ void unobserved(const uint32_t* in, uint32_t*) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 1);
    ptx::mbarrier_arrive(barrier);
    if (in[0] != 0) {
        ptx::mbarrier_wait(barrier, 0);
    }
    ptx::mbarrier_arrive(barrier);
}

// Thread 32 stores and arrives; thread 0 tries to wait, again and again or once.
__global__ void hand_over(const uint32_t* in, uint32_t* out) {
    JMOE_BARRIER(barrier);
    JMOE_SHARED(uint32_t, value, [1]);
    if (threadIdx.x == 0) {
        value[0] = 0;
        ptx::mbarrier_init(barrier, 1);
    }
    __syncthreads();
    if (threadIdx.x == 32) {
        value[0] = 42;
        ptx::mbarrier_arrive(barrier);
    }
    if (threadIdx.x == 0) {
        bool done = ptx::mbarrier_try_wait(barrier, 0);
        while (in[0] != 0 && !done) {
            done = ptx::mbarrier_try_wait(barrier, 0);
        }
        out[0] = done ? 42 : 0;
    }
    __syncthreads();
    if (threadIdx.x == 0 && out[0] == 42) {
        out[0] = value[0];
    }
}

__global__ void test_wait_polls(const uint32_t*, uint32_t* out) {
    JMOE_BARRIER(barrier);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        while (!ptx::mbarrier_test_wait(barrier, 0)) {
        }
        out[0] = 1;
    }
    if (threadIdx.x == 1) {
        ptx::mbarrier_arrive(barrier);
    }
}

__global__ void init_count(const uint32_t* in, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, in[0]);
    ptx::mbarrier_arrive_count(barrier, in[0]);
    out[0] = ptx::mbarrier_test_wait(barrier, 0);
}

__global__ void init_again(const uint32_t* in, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 1);
    if (in[0] != 0) {
        ptx::mbarrier_inval(barrier);
    }
    ptx::mbarrier_init(barrier, 1);
    out[0] = ptx::mbarrier_test_wait(barrier, 1);
}

__global__ void store_over(const uint32_t* in, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 1);
    if (in[0] != 0) {
        ptx::mbarrier_inval(barrier);
        barrier_word[0] = 7;
        out[0] = uint32_t(barrier_word[0]);
        return;
    }
    *const_cast<volatile unsigned long long*>(barrier_word) = 7;
    ptx::mbarrier_arrive(barrier);
}

__global__ void drop(const uint32_t*, uint32_t* out) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_init(barrier, 3);
    ptx::mbarrier_arrive_drop(barrier);
    out[0] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_arrive_count(barrier, 2);
    out[1] = ptx::mbarrier_test_wait(barrier, 0);
    ptx::mbarrier_arrive_count(barrier, 2);
    out[2] = ptx::mbarrier_test_wait(barrier, 1);
}

__global__ void no_init(const uint32_t*, uint32_t*) {
    JMOE_BARRIER(barrier);
    ptx::mbarrier_arrive(barrier);
}

void check_phases() {
    computes<fresh_barrier>("mbar.init", one_thread, {}, {1, 0});
    refuses<no_init>("mbar.init: use without it", "is not initialised", one_thread);
    computes<phases>("mbar.complete", one_thread, {}, {0, 0, 1, 0, 1});
    refuses<too_many_arrivals>("mbar.complete: too many arrivals", "more arrivals than its count", one_thread);
    computes<completed_before_expected>("mbar.tx_negative", one_thread, {}, {0, 0, 1});
    refuses<too_many_bytes>("mbar.tx_negative: out of range", "bytes outstanding", one_thread, {1});
    computes<too_many_bytes>("mbar.tx_negative: the whole range", one_thread, {0}, {});
    computes<arrive_expects_first>("mbar.arrive_expect", one_thread, {}, {0, 1});
    computes<late_expect>("mbar.late_expect", one_thread, {}, {1, 0, 1});
    computes<parity_window>("mbar.parity_window", one_thread, {}, {1, 0, 1});
    refuses<late_waiter>("mbar.parity_window: two phases late", "deadlock", one_warp);
}

void check_rules() {
    computes<unobserved>("mbar.observe", one_thread, {1}, {});
    refuses<unobserved>("mbar.observe: nobody looked", "no wait has returned true", one_thread, {0});
    computes<hand_over>("mbar.spurious: with a loop", {1, 64}, {1}, {42});
    fails_somewhere<hand_over>("mbar.spurious: without a loop", {1, 64}, {0}, {42});
    computes<test_wait_polls>("mbar.spurious: test_wait does not block", one_warp, {}, {1});
    for (uint32_t count : {1u, 2u, 65536u, 1048575u}) {
        computes<init_count>("mbar.range " + std::to_string(count), one_thread, {count}, {1});
    }
    refuses<init_count>("mbar.range: 0", "count 0", one_thread, {0});
    refuses<init_count>("mbar.range: 1048576", "count 1048576", one_thread, {1048576});
    computes<init_again>("mbar.reuse: inval, then init", one_thread, {1}, {1});
    refuses<init_again>("mbar.reuse: init over a live one", "is alive", one_thread, {0});
    computes<store_over>("mbar.reuse: inval, then store", one_thread, {1}, {7});
    refuses<store_over>("mbar.reuse: store over a live one", "mbarrier", one_thread, {0});
    computes<drop>("mbar.drop", one_thread, {}, {0, 1, 1});
}

// Cluster of two. Block 1 uses the barrier of block 0; in[0] chooses how.
__global__ void remote(const uint32_t* in, uint32_t* out) {
    JMOE_BARRIER(barrier);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 2);
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_sync();
    const uint32_t there = ptx::mapa(barrier, 0);
    if (ptx::cluster_rank() == 1 && threadIdx.x == 0) {
        if (in[0] == 1) {
            ptx::mbarrier_wait(there, 0);
        }
        ptx::mbarrier_expect_tx_remote(there, 32);
        ptx::mbarrier_arrive_remote(there);
        ptx::mbarrier_complete_tx_remote(there, 32);
    }
    if (ptx::cluster_rank() == 0 && threadIdx.x == 0) {
        ptx::mbarrier_arrive(barrier);
        ptx::mbarrier_wait(barrier, 0);
        out[0] = 1;
    }
    ptx::cluster_sync();
}

// Block 1 stores a word into block 0 and arrives there; in[0]: 0 release and acquire at cluster scope, 1 short arrive,
// 2 wait at the scope of the block.
__global__ void cross_block(const uint32_t* in, uint32_t* out) {
    JMOE_BARRIER(barrier);
    JMOE_SHARED(uint32_t, value, [1]);
    if (threadIdx.x == 0) {
        value[0] = 0;
        ptx::mbarrier_init(barrier, 1);
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_sync();
    if (threadIdx.x == 0 && ptx::cluster_rank() == 1) {
        ptx::cluster_store_u32(ptx::mapa(ptx::shared_address(value), 0), 42);
        if (in[0] == 1) {
            ptx::mbarrier_arrive_remote(ptx::mapa(barrier, 0));
        } else {
            ptx::mbarrier_arrive_remote_release(ptx::mapa(barrier, 0));
        }
    }
    if (threadIdx.x == 0 && ptx::cluster_rank() == 0) {
        if (in[0] == 2) {
            ptx::mbarrier_wait(barrier, 0);
        } else {
            ptx::mbarrier_wait_cluster(barrier, 0);
        }
        out[0] = value[0];
    }
    ptx::cluster_sync();
}

void check_clusters() {
    const check::Shape pair = {2, 32, 0, 2};
    computes<remote>("mbar.remote", pair, {0}, {1});
    refuses<remote>("mbar.remote: waiting on it", "belongs to another block", pair, {1});
    computes<cross_block>("mbar.scope", pair, {0}, {42});
    refuses_in_race_build<cross_block>("mbar.scope: arrive without release.cluster", "race", pair, {1});
    refuses_in_race_build<cross_block>("mbar.scope: wait without acquire.cluster", "race", pair, {2});
}

}  // namespace

int main() {
    check_phases();
    check_rules();
    check_clusters();
    return check::result();
}
