// Atomic instructions on shared and global memory. Out of line: instrumented kernel code must not contain them.
#pragma once

#include <cstdint>

#include "site.h"

namespace emulator {

enum class AtomicOperation : uint8_t {
    add, min_signed, min_unsigned, max_signed, max_unsigned, bit_and, bit_or, bit_xor, exchange, compare_exchange,
    increment, decrement,
};

// Each returns the value before. `compare` counts for compare_exchange alone.
uint32_t atomic_32(AtomicOperation operation, void* address, uint32_t value, uint32_t compare, Site site);
uint64_t atomic_64(AtomicOperation operation, void* address, uint64_t value, uint64_t compare, Site site);

// In global memory subnormal operands and results become zero (atom.add.f32); in shared memory they are kept.
float atomic_add_float(float* address, float value, Site site);
double atomic_add_double(double* address, double value, Site site);

}  // namespace emulator
