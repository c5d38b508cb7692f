// hidden[r] = activation(gateUp[r]), gate in the first I columns, up in the others
//
// Shapes    gateUp [max_rows, 2 intermediate], or [max_rows, intermediate] of kinds without a gate; hidden [max_rows,
//           intermediate]; expertOffsets [groups + 1]. Rows before the first offset and from the last one on are not touched.
// Grid      x: ceil(max_rows / items_per_block); y: any, shares the columns.
// Numerics  F32, relative error below 8 ulp wherever the result is an F32, even where the sigmoid alone is none.
// Requires  nothing of alignment.
// Adjoint   swigluBackward.
#include "common/activation.cuh"
#include "common/dtypes.cuh"
#include "common/rows.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;
using dtypes::Values;

template <class G, class H, int count>
__device__ void activate_row(const typename G::Bits* gate_up, typename H::Bits* hidden, int intermediate, int kind,
                             float limit) {
    bool gated = activation::gated(kind);
    const typename G::Bits* ups = gated ? gate_up + intermediate : gate_up;
    long long step = rows::column_step() * count;
    for (long long i = rows::first_column() * count; i < intermediate; i += step) {
        Values<count> up = dtypes::load<G, count>(ups + i);
        Values<count> gate = up;
        if (gated) {
            gate = dtypes::load<G, count>(gate_up + i);
        }
        activation::activate<count>(kind, limit, gate, up);
        dtypes::store<H, count>(hidden + i, up);
    }
}

template <class G, class H>
__device__ void swiglu(const typename G::Bits* gate_up, const int* expert_offsets, int groups, typename H::Bits* hidden,
                       int max_rows, int intermediate, int kind, float limit) {
    long long row = rows::row();
    if (row >= max_rows || row < expert_offsets[0] || row >= expert_offsets[groups]) {
        return;
    }
    bool gated = activation::gated(kind);
    const typename G::Bits* from = gate_up + row * intermediate * (gated ? 2 : 1);
    typename H::Bits* to = hidden + row * intermediate;
    if (dtypes::vectors_fit(intermediate, gate_up, hidden)) {
        activate_row<G, H, dtypes::kVector>(from, to, intermediate, kind, limit);
    } else {
        activate_row<G, H, 1>(from, to, intermediate, kind, limit);
    }
}

}  // namespace

#define SWIGLU(name, G, H)                                                                                                \
    extern "C" __global__ void __launch_bounds__(rows::kThreads, 4)                                                          \
        name(const G::Bits* __restrict__ gate_up, const int* __restrict__ expert_offsets, int groups,                     \
             H::Bits* __restrict__ hidden, int max_rows, int intermediate, int kind, float limit) {                       \
        swiglu<G, H>(gate_up, expert_offsets, groups, hidden, max_rows, intermediate, kind, limit);                       \
    }                                                                                                                     \
    JMOE_EXPORT(name, rows::kThreads, rows::kRows, 0)

SWIGLU(swiglu_f32_f32, F32, F32);
SWIGLU(swiglu_f32_f16, F32, F16);
SWIGLU(swiglu_f32_bf16, F32, BF16);
SWIGLU(swiglu_f16_f32, F16, F32);
SWIGLU(swiglu_f16_f16, F16, F16);
SWIGLU(swiglu_f16_bf16, F16, BF16);
SWIGLU(swiglu_bf16_f32, BF16, F32);
SWIGLU(swiglu_bf16_f16, BF16, F16);
SWIGLU(swiglu_bf16_bf16, BF16, BF16);
