// Functions of double that give the same bits on every machine, those of Java's StrictMath, whose specification prescribes
// the results of fdlibm 5.3. The order of operations is that of fdlibm; cases that no caller has are left out.
//
// After fdlibm: Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved. Developed at SunSoft, a Sun Microsystems,
// Inc. business. Permission to use, copy, modify, and distribute this software is freely granted, provided that this notice
// is preserved.
#pragma once

#include "special.cuh"

namespace portable {

// A double whose products and sums are each rounded: never fused, by neither compiler.
struct Real {
    double value;
    __device__ __forceinline__ Real(double of) : value(of) {}
};

#ifdef JMOE_EMULATOR
// g++ fuses a product with the sum that takes it, unless it cannot see that it is one.
__device__ __forceinline__ Real operator*(Real a, Real b) {
    double product = a.value * b.value;
    asm("" : "+m"(product));
    return product;
}
__device__ __forceinline__ Real operator+(Real a, Real b) { return a.value + b.value; }
__device__ __forceinline__ Real operator-(Real a, Real b) { return a.value - b.value; }
__device__ __forceinline__ Real operator/(Real a, Real b) { return a.value / b.value; }
__device__ __forceinline__ Real root(Real a) { return sqrt(a.value); }
#else
__device__ __forceinline__ Real operator*(Real a, Real b) { return __dmul_rn(a.value, b.value); }
__device__ __forceinline__ Real operator+(Real a, Real b) { return __dadd_rn(a.value, b.value); }
__device__ __forceinline__ Real operator-(Real a, Real b) { return __dsub_rn(a.value, b.value); }
__device__ __forceinline__ Real operator/(Real a, Real b) { return __ddiv_rn(a.value, b.value); }
__device__ __forceinline__ Real root(Real a) { return __dsqrt_rn(a.value); }
#endif
__device__ __forceinline__ Real operator-(Real a) { return -a.value; }
__device__ __forceinline__ bool operator<(Real a, Real b) { return a.value < b.value; }

// Sign, exponent and the first 20 bits behind the point.
__device__ __forceinline__ int high_word(Real x) { return static_cast<int>(__double_as_longlong(x.value) >> 32); }

__device__ __forceinline__ Real with_high_word(Real x, int high) {
    uint64_t low = static_cast<uint64_t>(__double_as_longlong(x.value)) & 0xffffffffu;
    uint64_t bits = static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32 | low;
    return __longlong_as_double(static_cast<long long>(bits));
}

// 2^exponent x, if both are normal.
__device__ __forceinline__ Real scaled(Real x, int exponent) { return with_high_word(x, high_word(x) + (exponent << 20)); }

constexpr double kLn2High = 6.93147180369123816490e-01;
constexpr double kLn2Low = 1.90821492927058770002e-10;

// log(x) of a normal number above 0; infinity and NaN stay.
__device__ inline Real log(Real x) {
    int high = high_word(x);
    if (high >= 0x7ff00000) {
        return x;
    }
    int k = (high >> 20) - 1023;
    high &= 0x000fffff;
    int above_root_2 = (high + 0x95f64) & 0x100000;
    Real f = with_high_word(x, high | (above_root_2 ^ 0x3ff00000)) - 1.0;
    k += above_root_2 >> 20;
    Real dk = static_cast<double>(k);
    if ((0x000fffff & (2 + high)) < 3) {
        Real r = f * f * (Real(0.5) - Real(0.33333333333333333) * f);
        if (k == 0) {
            return f.value == 0.0 ? Real(0.0) : f - r;
        }
        return f.value == 0.0 ? dk * kLn2High + dk * kLn2Low : dk * kLn2High - ((r - dk * kLn2Low) - f);
    }
    Real s = f / (f + 2.0);
    Real z = s * s;
    Real w = z * z;
    Real t1 = w * (Real(3.999999999940941908e-01) + w * (Real(2.222219843214978396e-01) + w * 1.531383769920937332e-01));
    Real t2 = z * (Real(6.666666666666735130e-01) +
                   w * (Real(2.857142874366239149e-01) +
                        w * (Real(1.818357216161805012e-01) + w * 1.479819860510658591e-01)));
    Real r = t2 + t1;
    if (((high - 0x6147a) | (0x6b851 - high)) > 0) {
        Real half_square = Real(0.5) * f * f;
        return k == 0 ? f - (half_square - s * (half_square + r))
                      : dk * kLn2High - ((half_square - (s * (half_square + r) + dk * kLn2Low)) - f);
    }
    return k == 0 ? f - s * (f - r) : dk * kLn2High - ((s * (f - r) - dk * kLn2Low) - f);
}

// The exponential of 2^k's share is taken off: x + rest = arg - k ln 2.
struct Reduced {
    Real x;
    Real rest;
    int k;
};

__device__ inline Reduced reduce(Real x, int magnitude) {
    if (magnitude <= 0x3fd62e42) {
        return {x, 0.0, 0};
    }
    bool negative = x < 0.0;
    int k = negative ? -1 : 1;
    if (magnitude >= 0x3ff0a2b2) {
        k = static_cast<int>((Real(1.44269504088896338700e+00) * x + (negative ? -0.5 : 0.5)).value);
    }
    Real t = static_cast<double>(k);
    Real high = x - t * kLn2High;
    Real low = t * kLn2Low;
    Real difference = high - low;
    return {difference, (high - difference) - low, k};
}

// exp(x) - 1 for x up to 700; NaN stays.
__device__ inline Real expm1(Real arg) {
    int magnitude = high_word(arg) & 0x7fffffff;
    if (magnitude > 0x7fefffff && arg.value != arg.value) {
        return arg;
    }
    if (magnitude >= 0x4043687a && arg < 0.0) {
        return -1.0;
    }
    if (magnitude < 0x3c900000) {
        return arg;
    }
    Reduced reduced = reduce(arg, magnitude);
    Real x = reduced.x;
    int k = reduced.k;
    Real half = Real(0.5) * x;
    Real square = x * half;
    Real r1 = Real(1.0) +
              square * (Real(-3.33333333333331316428e-02) +
                        square * (Real(1.58730158725481460165e-03) +
                                  square * (Real(-7.93650757867487942473e-05) +
                                            square * (Real(4.00821782732936239552e-06) +
                                                      square * -2.01099218183624371326e-07))));
    Real t = Real(3.0) - r1 * half;
    Real e = square * ((r1 - t) / (Real(6.0) - x * t));
    if (k == 0) {
        return x - (x * e - square);
    }
    e = (x * (e - reduced.rest) - reduced.rest) - square;
    if (k == -1) {
        return Real(0.5) * (x - e) - 0.5;
    }
    if (k == 1) {
        return x < -0.25 ? Real(-2.0) * (e - (x + 0.5)) : Real(1.0) + Real(2.0) * (x - e);
    }
    if (k <= -2 || k > 56) {
        return scaled(Real(1.0) - (e - x), k) - 1.0;
    }
    if (k < 20) {
        return scaled((Real(1.0) - scaled(1.0, -k)) - (e - x), k);
    }
    return scaled((x - (e + scaled(1.0, -k))) + 1.0, k);
}

__device__ inline Real tanh(Real x) {
    int magnitude = high_word(x) & 0x7fffffff;
    if (x.value != x.value) {
        return x;
    }
    if (magnitude < 0x3c800000) {
        return x * (Real(1.0) + x);
    }
    Real z = 1.0;
    if (magnitude < 0x40360000) {
        Real size = fabs(x.value);
        bool large = magnitude >= 0x3ff00000;
        Real t = expm1(large ? size * 2.0 : size * -2.0);
        z = large ? Real(1.0) - Real(2.0) / (t + 2.0) : (-t) / (t + 2.0);
    }
    return x < 0.0 ? -z : z;
}

}  // namespace portable
