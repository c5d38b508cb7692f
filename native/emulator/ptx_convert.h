// Twins of kernels/common/ptx_convert.cuh.
#pragma once

#include <cmath>
#include <cstdint>

#include "ptx_numbers.h"
#include "simt.h"

namespace ptx {

inline float f16_to_f32(uint16_t value) { return emulator::f16_value(value); }
inline uint16_t f32_to_f16(float value) { return emulator::f16_bits(value); }
inline float bf16_to_f32(uint16_t value) { return emulator::bf16_value(value); }
inline uint16_t f32_to_bf16(float value) { return emulator::bf16_bits(value); }

inline uint32_t f32_to_f16x2(float low, float high) { return f32_to_f16(low) | uint32_t(f32_to_f16(high)) << 16; }
inline uint32_t f32_to_bf16x2(float low, float high) { return f32_to_bf16(low) | uint32_t(f32_to_bf16(high)) << 16; }

inline float2 f16x2_to_f32(uint32_t pair) {
    return make_float2(f16_to_f32(uint16_t(pair)), f16_to_f32(uint16_t(pair >> 16)));
}

inline float2 bf16x2_to_f32(uint32_t pair) {
    return make_float2(bf16_to_f32(uint16_t(pair)), bf16_to_f32(uint16_t(pair >> 16)));
}

inline uint32_t f32_to_tf32(float value) { return emulator::tf32_bits(value); }

// The hardware's last bits differ.
inline float exp2_approx(float value) { return emulator::flush_subnormal(std::exp2(emulator::flush_subnormal(value))); }
inline float rcp_approx(float value) { return emulator::flush_subnormal(1.0f / emulator::flush_subnormal(value)); }
inline float tanh_approx(float value) { return std::tanh(value); }

}  // namespace ptx
