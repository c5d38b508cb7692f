/* From sums to y: bias, activation, rounding. */
#ifndef JMOE_FINISH_H
#define JMOE_FINISH_H

#include "lanes.h"

/* Slope inside the sigmoid of JMOE_CLAMPED_SWIGLU. */
static const float CLAMPED_SWIGLU_ALPHA = 1.702f;

/*
 * x sigmoid(slope x) factor. With e = exp(-|z|), z = slope x, the sigmoid is 1 / (1 + e), or
 * e / (1 + e) for negative z; -|z| = n ln 2 + r with |r| at most ln(2) / 2, and e = 2^n e^r with
 * the series of e^r up to a remainder below 0.1 ulp. Subnormal results are kept; infinities and
 * NaN come out as from the formula. The steps are those of jmoe.vector.Sigmoid, so that both give
 * the same bits.
 */
INLINE floats sigmoid_product(floats x, float slope, floats factor) {
    const floats one = all_lanes(1);
    /* From here on down the result rounds to 0: times -z and the largest F32, e^z is no F32. */
    const floats lowest = all_lanes(-200);
    /* Adding it rounds to an integer, which is then found in the low bits. */
    const floats rounder = all_lanes(0x1.8p23f);
    /* Below this the sigmoid is 0, as where e^-z overflows in double; matters beside infinity. */
    const floats zero_below = all_lanes(-709.78265f);
    /* Times this power of two, e^r is still far from subnormal. */
    const int32_t normal_power = -100;

    floats z = x * slope;
    floats exponent = (floats)((ints)z | INT32_MIN);
    exponent = blend(exponent < lowest, lowest, exponent);
    floats rounded = multiply_add(exponent, all_lanes(0x1.715476p+0f), rounder);
    floats multiple = rounded - rounder;
    /* ln 2 in two parts; the first has trailing zeros, so that a multiple of it is exact. */
    floats r = multiply_add(multiple, all_lanes(-0x1.62e4p-1f), exponent);
    r = multiply_add(multiple, all_lanes(-0x1.7f7d1cp-20f), r);
    floats series = multiply_add(r, all_lanes(1 / 5040.f), all_lanes(1 / 720.f));
    series = multiply_add(series, r, all_lanes(1 / 120.f));
    series = multiply_add(series, r, all_lanes(1 / 24.f));
    series = multiply_add(series, r, all_lanes(1 / 6.f));
    series = multiply_add(series, r, all_lanes(1 / 2.f));
    floats mantissa = multiply_add(series, r * r, r) + 1;

    /* 2^n = low middle high, as one power may be subnormal. */
    ints n = (ints)rounded - (ints)rounder;
    ints is_low = n < normal_power;
    ints most = (is_low & normal_power) | (~is_low & n);
    floats low = (floats)((most + 127) << 23);
    low = (floats)((ints)low & ~(z < zero_below));
    ints rest = n - most;
    ints half = rest >> 1;
    floats middle = (floats)((half + 127) << 23);
    floats high = (floats)((rest - half + 127) << 23);

    /* Where low is not all of 2^n, e is lost beside 1 anyway. */
    floats divisor = mantissa * low + 1;
    ints negative = z < 0;
    /* The first power comes before all else, so that the largest argument does not overflow, the
     * last ones after the factor, so that only the result can be subnormal. */
    floats result = x * blend(negative, low, one) * blend(negative, mantissa, one) / divisor;
    return result * factor * blend(negative, middle, one) * blend(negative, high, one);
}

INLINE floats at_most(floats value, floats bound) {
    return blend(value > bound, bound, value);
}

/* NaN stays, minus zero becomes zero. */
INLINE floats relu(floats value) {
    return (floats)((ints)value & ~(value <= 0));
}

INLINE floats activate(const jmoe_cpu_product *product, floats gate, floats up) {
    switch (product->activation) {
    case JMOE_SWIGLU:
        return sigmoid_product(gate, 1, up);
    case JMOE_CLAMPED_SWIGLU: {
        floats limit = all_lanes(product->limit);
        floats clamped = at_most(up, limit);
        clamped = blend(clamped < -limit, -limit, clamped);
        return sigmoid_product(at_most(gate, limit), CLAMPED_SWIGLU_ALPHA, clamped + 1);
    }
    case JMOE_SILU:
        return sigmoid_product(up, 1, all_lanes(1));
    case JMOE_RELU:
        return relu(up);
    case JMOE_SQUARED_RELU:
        return relu(up) * relu(up);
    default:
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
