// topkWeights *= expertScale[topkIds]
//
// Shapes    topkIds, topkWeights [tokens, topK], expert_scale [E].
// Grid      ceil(slots / items_per_block), a thread per slot.
// Numerics  one product in F32, behind the rounding of the weight.
// Requires  nothing: slots without an expert keep their weight.
// Adjoint   routeBackward.
#include "common/route_rule.cuh"

namespace {

constexpr int kThreads = 256;

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    route_scale(const int* __restrict__ topk_ids, const float* __restrict__ expert_scale, float* __restrict__ topk_weights,
                long long slots) {
    long long slot = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (slot >= slots) {
        return;
    }
    int id = topk_ids[slot];
    if (id >= 0) {
        topk_weights[slot] = route_rule::stored(static_cast<double>(topk_weights[slot]) * expert_scale[id]);
    }
}
JMOE_EXPORT(route_scale, kThreads, kThreads, 0);
