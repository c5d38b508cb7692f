// elect and mbarrier, as one warp sees them.
#include "common/ptx.cuh"

// out: [32] words, 1 in the elected lane.
extern "C" __global__ void __launch_bounds__(32) probe_elect(const void* in, void* out) {
#ifdef JMOE_SM90
    static_cast<uint32_t*>(out)[threadIdx.x] = ptx::elect_one() ? static_cast<const uint32_t*>(in)[0] : 0;
#endif
}
JMOE_EXPORT(probe_elect, 32, 1, 0);

// One thread walks a barrier through its life; out: [9] words, test_wait after each step (see the README).
extern "C" __global__ void __launch_bounds__(32) probe_mbarrier(const void* in, void* out) {
#ifdef JMOE_SM90
    JMOE_SHARED(unsigned long long, word, [1]);
    if (threadIdx.x == 0) {
        const uint32_t barrier = ptx::shared_address(word);
        uint32_t* results = static_cast<uint32_t*>(out);
        const uint32_t count = static_cast<const uint32_t*>(in)[0];
        ptx::mbarrier_init(barrier, count);
        results[0] = ptx::mbarrier_test_wait(barrier, 1);
        results[1] = ptx::mbarrier_test_wait(barrier, 0);
        ptx::mbarrier_arrive_count(barrier, count - 1);
        results[2] = ptx::mbarrier_test_wait(barrier, 0);
        ptx::mbarrier_complete_tx(barrier, 16);
        ptx::mbarrier_arrive_expect_tx(barrier, 32);
        results[3] = ptx::mbarrier_test_wait(barrier, 0);
        ptx::mbarrier_complete_tx(barrier, 16);
        results[4] = ptx::mbarrier_test_wait(barrier, 0);
        results[5] = ptx::mbarrier_test_wait(barrier, 1);
        ptx::mbarrier_arrive_drop(barrier);
        ptx::mbarrier_arrive_count(barrier, count - 1);
        results[6] = ptx::mbarrier_test_wait(barrier, 1);
        ptx::mbarrier_arrive_count(barrier, count - 1);
        results[7] = ptx::mbarrier_test_wait(barrier, 0);
        ptx::mbarrier_inval(barrier);
        ptx::mbarrier_init(barrier, 1);
        results[8] = ptx::mbarrier_test_wait(barrier, 0);
        ptx::mbarrier_inval(barrier);
    }
#endif
}
JMOE_EXPORT(probe_mbarrier, 32, 1, 0);
