// Products with gelu(x) = x Phi(x), where Phi is the standard normal distribution, and with its approximation by tanh.
//
// The tail is Phi(-a) = e^(-a^2 / 2) R(a), where R falls slowly from 1/2 towards 0.4 / a. (a + 4) R(a) is a polynomial of
// t = (a - 4) / (a + 4), fitted for a from 0 to 20, where it is off by at most 2e-8 of itself; the form is that of Shepherd and
// Laframboise 1981, "Chebyshev Approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < oo". Phi(a) is 1 - Phi(-a).
#pragma once

#include "sigmoid.cuh"

namespace activation {

// Where e^(-a^2 / 2) is e^-kLowest.
constexpr float kNormalFarthest = 20.0f;

// Below this Phi is 0, as the smallest double is more. It matters beside an infinite factor.
constexpr float kNormalZeroBelow = -38.485283f;

// The approximation is x sigmoid(z), z = x (slope + cube x^2).
constexpr double kTanhSlope = 1.5957691216057308;  // 2 sqrt(2 / pi)
constexpr double kTanhCube = kTanhSlope * 0.044715;

// Far beyond where that sigmoid is 0 or 1, and not so far that z overflows.
constexpr float kTanhFarthest = 100.0f;

// (a + 4) R(a) by power of t.
__device__ __forceinline__ float tail_polynomial(float t) {
    float sum = fmaf(-0x1.3aaca8p-13f, t, 0x1.3a89c6p-13f);
    sum = fmaf(sum, t, 0x1.9be6b4p-10f);
    sum = fmaf(sum, t, -0x1.ca16a6p-9f);
    sum = fmaf(sum, t, -0x1.ed09eap-8f);
    sum = fmaf(sum, t, 0x1.eecdbp-5f);
    sum = fmaf(sum, t, -0x1.7e0008p-3f);
    sum = fmaf(sum, t, 0x1.8c6da2p-2f);
    sum = fmaf(sum, t, -0x1.373e3ap-1f);
    return fmaf(sum, t, 0x1.82b4bcp-1f);
}

// x Phi(x) factor. The power of e is multiplied as in sigmoid_product; what its argument lacks counts, as it is magnified.
__device__ __forceinline__ float gelu_product(float x, float factor) {
    constexpr double kExponent = -0.5 * kLog2E;
    float a = fminf(fabsf(x), kNormalFarthest);
    float square = a * a;
    Power exponential = power(square, kExponent);
    exponential.fraction = fmaf(fmaf(a, a, -square), static_cast<float>(kExponent), exponential.fraction);
    float inverse = ptx::rcp_approx(a + 4.0f);
    float lacking = fmaf(-inverse, a, fmaf(inverse, -4.0f, 1.0f));
    inverse = fmaf(inverse, lacking, inverse);
    float tail = exponential.first() * (tail_polynomial(fmaf(inverse, -8.0f, 1.0f)) * inverse);
    float scale = x < 0.0f ? exponential.scale : 1.0f;
    float phi = x < 0.0f ? tail : fmaf(-tail * exponential.scale, exponential.scale, 1.0f);
    phi = x < kNormalZeroBelow ? 0.0f : phi;
    return x * phi * factor * scale * scale;
}

// x (1 + tanh(z / 2)) / 2 factor = x sigmoid(z) factor. z has two parts, for the same reason.
__device__ __forceinline__ float gelu_tanh_product(float x, float factor) {
    constexpr float kSlope = static_cast<float>(kTanhSlope);
    constexpr float kSlopeLow = static_cast<float>(kTanhSlope - static_cast<double>(kSlope));
    constexpr float kCube = static_cast<float>(kTanhCube);
    constexpr float kCubeLow = static_cast<float>(kTanhCube - static_cast<double>(kCube));
    float a = fminf(fabsf(x), kTanhFarthest);
    float square = a * a;
    float cubed = __fmul_rn(square, kCube);
    float cubed_low = fmaf(fmaf(a, a, -square), kCube, fmaf(square, kCube, -cubed));
    cubed_low = fmaf(square, kCubeLow, cubed_low);
    // The sum of both, and what it lacks; Knuth's, as either may be larger.
    float sum = cubed + kSlope;
    float added = sum - kSlope;
    float sum_low = (kSlope - (sum - added)) + (cubed - added) + (cubed_low + kSlopeLow);
    float size = a * sum;
    float rest = fmaf(a, sum_low, fmaf(a, sum, -size));
    Power exponential = power(fminf(size, static_cast<float>(kLowest)), -kLog2E);
    exponential.fraction = fmaf(rest, static_cast<float>(-kLog2E), exponential.fraction);
    bool zero = x < 0.0f && size > static_cast<float>(-kZeroBelow);
    return sigmoid_product(x, x < 0.0f, zero, exponential, factor);
}

// The same for results of 16 bits: e^-size = cube root^3, without the parts that their last places do not show.
__device__ __forceinline__ float short_gelu_product(float x, float factor) {
    float a = fminf(fabsf(x), kNormalFarthest);
    float root = ptx::exp2_approx(a * a * static_cast<float>(-kLog2E / 6));
    float inverse = ptx::rcp_approx(a + 4.0f);
    float tail = root * (tail_polynomial(fmaf(inverse, -8.0f, 1.0f)) * inverse);
    float scale = x < 0.0f ? root : 1.0f;
    float phi = x < 0.0f ? tail : fmaf(-tail * root, root, 1.0f);
    phi = x < kNormalZeroBelow ? 0.0f : phi;
    return x * phi * factor * scale * scale;
}

__device__ __forceinline__ float short_gelu_tanh_product(float x, float factor) {
    float a = fminf(fabsf(x), kTanhFarthest);
    float size = a * fmaf(a * a, static_cast<float>(kTanhCube), static_cast<float>(kTanhSlope));
    float root = ptx::exp2_approx(fminf(size, static_cast<float>(kLowest)) * static_cast<float>(-kLog2E / 3));
    float sigmoid = ptx::rcp_approx(fmaf(root * root, root, 1.0f));
    float scale = x < 0.0f ? root : 1.0f;
    float first = size > static_cast<float>(-kZeroBelow) && x < 0.0f ? 0.0f : scale;
    return x * sigmoid * first * factor * scale * scale;
}

}  // namespace activation
