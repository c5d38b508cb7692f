// hidden[r] = activation(gateUp[r]), gate in the first I columns, up in the others
//
// Shapes    gateUp [max_rows, 2 intermediate], or [max_rows, intermediate] of kinds without a gate; hidden [max_rows,
//           intermediate]; num_rows points at the last of expertOffsets. Rows from num_rows on are not touched.
// Grid      x: ceil(max_rows / items_per_block); y: any, shares the columns.
// Numerics  F32, relative error below 8 ulp wherever the result is an F32, even where the sigmoid alone is none.
// Requires  nothing of alignment.
// Adjoint   swigluBackward.
#include "common/dtypes.cuh"
#include "common/rows.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;
using dtypes::Values;

// Ordinals of Activation.Kind.
constexpr int kSwiglu = 0;
constexpr int kClampedSwiglu = 1;
constexpr int kSilu = 2;
constexpr int kRelu = 3;

constexpr double kLog2E = 1.4426950408889634;
constexpr double kClampedSlope = 1.702;

// Below this argument the sigmoid is 0, as where e^-z overflows in double. It matters beside an infinite factor.
constexpr float kZeroBelow = -709.78265f;

// From here on down a product with the largest floats still rounds to 0.
constexpr float kLowest = 200.0f;

// x * 2^kFirstPower is normal for every x that needs it.
constexpr int kFirstPower = -100;

__device__ __forceinline__ float power_of_two(int exponent) { return __int_as_float((exponent + 127) << 23); }

// x sigmoid(slope x) factor. With e = exp(-|slope x|) the sigmoid is 1 / (1 + e), or e / (1 + e) for negative x. There e is
// 2^n 2^f, and 2^n is multiplied in three steps: the first before all else, so that the largest x does not overflow, the
// others after the factor, so that nothing but the result can be subnormal.
__device__ __forceinline__ float sigmoid_product(float x, double slope, float factor) {
    const float high = static_cast<float>(slope * kLog2E);
    const float low = static_cast<float>(slope * kLog2E - static_cast<double>(high));
    const float one_slope = static_cast<float>(slope);
    float magnitude = fminf(fabsf(x), kLowest / one_slope);
    float n = rintf(-magnitude * high);
    float fraction = fmaf(-magnitude, low, fmaf(-magnitude, high, -n));
    float mantissa = exp2f(fraction);
    int exponent = static_cast<int>(n);
    int first = max(exponent, kFirstPower);
    int second = (exponent - first) / 2;
    int third = exponent - first - second;
    float scale = x * one_slope < kZeroBelow ? 0.0f : power_of_two(first);
    float divisor = fmaf(mantissa, scale, 1.0f);
    if (x < 0.0f) {
        return x * scale * mantissa / divisor * factor * power_of_two(second) * power_of_two(third);
    }
    return x / divisor * factor;
}

// NaN stays: comparisons with it are false.
__device__ __forceinline__ float relu(float x) { return x <= 0.0f ? 0.0f : x; }

__device__ __forceinline__ float clamped_product(float gate, float up, float limit) {
    float g = gate > limit ? limit : gate;
    float u = up > limit ? limit : up;
    u = u < -limit ? -limit : u;
    return sigmoid_product(g, kClampedSlope, u + 1.0f);
}

// The switch stands outside the loops: one branch for all elements of a vector.
template <int count>
__device__ __forceinline__ void activate(int kind, float limit, const Values<count>& gate, Values<count>& up) {
    switch (kind) {
        case kSwiglu:
#pragma unroll
            for (int i = 0; i < count; i++) {
                up.at[i] = sigmoid_product(gate.at[i], 1.0, up.at[i]);
            }
            break;
        case kClampedSwiglu:
#pragma unroll
            for (int i = 0; i < count; i++) {
                up.at[i] = clamped_product(gate.at[i], up.at[i], limit);
            }
            break;
        case kSilu:
#pragma unroll
            for (int i = 0; i < count; i++) {
                up.at[i] = sigmoid_product(up.at[i], 1.0, 1.0f);
            }
            break;
        case kRelu:
#pragma unroll
            for (int i = 0; i < count; i++) {
                up.at[i] = relu(up.at[i]);
            }
            break;
        default:  // squared
#pragma unroll
            for (int i = 0; i < count; i++) {
                up.at[i] = relu(up.at[i]) * relu(up.at[i]);
            }
    }
}

template <class G, class H, int count>
__device__ void activate_row(const typename G::Bits* gate_up, typename H::Bits* hidden, int intermediate, int kind,
                             float limit) {
    bool gated = kind == kSwiglu || kind == kClampedSwiglu;
    const typename G::Bits* ups = gated ? gate_up + intermediate : gate_up;
    long long step = rows::column_step() * count;
    for (long long i = rows::first_column() * count; i < intermediate; i += step) {
        Values<count> up = dtypes::load<G, count>(ups + i);
        Values<count> gate = up;
        if (gated) {
            gate = dtypes::load<G, count>(gate_up + i);
        }
        activate<count>(kind, limit, gate, up);
        dtypes::store<H, count>(hidden + i, up);
    }
}

template <class G, class H>
__device__ void swiglu(const typename G::Bits* gate_up, const int* num_rows, typename H::Bits* hidden, int max_rows,
                       int intermediate, int kind, float limit) {
    long long row = rows::row();
    if (row >= max_rows || row >= *num_rows) {
        return;
    }
    bool gated = kind == kSwiglu || kind == kClampedSwiglu;
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
        name(const G::Bits* __restrict__ gate_up, const int* __restrict__ num_rows, H::Bits* __restrict__ hidden,         \
             int max_rows, int intermediate, int kind, float limit) {                                                     \
        swiglu<G, H>(gate_up, num_rows, hidden, max_rows, intermediate, kind, limit);                                     \
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
