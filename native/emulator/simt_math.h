// Arithmetic intrinsics under their CUDA names. The fast approximations of the hardware (__expf, rsqrtf, ...) are
// computed exactly rounded or nearly so: results differ from a GPU's in the last bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(unsigned(value)); }
inline int __clzll(long long value) { return value == 0 ? 64 : __builtin_clzll((unsigned long long)value); }

inline unsigned __brev(unsigned value) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) {
        reversed |= (value >> bit & 1u) << (31 - bit);
    }
    return reversed;
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    uint64_t bytes = uint64_t(high) << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        result |= unsigned(bytes >> (selector >> (4 * i) & 7u) * 8 & 0xffu) << (8 * i);
    }
    return result;
}

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

template <class To, class From>
To emulator_bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

inline unsigned __float_as_uint(float value) { return emulator_bit_cast<unsigned>(value); }
inline int __float_as_int(float value) { return emulator_bit_cast<int>(value); }
inline float __uint_as_float(unsigned bits) { return emulator_bit_cast<float>(bits); }
inline float __int_as_float(int bits) { return emulator_bit_cast<float>(bits); }
inline long long __double_as_longlong(double value) { return emulator_bit_cast<long long>(value); }
inline double __longlong_as_double(long long bits) { return emulator_bit_cast<double>(bits); }

inline float __expf(float value) { return expf(value); }
inline float __exp10f(float value) { return exp10f(value); }
inline float __logf(float value) { return logf(value); }
inline float __log2f(float value) { return log2f(value); }
inline float __sinf(float value) { return sinf(value); }
inline float __cosf(float value) { return cosf(value); }
inline float __powf(float base, float exponent) { return powf(base, exponent); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float value) { return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f; }
inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
inline double rsqrt(double value) { return 1.0 / sqrt(value); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __frcp_rn(float value) { return 1.0f / value; }
inline float __fsqrt_rn(float value) { return sqrtf(value); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __double2float_rn(double value) { return float(value); }
inline float __int2float_rn(int value) { return float(value); }
inline float __uint2float_rn(unsigned value) { return float(value); }

// Conversions saturate, and turn NaN into 0, as cvt does; a plain C++ cast has no meaning there.
template <class Integer>
Integer emulator_saturate(double value) {
    constexpr double low = double(std::numeric_limits<Integer>::min());
    constexpr double high = double(std::numeric_limits<Integer>::max());
    if (std::isnan(value)) {
        return 0;
    }
    return value <= low    ? std::numeric_limits<Integer>::min()
           : value >= high ? std::numeric_limits<Integer>::max()
                           : Integer(value);
}

inline int __float2int_rn(float value) { return emulator_saturate<int>(nearbyint(double(value))); }
inline int __float2int_rz(float value) { return emulator_saturate<int>(trunc(double(value))); }
inline int __float2int_rd(float value) { return emulator_saturate<int>(floor(double(value))); }
inline int __float2int_ru(float value) { return emulator_saturate<int>(ceil(double(value))); }
inline unsigned __float2uint_rn(float value) { return emulator_saturate<unsigned>(nearbyint(double(value))); }
inline unsigned __float2uint_rz(float value) { return emulator_saturate<unsigned>(trunc(double(value))); }

// CUDA's own overload set: mixed signedness of one width compares unsigned.
#define EMULATOR_MIN_MAX(Result, A, B)                                                    \
    inline Result min(A a, B b) { return (Result)a < (Result)b ? (Result)a : (Result)b; } \
    inline Result max(A a, B b) { return (Result)a > (Result)b ? (Result)a : (Result)b; }

EMULATOR_MIN_MAX(int, int, int)
EMULATOR_MIN_MAX(unsigned, unsigned, unsigned)
EMULATOR_MIN_MAX(unsigned, int, unsigned)
EMULATOR_MIN_MAX(unsigned, unsigned, int)
EMULATOR_MIN_MAX(long, long, long)
EMULATOR_MIN_MAX(unsigned long, unsigned long, unsigned long)
EMULATOR_MIN_MAX(unsigned long, long, unsigned long)
EMULATOR_MIN_MAX(unsigned long, unsigned long, long)
EMULATOR_MIN_MAX(long long, long long, long long)
EMULATOR_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
EMULATOR_MIN_MAX(unsigned long long, long long, unsigned long long)
EMULATOR_MIN_MAX(unsigned long long, unsigned long long, long long)

inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }
