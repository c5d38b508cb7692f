// The sentences about clusters, each under its name.
#include "ptx_tensor_map.h"
#include "words.h"

using check::Buffer;
using check::computes;
using check::fails_somewhere;
using check::refuses;
using check::refuses_in_race_build;
using check::Words;

namespace {

constexpr check::Shape pair = {2, 32, 2048, 2};

#define JMOE_CLUSTER_BARRIER(name, count)                           \
    JMOE_SHARED(unsigned long long, name##_word, [1]);              \
    const uint32_t name = ptx::shared_address(name##_word);         \
    if (threadIdx.x == 0) {                                         \
        ptx::mbarrier_init(name, count);                            \
    }

enum Multicast { both, not_the_issuer, unexpected, no_init_fence, outside };

// Block 0 loads 64 bytes for itself and for block 1.
__global__ void multicast(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint4, pieces, [4]);
    JMOE_CLUSTER_BARRIER(barrier, 1);
    const uint32_t how = in[16];
    const uint32_t rank = ptx::cluster_rank();
    if (threadIdx.x == 0 && how != no_init_fence) {
        ptx::fence_mbarrier_init();
    }
    if (threadIdx.x < 4) {
        pieces[threadIdx.x] = make_uint4(9, 9, 9, 9);
        ptx::fence_proxy_async();
    }
    ptx::cluster_sync();
    const bool receives = how == both || rank == 1;
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect_tx(barrier, receives && how != unexpected ? 64 : 0);
    }
    ptx::cluster_sync();
    if (threadIdx.x == 0 && rank == 0) {
        const uint16_t blocks = how == not_the_issuer ? 2 : how == outside ? 5 : 3;
        ptx::bulk_load_multicast(ptx::shared_address(pieces), in, 64, barrier, blocks);
    }
    ptx::mbarrier_wait(barrier, 0);
    if (threadIdx.x < 16) {
        out[rank * 16 + threadIdx.x] = reinterpret_cast<const uint32_t*>(pieces)[threadIdx.x];
    }
    ptx::cluster_sync();
}

void check_multicast() {
    Words in(17);
    Words expected(32);
    for (uint32_t i = 0; i < 16; i++) {
        in[i] = expected[i] = expected[16 + i] = 100 + i;
    }
    in[16] = both;
    computes<multicast>("multicast", pair, in, expected);
    in[16] = unexpected;
    fails_somewhere<multicast>("multicast: bytes that the receiver does not expect", pair, in, expected);
    in[16] = no_init_fence;
    refuses<multicast>("proxy.mbar: peers need fence.mbarrier_init", "needs fence.mbarrier_init", pair, in);
    in[16] = outside;
    refuses<multicast>("multicast: to a block outside of the cluster", "block mask 0x5", pair, in);
    in[16] = not_the_issuer;
    std::fill_n(expected.begin(), 16, 9);
    computes<multicast>("multicast: the issuer's bit is not set", pair, in, expected);
}

enum Store { plain, not_waited, other_block };

// Each block stores asynchronously into the other one.
__global__ void store_async(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint4, piece, [1]);
    JMOE_CLUSTER_BARRIER(barrier, 1);
    const uint32_t rank = ptx::cluster_rank();
    const uint32_t other = (rank + 1) % ptx::cluster_size();
    if (threadIdx.x == 0) {
        piece[0] = make_uint4(9, 9, 9, 9);
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(barrier, 16);
    }
    ptx::cluster_sync();
    if (threadIdx.x == 0) {
        const uint32_t there = ptx::mapa(ptx::shared_address(piece), other);
        const uint32_t barrier_there = in[0] == other_block ? barrier : ptx::mapa(barrier, other);
        ptx::store_async_v4_u32(there, make_uint4(rank, 1, 2, 3), barrier_there);
    }
    if (in[0] == plain) {
        ptx::mbarrier_wait_cluster(barrier, 0);
    } else {
        ptx::cluster_sync();
    }
    if (threadIdx.x == 0) {
        out[rank * 2] = piece[0].x;
        out[rank * 2 + 1] = piece[0].w;
    }
    ptx::mbarrier_wait_cluster(barrier, 0);
    ptx::cluster_sync();
}

__global__ void mapped(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint32_t, word, [1]);
    const uint32_t rank = ptx::cluster_rank();
    if (threadIdx.x == 0) {
        word[0] = 100 + rank;
    }
    ptx::cluster_sync();
    if (threadIdx.x == 0) {
        const uint32_t own = ptx::shared_address(word);
        out[rank * 3] = ptx::cluster_load_u32(ptx::mapa(own, in[0]));
        out[rank * 3 + 1] = ptx::cluster_load_u32(ptx::mapa(own, rank));
        out[rank * 3 + 2] = ptx::mapa(own + 4, 1) - ptx::mapa(own, 1);
    }
    ptx::cluster_sync();
}

enum Sync { correct, relaxed, arrive_twice, wait_first, some_exit, left_early };

// Every block publishes a word and reads that of the other.
__global__ void cluster_barrier(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint32_t, word, [1]);
    const uint32_t how = in[0];
    const uint32_t rank = ptx::cluster_rank();
    if (how == some_exit && threadIdx.x >= 7) {
        return;
    }
    if (threadIdx.x == 0) {
        word[0] = 100 + rank;
    }
    if (how == wait_first) {
        ptx::cluster_wait();
    }
    if (how == relaxed) {
        ptx::cluster_arrive_relaxed();
    } else {
        ptx::cluster_arrive();
    }
    if (how == arrive_twice) {
        ptx::cluster_arrive();
    }
    ptx::cluster_wait();
    if (threadIdx.x == 0) {
        out[rank] = ptx::cluster_load_u32(ptx::mapa(ptx::shared_address(word), rank ^ 1));
    }
    if (how != left_early) {
        ptx::cluster_sync();
    }
}

// The other block's bulk copy is not covered by the cluster barrier; in[0]: 1 to wait for its mbarrier.
__global__ void uncovered_copy(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint4, source, [1]);
    JMOE_SHARED(uint4, target, [1]);
    JMOE_CLUSTER_BARRIER(barrier, 1);
    const uint32_t rank = ptx::cluster_rank();
    if (threadIdx.x == 0) {
        source[0] = make_uint4(rank + 1, 0, 0, 0);
        target[0] = make_uint4(9, 9, 9, 9);
        ptx::fence_proxy_async();
        ptx::fence_mbarrier_init();
        ptx::mbarrier_arrive_expect_tx(barrier, 16);
    }
    ptx::cluster_sync();
    if (threadIdx.x == 0) {
        ptx::bulk_copy_to_block(ptx::mapa(ptx::shared_address(target), rank ^ 1), ptx::shared_address(source), 16,
                                ptx::mapa(barrier, rank ^ 1));
    }
    ptx::cluster_sync();
    if (in[0] == 1) {
        ptx::mbarrier_wait_cluster(barrier, 0);
    }
    if (threadIdx.x == 0) {
        out[rank] = target[0].x;
    }
    ptx::mbarrier_wait_cluster(barrier, 0);
    ptx::cluster_sync();
}

void check_blocks() {
    computes<store_async>("st.async", pair, {plain}, {1, 3, 0, 3});
    fails_somewhere<store_async>("st.async: not waited for", pair, {not_waited}, {1, 3, 0, 3});
    refuses<store_async>("st.async: barrier in another block", "different blocks", pair, {other_block});
    refuses<store_async>("st.async: cluster of one", "cluster of one block", {1, 32}, {plain});
    computes<mapped>("mapa", pair, {1}, {101, 100, 4, 101, 101, 4});
    refuses<mapped>("mapa: no such rank", "rank", pair, {2});
    computes<cluster_barrier>("barrier.cluster", pair, {correct}, {101, 100});
    computes<cluster_barrier>("barrier.cluster: threads that have exited", pair, {some_exit}, {101, 100});
    refuses<cluster_barrier>("barrier.cluster: two arrivals", "arrive", pair, {arrive_twice});
    refuses<cluster_barrier>("barrier.cluster: wait without arrival", "", pair, {wait_first});
    refuses<cluster_barrier>("barrier.cluster: a block that has left", "", pair, {left_early});
    refuses_in_race_build<cluster_barrier>("barrier.cluster: relaxed", "race", pair, {relaxed});
    computes<uncovered_copy>("barrier.cluster: a copy and its mbarrier", pair, {1}, {2, 1});
    fails_somewhere<uncovered_copy>("barrier.cluster: copies are not covered", pair, {0}, {2, 1});
}

constexpr int ring_stages = 2;
constexpr int ring_steps = 7;

// Both blocks sum the same stream. In each step block r fetches half r and sends it to both; a stage is free when the
// consumers of both have handed it back to both, by the short arrive. in[112]: 1 to leave the other block's out.
__global__ void ring(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint4, pieces, [ring_stages * 4]);
    JMOE_SHARED(unsigned long long, full_words, [ring_stages]);
    JMOE_SHARED(unsigned long long, empty_words, [ring_stages]);
    const uint32_t full = ptx::shared_address(full_words);
    const uint32_t empty = ptx::shared_address(empty_words);
    const uint32_t rank = ptx::cluster_rank();
    const bool waits_for_both = in[16 * ring_steps] == 0;
    if (threadIdx.x == 0) {
        for (uint32_t stage = 0; stage < ring_stages; stage++) {
            ptx::mbarrier_init(full + stage * 8, 1);
            ptx::mbarrier_init(empty + stage * 8, waits_for_both ? 2 : 1);
        }
        ptx::fence_mbarrier_init();
    }
    ptx::cluster_sync();
    if (threadIdx.x == 0) {
        for (uint32_t step = 0; step < ring_steps; step++) {
            const uint32_t stage = step % ring_stages;
            const uint32_t place = ptx::shared_address(pieces) + stage * 64 + rank * 32;
            ptx::mbarrier_wait(empty + stage * 8, (step / ring_stages + 1) % 2);
            ptx::mbarrier_arrive_expect_tx(full + stage * 8, 64);
            ptx::bulk_load_multicast(place, in + step * 16 + rank * 8, 32, full + stage * 8, 3);
        }
    }
    if (threadIdx.x >= 32) {
        uint32_t sum = 0;
        for (uint32_t step = 0; step < ring_steps; step++) {
            const uint32_t stage = step % ring_stages;
            ptx::mbarrier_wait(full + stage * 8, step / ring_stages % 2);
            sum += reinterpret_cast<const uint32_t*>(pieces)[stage * 16 + threadIdx.x % 16];
            __syncwarp();
            const uint32_t block = threadIdx.x - 32;
            if (block < 2 && (waits_for_both || block == rank)) {
                ptx::mbarrier_arrive_remote(ptx::mapa(empty + stage * 8, block));
            }
        }
        if (threadIdx.x < 48) {
            out[rank * 16 + threadIdx.x - 32] = sum;
        }
    }
    ptx::cluster_sync();
}

void check_ring() {
    Words in(16 * ring_steps + 1);
    Words expected(32, 0);
    for (uint32_t i = 0; i < 16 * ring_steps; i++) {
        in[i] = i * i;
        expected[i % 16] += i * i;
        expected[16 + i % 16] += i * i;
    }
    in[16 * ring_steps] = 0;
    computes<ring>("multicast: a ring over two blocks", {2, 64, 0, 2}, in, expected);
    in[16 * ring_steps] = 1;
    fails_somewhere<ring>("multicast: into a stage that the other block still reads", {2, 64, 0, 2}, in, expected);
}

// 8 blocks: the largest cluster that needs no permission.
__global__ void ranks(const uint32_t*, uint32_t* out) {
    if (threadIdx.x == 0) {
        out[blockIdx.x] = ptx::cluster_rank() * 100 + ptx::cluster_size();
    }
}

}  // namespace

int main() {
    check_multicast();
    check_blocks();
    check_ring();
    computes<ranks>("cluster rank and size", {8, 32, 0, 8}, {}, {8, 108, 208, 308, 408, 508, 608, 708});
    return check::result();
}
