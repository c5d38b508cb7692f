/* From sums to y: bias, activation, rounding. */
#ifndef JMOE_FINISH_H
#define JMOE_FINISH_H

#include "lanes.h"

/* Slope inside the sigmoid of JMOE_CLAMPED_SWIGLU. */
static const float CLAMPED_SWIGLU_ALPHA = 1.702f;

/* 2^n mantissa, as the product of three powers of two: one may be subnormal. */
typedef struct power {
    floats mantissa;
    floats low;
    floats middle;
    floats high;
} power;

/*
 * e^(exponent + rest), exponent from -200 to 0. exponent = n ln 2 + r with |r| at most ln(2) / 2,
 * and e^r is its series up to a remainder below 0.1 ulp. The steps here and below are those of
 * jmoe.vector.Sigmoid and Gelu, so that both give the same bits.
 */
INLINE power power_of_e(floats exponent, floats rest) {
    /* Adding it rounds to an integer, which is then found in the low bits. */
    const floats rounder = all_lanes(0x1.8p23f);
    /* Times this power of two, e^r is still far from subnormal. */
    const int32_t normal_power = -100;

    floats rounded = multiply_add(exponent, all_lanes(0x1.715476p+0f), rounder);
    floats multiple = rounded - rounder;
    /* ln 2 in two parts; the first has trailing zeros, so that a multiple of it is exact. */
    floats r = multiply_add(multiple, all_lanes(-0x1.62e4p-1f), exponent);
    r = multiply_add(multiple, all_lanes(-0x1.7f7d1cp-20f), r) + rest;
    floats series = multiply_add(r, all_lanes(1 / 5040.f), all_lanes(1 / 720.f));
    series = multiply_add(series, r, all_lanes(1 / 120.f));
    series = multiply_add(series, r, all_lanes(1 / 24.f));
    series = multiply_add(series, r, all_lanes(1 / 6.f));
    series = multiply_add(series, r, all_lanes(1 / 2.f));

    ints n = (ints)rounded - (ints)rounder;
    ints is_low = n < normal_power;
    ints most = (is_low & normal_power) | (~is_low & n);
    ints others = n - most;
    ints part = others >> 1;
    power result = {
        .mantissa = multiply_add(series, r * r, r) + 1,
        .low = (floats)((most + 127) << 23),
        .middle = (floats)((part + 127) << 23),
        .high = (floats)((others - part + 127) << 23),
    };
    return result;
}

INLINE floats at_most(floats value, floats bound) {
    return blend(value > bound, bound, value);
}

INLINE floats magnitude(floats value) {
    return (floats)((ints)value & INT32_MAX);
}

/*
 * x sigmoid(z) factor; size = |z| up to a rest. With e = exp(-|z|) the sigmoid is 1 / (1 + e), or
 * e / (1 + e) for negative z. Subnormal results are kept; infinities and NaN come out as from the
 * formula.
 */
INLINE floats sigmoid_product(floats x, ints negative, floats size, floats rest, floats factor) {
    const floats one = all_lanes(1);
    /* From here on down the result rounds to 0: times -z and the largest F32, e^z is no F32. */
    const floats lowest = all_lanes(-200);
    /* From here on the sigmoid is 0, as where e^-z overflows in double; matters beside infinity. */
    const floats zero_above = all_lanes(709.78265f);

    power e = power_of_e(blend(-size < lowest, lowest, -size), -rest);
    e.low = (floats)((ints)e.low & ~(size > zero_above));
    /* Where low is not all of 2^n, e is lost beside 1 anyway. */
    floats divisor = e.mantissa * e.low + 1;
    /* The first power comes before all else, so that the largest argument does not overflow, the
     * last ones after the factor, so that only the result can be subnormal. */
    floats result = x * blend(negative, e.low, one) * blend(negative, e.mantissa, one) / divisor;
    return result * factor * blend(negative, e.middle, one) * blend(negative, e.high, one);
}

/* x sigmoid(slope x) factor. */
INLINE floats swish_product(floats x, float slope, floats factor) {
    floats z = x * slope;
    return sigmoid_product(x, z < 0, magnitude(z), all_lanes(0), factor);
}

/* x (1 + tanh(z)) / 2 factor = x sigmoid(2 z) factor, with z = sqrt(2 / pi) (x + 0.044715 x^3). */
INLINE floats gelu_tanh_product(floats x, floats factor) {
    /* 2 z = x (slope + cube x^2), each in two parts: e^z is off by as much of itself as z in units. */
    const double exact_slope = 0x1.9884533d43651p+0;
    const double exact_cube = 0.044715 * exact_slope;
    const floats slope = all_lanes((float)exact_slope);
    const floats cube = all_lanes((float)exact_cube);

    /* So far that the sigmoid is 0 or 1, but the third power does not overflow. */
    floats a = at_most(magnitude(x), all_lanes(100));
    floats square = a * a;
    floats square_low = multiply_add(a, a, -square);
    floats cubed = square * cube;
    floats cubed_low = multiply_add(square, cube, -cubed);
    cubed_low = multiply_add(square_low, cube, cubed_low);
    cubed_low = multiply_add(square, all_lanes((float)(exact_cube - (double)(float)exact_cube)), cubed_low);
    /* The sum of both, and what it lacks; Knuth's, as either may be larger. */
    floats sum = cubed + slope;
    floats added = sum - slope;
    floats sum_low = (slope - (sum - added)) + (cubed - added);
    sum_low = sum_low + (cubed_low + (float)(exact_slope - (double)(float)exact_slope));
    floats size = a * sum;
    floats rest = multiply_add(a, sum_low, multiply_add(a, sum, -size));
    return sigmoid_product(x, x < 0, size, rest, factor);
}

/*
 * x Phi(x) factor, with Phi the standard normal distribution. Phi(-a) is exp(-a^2 / 2) times what
 * falls slowly from 1/2 towards 0.4 / a: divided by a + 4, a polynomial of t = (a - 4) / (a + 4),
 * fitted for a from 0 to 20, where it is off by at most 2e-8 of itself. See jmoe.vector.Gelu.
 */
INLINE floats gelu_product(floats x, floats factor) {
    static const float OF_T[] = {0x1.82b4bcp-1f,  -0x1.373e3ap-1f, 0x1.8c6da2p-2f,  -0x1.7e0008p-3f, 0x1.eecdbp-5f,
                                 -0x1.ed09eap-8f, -0x1.ca16a6p-9f, 0x1.9be6b4p-10f, 0x1.3a89c6p-13f, -0x1.3aaca8p-13f};
    const floats one = all_lanes(1);
    /* Below this Phi is 0, as the smallest double is more; matters beside infinity. */
    const floats zero_below = all_lanes(-38.485283f);

    /* Up to where the exponent is the lowest. */
    floats a = at_most(magnitude(x), all_lanes(20));
    floats half = a * -0.5f;
    floats exponent = a * half;
    power e = power_of_e(exponent, multiply_add(a, half, -exponent));
    e.low = (floats)((ints)e.low & ~(x < zero_below));

    /* 1 / (a + 4), once more corrected, as the sum was rounded too. */
    floats inverse = one / (a + 4);
    floats lacking = multiply_add(-inverse, a, multiply_add(inverse, all_lanes(-4), one));
    inverse = multiply_add(inverse, lacking, inverse);
    floats t = multiply_add(inverse, all_lanes(-8), one);
    floats ratio = all_lanes(OF_T[9]);
#pragma GCC unroll 9
    for (int i = 8; i >= 0; i--) {
        ratio = multiply_add(ratio, t, all_lanes(OF_T[i]));
    }

    floats tail = e.mantissa * (ratio * inverse);
    ints negative = x < 0;
    floats result = x * blend(negative, e.low, one) * blend(negative, tail, one - tail * e.low);
    return result * factor * blend(negative, e.middle, one) * blend(negative, e.high, one);
}

/* NaN stays, minus zero becomes zero. */
INLINE floats relu(floats value) {
    return (floats)((ints)value & ~(value <= 0));
}

INLINE floats activate(const jmoe_cpu_product *product, floats gate, floats up) {
    const floats one = all_lanes(1);
    switch (product->activation) {
    case JMOE_SWIGLU:
        return swish_product(gate, 1, up);
    case JMOE_CLAMPED_SWIGLU: {
        floats limit = all_lanes(product->limit);
        floats clamped = at_most(up, limit);
        clamped = blend(clamped < -limit, -limit, clamped);
        return swish_product(at_most(gate, limit), CLAMPED_SWIGLU_ALPHA, clamped + 1);
    }
    case JMOE_SILU:
        return swish_product(up, 1, one);
    case JMOE_RELU:
        return relu(up);
    case JMOE_SQUARED_RELU:
        return relu(up) * relu(up);
    case JMOE_GELU:
        return gelu_product(up, one);
    case JMOE_GELU_TANH:
        return gelu_tanh_product(up, one);
    case JMOE_GEGLU:
        return gelu_product(gate, up);
    case JMOE_GEGLU_TANH:
        return gelu_tanh_product(gate, up);
    case JMOE_REGLU:
        return relu(gate) * up;
    case JMOE_GLU:
        return sigmoid_product(one, gate < 0, magnitude(gate), all_lanes(0), up);
    case JMOE_BILINEAR:
        return gate * up;
    default: /* none, or JMOE_LINEAR */
        return up;
    }
}

/* Rounds 16 numbers to the type of y; every NaN becomes the canonical one. */
INLINE void narrow(int32_t type, const floats value[VECTORS], char *to) {
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) {
        floats canonical = blend(value[v] == value[v], value[v], all_lanes(__builtin_nanf("")));
        if (type == JMOE_F32) {
            store(to + v * LANES * 4, canonical);
        } else if (type == JMOE_BF16) {
            narrow_bf16(to + v * LANES * 2, canonical);
        } else {
            narrow_f16(to + v * LANES * 2, canonical);
        }
    }
}

/* Writes up to 16 columns of a row of y. */
INLINE void write_columns(const item *item, int64_t element, int64_t count, const floats value[VECTORS]) {
    int32_t type = item->product->y_type;
    int64_t bytes = type_bytes(type);
    char *to = item->y + element * bytes;
    if (count == PANEL_COLUMNS) {
        narrow(type, value, to);
        return;
    }
    char all[PANEL_COLUMNS * 4];
    narrow(type, value, all);
    memcpy(to, all, (size_t)(count * bytes));
}

/* 16 numbers that belong to the outputs of a panel, with zeros behind the last. */
INLINE void read_outputs(const float *of_group, outputs found, float to[PANEL_COLUMNS]) {
    memset(to, 0, PANEL_COLUMNS * sizeof *to);
    if (of_group) {
        memcpy(to, of_group + found.first, (size_t)found.count * sizeof *to);
    }
}

/*
 * Finishes a block of all rows. sums: F32 of two panels, panel_sums bytes apart, rows of 16 after
 * each other.
 */
static void finish_block(const item *item, int64_t block, const char *sums, int64_t panel_sums) {
    const jmoe_cpu_product *product = item->product;
    int64_t parts = product->parts;
    int activates = product->activation != JMOE_NO_ACTIVATION;
    const float *group_bias = item->bias ? item->bias + item->group * parts * product->columns : 0;
    outputs found[BLOCK_PANELS];
    float bias[BLOCK_PANELS][PANEL_COLUMNS];
    for (int p = 0; p < BLOCK_PANELS; p++) {
        found[p] = panel_outputs(product, block, p);
        read_outputs(group_bias, found[p], bias[p]);
    }
    for (int64_t r = 0; r < item->rows; r++) {
        floats value[BLOCK_PANELS][VECTORS];
        for (int p = 0; p < BLOCK_PANELS; p++) {
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) {
                floats sum = load(sums + p * panel_sums + (r * PANEL_COLUMNS + v * LANES) * 4);
                value[p][v] = group_bias ? sum + load(bias[p] + v * LANES) : sum;
            }
        }
        int64_t row = item->row + r;
        if (activates && parts == 2) {
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) {
                value[0][v] = activate(product, value[0][v], value[1][v]);
            }
            write_columns(item, row * product->columns + found[0].first, found[0].count, value[0]);
            continue;
        }
        for (int p = 0; p < BLOCK_PANELS; p++) {
            if (found[p].count == 0) {
                continue;
            }
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) {
                value[p][v] = activate(product, value[p][v], value[p][v]);
            }
            write_columns(item, row * parts * product->columns + found[p].first, found[p].count, value[p]);
        }
    }
}

#endif
