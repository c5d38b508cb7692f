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
constexpr int kSquaredRelu = 4;

constexpr double kLog2E = 1.4426950408889634;
constexpr double kClampedSlope = 1.702;

// Below this argument the sigmoid is 0, as where e^-z overflows in double. It matters beside an infinite factor.
constexpr double kZeroBelow = -709.78265;

// From here on down a product with the largest floats still rounds to 0.
constexpr double kLowest = 200.0;

// Added to a small float, leaves it rounded to an integer in the low bits of the sum.
constexpr float kRounder = 12582912.0f;

// 2^n of the integer n that is in the low bits.
__device__ __forceinline__ float power_of_two(float rounded) {
    return __uint_as_float((__float_as_uint(rounded) << 23) + 0x3f800000u);
}

// x sigmoid(slope x) factor. With e = exp(-|slope x|) the sigmoid is 1 / (1 + e), or e / (1 + e) for negative x. There e may be far
// below the smallest float where the product is not, because the factor is large: so e is 2^n 2^n 2^n 2^f, which is multiplied
// once with 2^n before the factor, so that the largest x does not overflow, and twice after it, so that nothing but the result
// can be subnormal.
__device__ __forceinline__ float sigmoid_product(float x, double slope, float factor) {
    const double exponent = -slope * kLog2E;
    const float high = static_cast<float>(exponent);
    const float low = static_cast<float>(exponent - static_cast<double>(high));
    float magnitude = fminf(fabsf(x), static_cast<float>(kLowest / slope));
    float rounded = fmaf(magnitude, static_cast<float>(exponent / 3), kRounder);
    float fraction = fmaf(magnitude, low, fmaf(magnitude, high, (kRounder - rounded) * 3.0f));
    float power = power_of_two(rounded);
    float first = ptx::exp2_approx(fraction) * power;
    float sigmoid = ptx::rcp_approx(fmaf(first * power, power, 1.0f));
    float scale = x < 0.0f ? power : 1.0f;
    first = x < 0.0f ? first : 1.0f;
    first = x < static_cast<float>(kZeroBelow / slope) ? 0.0f : first;
    return x * sigmoid * first * factor * scale * scale;
}

// From here on up the short form meets no number that floats do not have, whatever the slope.
constexpr float kShortFrom = -35.0f;

// The same for results of 16 bits, where x is not below that: what it lacks in the last places is far below theirs.
__device__ __forceinline__ float short_sigmoid_product(float x, double slope, float factor) {
    float power = ptx::exp2_approx(x * static_cast<float>(-slope * kLog2E));
    return x * ptx::rcp_approx(1.0f + power) * factor;
}

// NaN stays: comparisons with it are false.
__device__ __forceinline__ float relu(float x) { return x <= 0.0f ? 0.0f : x; }

// Gate and up of the clamped product within their limits.
__device__ __forceinline__ float clamped_gate(float gate, float limit) { return gate > limit ? limit : gate; }

__device__ __forceinline__ float clamped_factor(float up, float limit) {
    float u = up > limit ? limit : up;
    return (u < -limit ? -limit : u) + 1.0f;
}

__device__ __forceinline__ float clamped_product(float gate, float up, float limit) {
    return sigmoid_product(clamped_gate(gate, limit), kClampedSlope, clamped_factor(up, limit));
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
        default:
#pragma unroll
            for (int i = 0; i < count; i++) {
                up.at[i] = relu(up.at[i]) * relu(up.at[i]);
            }
    }
}

// Of a gated kind and for results of 16 bits: the short form where it suits all elements, which is nearly always.
template <int kind, int count>
__device__ __forceinline__ void activate_16_bits(float limit, const Values<count>& gate, Values<count>& up) {
    bool low = false;
#pragma unroll
    for (int i = 0; i < count; i++) {
        low |= gate.at[i] < kShortFrom;
    }
    if (low) {
        activate<count>(kind, limit, gate, up);
        return;
    }
#pragma unroll
    for (int i = 0; i < count; i++) {
        if constexpr (kind == kSwiglu) {
            up.at[i] = short_sigmoid_product(gate.at[i], 1.0, up.at[i]);
        } else {
            float factor = clamped_factor(up.at[i], limit);
            up.at[i] = short_sigmoid_product(clamped_gate(gate.at[i], limit), kClampedSlope, factor);
        }
    }
}

__device__ __forceinline__ bool gated(int kind) { return kind == kSwiglu || kind == kClampedSwiglu; }

}  // namespace activation
