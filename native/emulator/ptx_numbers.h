// The number formats of the matrix units, on the CPU.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace emulator {

inline float bf16_value(uint16_t bits) { return std::bit_cast<float>(uint32_t(bits) << 16); }

inline float f16_value(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16;
    const uint32_t exponent = bits >> 10 & 0x1f;
    const uint32_t fraction = bits & 0x3ff;
    if (exponent == 0x1f) {
        return std::bit_cast<float>(sign | 0x7f800000 | fraction << 13);
    }
    if (exponent != 0) {
        return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
    }
    const float magnitude = float(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

// 8 bits, bias 7, no infinity: S.1111.111 is NaN.
inline float e4m3_value(uint8_t bits) {
    const uint32_t exponent = bits >> 3 & 0xf;
    const uint32_t fraction = bits & 7;
    float magnitude;
    if (exponent == 0xf && fraction == 7) {
        magnitude = std::bit_cast<float>(0x7fffffffu);
    } else if (exponent == 0) {
        magnitude = float(fraction) * 0x1p-9f;
    } else {
        magnitude = std::bit_cast<float>((exponent + 120) << 23 | fraction << 20);
    }
    return bits & 0x80 ? -magnitude : magnitude;
}

// The matrix units read the upper 19 bits and drop the others: no rounding.
inline float tf32_value(uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000); }

// Round to nearest even; every NaN becomes 0x7fff.
inline uint16_t bf16_bits(float value) {
    if (std::isnan(value)) {
        return 0x7fff;
    }
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint16_t f16_bits(float value) {
    if (std::isnan(value)) {
        return 0x7fff;
    }
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
    const float magnitude = std::bit_cast<float>(bits & 0x7fffffff);
    if (magnitude >= 65520.0f) {  // half way between the largest number and the next
        return sign | 0x7c00;
    }
    if (magnitude < 0x1p-14f) {  // subnormal: a float add at 0.5 rounds at the right bit, half-way cases to even
        const uint32_t rounded = std::bit_cast<uint32_t>(magnitude + 0.5f) - std::bit_cast<uint32_t>(0.5f);
        return sign | uint16_t(rounded);
    }
    const uint32_t magnitude_bits = bits & 0x7fffffff;
    const uint32_t rounded = magnitude_bits + 0xfff + (magnitude_bits >> 13 & 1);
    return sign | uint16_t((rounded >> 13) - (112 << 10));
}

// Round to nearest, ties away from zero.
inline uint32_t tf32_bits(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    if (std::isnan(value)) {
        return 0x7fffffff;
    }
    if (std::isinf(value)) {
        return bits;
    }
    return (bits + 0x1000) & 0xffffe000;
}

inline float flush_subnormal(float value) {
    return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}

}  // namespace emulator
