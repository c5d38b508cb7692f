// The activations of Activation.Kind, on vectors of floats.
#pragma once

#include "dtypes.cuh"
#include "gelu.cuh"
#include "sigmoid.cuh"

namespace activation {

using dtypes::Values;

// Ordinals of Activation.Kind.
constexpr int kSwiglu = 0;
constexpr int kClampedSwiglu = 1;
constexpr int kSilu = 2;
constexpr int kRelu = 3;
constexpr int kSquaredRelu = 4;
constexpr int kGelu = 5;
constexpr int kGeluTanh = 6;
constexpr int kLinear = 7;
constexpr int kGeglu = 8;
constexpr int kGegluTanh = 9;
constexpr int kReglu = 10;
constexpr int kGlu = 11;
constexpr int kBilinear = 12;

constexpr double kClampedSlope = 1.702;

// NaN stays: comparisons with it are false.
__device__ __forceinline__ float relu(float x) { return x <= 0.0f ? 0.0f : x; }

// Gate and up of the clamped product within their limits.
__device__ __forceinline__ float clamped_gate(float gate, float limit) { return gate > limit ? limit : gate; }

__device__ __forceinline__ float clamped_factor(float up, float limit) {
    float u = up > limit ? limit : up;
    return (u < -limit ? -limit : u) + 1.0f;
}

// Of one element; a gate only where the kind has one.
template <int kind>
__device__ __forceinline__ float activated(float limit, float gate, float up) {
    if constexpr (kind == kSwiglu) {
        return swish_product(gate, 1.0, up);
    } else if constexpr (kind == kClampedSwiglu) {
        return swish_product(clamped_gate(gate, limit), kClampedSlope, clamped_factor(up, limit));
    } else if constexpr (kind == kSilu) {
        return swish_product(up, 1.0, 1.0f);
    } else if constexpr (kind == kRelu) {
        return relu(up);
    } else if constexpr (kind == kSquaredRelu) {
        return relu(up) * relu(up);
    } else if constexpr (kind == kGelu) {
        return gelu_product(up, 1.0f);
    } else if constexpr (kind == kGeluTanh) {
        return gelu_tanh_product(up, 1.0f);
    } else if constexpr (kind == kGeglu) {
        return gelu_product(gate, up);
    } else if constexpr (kind == kGegluTanh) {
        return gelu_tanh_product(gate, up);
    } else if constexpr (kind == kReglu) {
        return relu(gate) * up;
    } else if constexpr (kind == kGlu) {
        return gate_product(gate, up);
    } else if constexpr (kind == kBilinear) {
        return gate * up;
    } else {
        return up;
    }
}

template <int kind, int count>
__device__ __forceinline__ void activate(float limit, const Values<count>& gate, Values<count>& up) {
#pragma unroll
    for (int i = 0; i < count; i++) {
        up.at[i] = activated<kind>(limit, gate.at[i], up.at[i]);
    }
}

// The switch stands outside the loops: one branch for all elements of a vector.
template <int count>
__device__ __forceinline__ void activate(int kind, float limit, const Values<count>& gate, Values<count>& up) {
    switch (kind) {
        case kSwiglu:
            return activate<kSwiglu>(limit, gate, up);
        case kClampedSwiglu:
            return activate<kClampedSwiglu>(limit, gate, up);
        case kSilu:
            return activate<kSilu>(limit, gate, up);
        case kRelu:
            return activate<kRelu>(limit, gate, up);
        case kSquaredRelu:
            return activate<kSquaredRelu>(limit, gate, up);
        case kGelu:
            return activate<kGelu>(limit, gate, up);
        case kGeluTanh:
            return activate<kGeluTanh>(limit, gate, up);
        case kGeglu:
            return activate<kGeglu>(limit, gate, up);
        case kGegluTanh:
            return activate<kGegluTanh>(limit, gate, up);
        case kReglu:
            return activate<kReglu>(limit, gate, up);
        case kGlu:
            return activate<kGlu>(limit, gate, up);
        case kBilinear:
            return activate<kBilinear>(limit, gate, up);
        default:  // kLinear
            return;
    }
}

// Of one element, for results of 16 bits; of kinds with a sigmoid not below kShortFrom.
template <int kind>
__device__ __forceinline__ float short_activated(float limit, float gate, float up) {
    if constexpr (kind == kSwiglu) {
        return short_swish_product(gate, 1.0, up);
    } else if constexpr (kind == kClampedSwiglu) {
        return short_swish_product(clamped_gate(gate, limit), kClampedSlope, clamped_factor(up, limit));
    } else if constexpr (kind == kGlu) {
        return short_sigmoid(gate, 1.0) * up;
    } else if constexpr (kind == kGelu) {
        return short_gelu_product(up, 1.0f);
    } else if constexpr (kind == kGeluTanh) {
        return short_gelu_tanh_product(up, 1.0f);
    } else if constexpr (kind == kGeglu) {
        return short_gelu_product(gate, up);
    } else if constexpr (kind == kGegluTanh) {
        return short_gelu_tanh_product(gate, up);
    } else {
        return activated<kind>(limit, gate, up);
    }
}

// For results of 16 bits: the short form where it suits all elements, which is nearly always.
template <int kind, int count>
__device__ __forceinline__ void activate_16_bits(float limit, const Values<count>& gate, Values<count>& up) {
    if constexpr (kind == kSwiglu || kind == kClampedSwiglu || kind == kGlu) {
        bool low = false;
#pragma unroll
        for (int i = 0; i < count; i++) {
            low |= gate.at[i] < kShortFrom;
        }
        if (low) {
            activate<kind>(limit, gate, up);
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < count; i++) {
        up.at[i] = short_activated<kind>(limit, gate.at[i], up.at[i]);
    }
}

// Of kinds with a gate.
template <int count>
__device__ __forceinline__ void activate_16_bits(int kind, float limit, const Values<count>& gate, Values<count>& up) {
    switch (kind) {
        case kSwiglu:
            return activate_16_bits<kSwiglu>(limit, gate, up);
        case kClampedSwiglu:
            return activate_16_bits<kClampedSwiglu>(limit, gate, up);
        case kGeglu:
            return activate_16_bits<kGeglu>(limit, gate, up);
        case kGegluTanh:
            return activate_16_bits<kGegluTanh>(limit, gate, up);
        case kReglu:
            return activate_16_bits<kReglu>(limit, gate, up);
        case kGlu:
            return activate_16_bits<kGlu>(limit, gate, up);
        default:
            return activate_16_bits<kBilinear>(limit, gate, up);
    }
}

__device__ __forceinline__ bool gated(int kind) { return kind == kSwiglu || kind == kClampedSwiglu || kind >= kGeglu; }

}  // namespace activation
