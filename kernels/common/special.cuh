// Values that have no literal.
#pragma once

#include "device.cuh"

namespace special {

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }

// The one NaN that is ever stored, so that a repeated call gives the same bits.
__device__ __forceinline__ float nan() { return __uint_as_float(0x7fc00000u); }

}  // namespace special
