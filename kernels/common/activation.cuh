// The activations of Activation.Kind, on vectors of floats.
#pragma once

#include "dtypes.cuh"

namespace activation {

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

__device__ __forceinline__ bool gated(int kind) { return kind == kSwiglu || kind == kClampedSwiglu; }

}  // namespace activation
