// Products with sigmoids: what is below the smallest float on its own must not be lost where the other factor is large.
#pragma once

#include "ptx.cuh"

namespace activation {

constexpr double kLog2E = 1.4426950408889634;

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

// 2^n 2^n 2^n 2^fraction.
struct Power {
    float scale;  // 2^n
    float fraction;

    // All but two of the scales.
    __device__ __forceinline__ float first() const { return ptx::exp2_approx(fraction) * scale; }
};

// 2^(exponent size), for sizes up to where that is e^-kLowest.
__device__ __forceinline__ Power power(float size, double exponent) {
    const float high = static_cast<float>(exponent);
    const float low = static_cast<float>(exponent - static_cast<double>(high));
    float rounded = fmaf(size, static_cast<float>(exponent / 3), kRounder);
    return {power_of_two(rounded), fmaf(size, low, fmaf(size, high, (kRounder - rounded) * 3.0f))};
}

// x sigmoid(z) factor. With e = exp(-|z|), which is the power, the sigmoid is 1 / (1 + e), or e / (1 + e) for negative z. There e
// may be far below the smallest float where the product is not, because the factor is large: so e is multiplied once with 2^n
// before the factor, so that the largest x does not overflow, and twice after it, so that nothing but the result can be
// subnormal.
__device__ __forceinline__ float sigmoid_product(float x, bool negative, bool zero, const Power& power, float factor) {
    float first = power.first();
    float sigmoid = ptx::rcp_approx(fmaf(first * power.scale, power.scale, 1.0f));
    float scale = negative ? power.scale : 1.0f;
    first = negative ? first : 1.0f;
    first = zero ? 0.0f : first;
    return x * sigmoid * first * factor * scale * scale;
}

// z = slope x.
__device__ __forceinline__ Power sigmoid_power(float x, double slope) {
    return power(fminf(fabsf(x), static_cast<float>(kLowest / slope)), -slope * kLog2E);
}

// x sigmoid(slope x) factor.
__device__ __forceinline__ float swish_product(float x, double slope, float factor) {
    bool zero = x < static_cast<float>(kZeroBelow / slope);
    return sigmoid_product(x, x < 0.0f, zero, sigmoid_power(x, slope), factor);
}

// sigmoid(x) factor. Powers know no NaN.
__device__ __forceinline__ float gate_product(float x, float factor) {
    float one = x == x ? 1.0f : x;
    return sigmoid_product(one, x < 0.0f, x < static_cast<float>(kZeroBelow), sigmoid_power(x, 1.0), factor);
}

// From here on up the short forms meet no number that floats do not have, whatever the slope.
constexpr float kShortFrom = -35.0f;

// The same for results of 16 bits, where x is not below that: what they lack in the last places is far below theirs.
__device__ __forceinline__ float short_sigmoid(float x, double slope) {
    return ptx::rcp_approx(1.0f + ptx::exp2_approx(x * static_cast<float>(-slope * kLog2E)));
}

__device__ __forceinline__ float short_swish_product(float x, double slope, float factor) {
    return x * short_sigmoid(x, slope) * factor;
}

}  // namespace activation
