// The activations by their formulas, in double.
#pragma once

#include <algorithm>
#include <cmath>

namespace activation_definition {

// Ordinals of Activation.Kind, and none.
enum Kind {
    kNone = -1,
    kSwiglu,
    kClampedSwiglu,
    kSilu,
    kRelu,
    kSquaredRelu,
    kGelu,
    kGeluTanh,
    kLinear,
    kGeglu,
    kGegluTanh,
    kReglu,
    kGlu,
    kBilinear,
    kKinds
};

inline bool is_gated(int kind) { return kind == kSwiglu || kind == kClampedSwiglu || kind >= kGeglu; }

// NaN if one of them is.
inline double least(double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b); }
inline double most(double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b); }

inline double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }
inline double gelu(double x) { return x * std::erfc(-x * std::sqrt(0.5)) / 2; }
inline double gelu_tanh(double x) { return x * sigmoid(2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)); }

inline double activate(int kind, double limit, double gate, double up) {
    switch (kind) {
        case kSwiglu:
            return gate * sigmoid(gate) * up;
        case kClampedSwiglu: {
            double g = least(gate, limit);
            return g * sigmoid(1.702 * g) * (most(-limit, least(up, limit)) + 1);
        }
        case kSilu:
            return up * sigmoid(up);
        case kRelu:
            return most(up, 0);
        case kSquaredRelu:
            return most(up, 0) * most(up, 0);
        case kGelu:
            return gelu(up);
        case kGeluTanh:
            return gelu_tanh(up);
        case kGeglu:
            return gelu(gate) * up;
        case kGegluTanh:
            return gelu_tanh(gate) * up;
        case kReglu:
            return most(gate, 0) * up;
        case kGlu:
            return sigmoid(gate) * up;
        case kBilinear:
            return gate * up;
        default:  // kLinear, or none
            return up;
    }
}

}  // namespace activation_definition
