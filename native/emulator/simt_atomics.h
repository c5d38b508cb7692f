// Atomic functions under their CUDA names.
#pragma once

#include "atomics.h"

#define EMULATOR_SITE emulator::Site site = emulator::Site::here()

// One CUDA atomic for one type: the value goes through the unsigned type of the same width.
#define EMULATOR_ATOMIC(name, Type, bits, operation)                                                              \
    inline Type name(Type* address, Type value, EMULATOR_SITE) {                                                  \
        return (Type)emulator::atomic_##bits(emulator::AtomicOperation::operation, address,                       \
                                             (uint##bits##_t)value, 0, site);                                     \
    }

EMULATOR_ATOMIC(atomicAdd, int, 32, add)
EMULATOR_ATOMIC(atomicAdd, unsigned, 32, add)
EMULATOR_ATOMIC(atomicAdd, unsigned long long, 64, add)
EMULATOR_ATOMIC(atomicMin, int, 32, min_signed)
EMULATOR_ATOMIC(atomicMin, unsigned, 32, min_unsigned)
EMULATOR_ATOMIC(atomicMin, long long, 64, min_signed)
EMULATOR_ATOMIC(atomicMin, unsigned long long, 64, min_unsigned)
EMULATOR_ATOMIC(atomicMax, int, 32, max_signed)
EMULATOR_ATOMIC(atomicMax, unsigned, 32, max_unsigned)
EMULATOR_ATOMIC(atomicMax, long long, 64, max_signed)
EMULATOR_ATOMIC(atomicMax, unsigned long long, 64, max_unsigned)
EMULATOR_ATOMIC(atomicAnd, int, 32, bit_and)
EMULATOR_ATOMIC(atomicAnd, unsigned, 32, bit_and)
EMULATOR_ATOMIC(atomicAnd, unsigned long long, 64, bit_and)
EMULATOR_ATOMIC(atomicOr, int, 32, bit_or)
EMULATOR_ATOMIC(atomicOr, unsigned, 32, bit_or)
EMULATOR_ATOMIC(atomicOr, unsigned long long, 64, bit_or)
EMULATOR_ATOMIC(atomicXor, int, 32, bit_xor)
EMULATOR_ATOMIC(atomicXor, unsigned, 32, bit_xor)
EMULATOR_ATOMIC(atomicXor, unsigned long long, 64, bit_xor)
EMULATOR_ATOMIC(atomicExch, int, 32, exchange)
EMULATOR_ATOMIC(atomicExch, unsigned, 32, exchange)
EMULATOR_ATOMIC(atomicExch, unsigned long long, 64, exchange)
EMULATOR_ATOMIC(atomicInc, unsigned, 32, increment)
EMULATOR_ATOMIC(atomicDec, unsigned, 32, decrement)

inline int atomicSub(int* address, int value, EMULATOR_SITE) {
    return atomicAdd(address, int(0u - unsigned(value)), site);
}

inline unsigned atomicSub(unsigned* address, unsigned value, EMULATOR_SITE) {
    return atomicAdd(address, 0u - value, site);
}

inline int atomicCAS(int* address, int compare, int value, EMULATOR_SITE) {
    return int(emulator::atomic_32(emulator::AtomicOperation::compare_exchange, address, unsigned(value),
                                   unsigned(compare), site));
}

inline unsigned atomicCAS(unsigned* address, unsigned compare, unsigned value, EMULATOR_SITE) {
    return emulator::atomic_32(emulator::AtomicOperation::compare_exchange, address, value, compare, site);
}

inline unsigned long long atomicCAS(unsigned long long* address, unsigned long long compare, unsigned long long value,
                                    EMULATOR_SITE) {
    return emulator::atomic_64(emulator::AtomicOperation::compare_exchange, address, value, compare, site);
}

inline float atomicAdd(float* address, float value, EMULATOR_SITE) {
    return emulator::atomic_add_float(address, value, site);
}

inline double atomicAdd(double* address, double value, EMULATOR_SITE) {
    return emulator::atomic_add_double(address, value, site);
}

inline float atomicExch(float* address, float value, EMULATOR_SITE) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    bits = emulator::atomic_32(emulator::AtomicOperation::exchange, address, bits, 0, site);
    __builtin_memcpy(&value, &bits, sizeof bits);
    return value;
}
