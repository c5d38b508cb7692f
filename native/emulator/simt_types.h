// Keywords and vector types of the CUDA device language.
#pragma once

#include "grid.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

using dim3 = emulator::Dim3;
using uint3 = emulator::Dim3;

// CUDA aligns two- and four-element vectors to their whole size, up to 16 bytes.
#define EMULATOR_VECTORS(Element, name)                                                               \
    struct alignas(2 * sizeof(Element)) name##2 {                                                     \
        Element x, y;                                                                                 \
    };                                                                                                \
    struct alignas(4 * sizeof(Element) < 16 ? 4 * sizeof(Element) : 16) name##4 {                     \
        Element x, y, z, w;                                                                           \
    };                                                                                                \
    inline name##2 make_##name##2(Element x, Element y) { return {x, y}; }                            \
    inline name##4 make_##name##4(Element x, Element y, Element z, Element w) { return {x, y, z, w}; }

EMULATOR_VECTORS(signed char, char)
EMULATOR_VECTORS(unsigned char, uchar)
EMULATOR_VECTORS(short, short)
EMULATOR_VECTORS(unsigned short, ushort)
EMULATOR_VECTORS(int, int)
EMULATOR_VECTORS(unsigned, uint)
EMULATOR_VECTORS(long long, longlong)
EMULATOR_VECTORS(unsigned long long, ulonglong)
EMULATOR_VECTORS(float, float)
EMULATOR_VECTORS(double, double)

struct float3 {
    float x, y, z;
};
struct int3 {
    int x, y, z;
};

inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline int3 make_int3(int x, int y, int z) { return {x, y, z}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
