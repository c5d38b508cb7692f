/* Rows of x as I8 codes: x is a factor times a code, one factor for each row. */
#ifndef JMOE_CODES_H
#define JMOE_CODES_H

#include "finish.h"
#include "rows.h"

/* Largest code; minus 128 is left out, so that codes are symmetric. */
enum { MAX_CODE = 127 };

/* How a row is quantised, and the sum of its codes. */
typedef struct coded_row {
    float scale;   /* of a code: the row's largest magnitude / 127 */
    float inverse; /* from a number to its code */
    int32_t sum;   /* of the codes so far */
} coded_row;

/* A row with a NaN or an infinity gets a scale of NaN, and so does its result. One whose numbers
 * are so small that 127 divided by them is no F32 counts as zeros. */
static coded_row code_row(const item *item, int64_t row) {
    float buffer[MAX_INPUTS] __attribute__((aligned(LINE_BYTES)));
    floats most = all_lanes(0);
    ints unordered = {0};
    for (int64_t k = 0; k < item->product->inputs; k += MAX_INPUTS) {
        int64_t left = item->product->inputs - k;
        int64_t count = left < MAX_INPUTS ? left : MAX_INPUTS;
        widen_row(item, row, k, count, buffer);
        for (int64_t i = 0; i < count; i += LANES) {
            floats magnitude = (floats)((ints)load(buffer + i) & INT32_MAX);
            unordered |= magnitude != magnitude;
            most = blend(magnitude > most, magnitude, most);
        }
    }
    float largest = 0;
    int32_t is_nan = 0;
    for (int lane = 0; lane < LANES; lane++) {
        largest = most[lane] > largest ? most[lane] : largest;
        is_nan |= unordered[lane];
    }
    float inverse = MAX_CODE / largest;
    if (is_nan || largest > __FLT_MAX__) {
        coded_row none = {__builtin_nanf(""), 0, 0};
        return none;
    }
    if (inverse > __FLT_MAX__) {
        coded_row zeros = {0, 0, 0};
        return zeros;
    }
    coded_row coded = {largest / MAX_CODE, inverse, 0};
    return coded;
}

/* Some inputs of a row as codes, to nearest, ties to even, with zeros up to whole vectors. */
static void encode_row(const item *item, int64_t row, int64_t input, int64_t inputs, coded_row *coded, int8_t *to) {
    float buffer[MAX_INPUTS] __attribute__((aligned(LINE_BYTES)));
    floats inverse = all_lanes(coded->inverse);
    ints sum = {0};
    for (int64_t k = 0; k < inputs; k += MAX_INPUTS) {
        int64_t count = inputs - k < MAX_INPUTS ? inputs - k : MAX_INPUTS;
        widen_row(item, row, input + k, count, buffer);
        for (int64_t i = 0; i < count; i += LANES) {
            ints codes = to_ints(load(buffer + i) * inverse);
            sum += codes;
            typedef int8_t bytes __attribute__((vector_size(LANES)));
            bytes narrow_codes = __builtin_convertvector(codes, bytes);
            memcpy(to + k + i, &narrow_codes, LANES);
        }
    }
    for (int lane = 0; lane < LANES; lane++) {
        coded->sum += sum[lane];
    }
}

/*
 * Turns the sums of a block from I32 to F32: scale of the row times scale of the output times
 * (sum - excess * sum of the row's codes).
 */
static void decode_block(
    const item *item, int64_t block, const coded_row *coded, int32_t excess, char *sums, int64_t panel_sums) {
    const jmoe_cpu_product *product = item->product;
    const float *group_scale = item->weight_scale + item->group * product->parts * product->columns;
    for (int p = 0; p < BLOCK_PANELS; p++) {
        float scale[PANEL_COLUMNS];
        read_outputs(group_scale, panel_outputs(product, block, p), scale);
        for (int64_t r = 0; r < item->rows; r++) {
            floats row_scale = all_lanes(coded[r].scale);
            for (int v = 0; v < VECTORS; v++) {
                char *at = sums + p * panel_sums + (r * PANEL_COLUMNS + v * LANES) * 4;
                floats exact = to_floats(load_ints(at) - excess * coded[r].sum);
                store(at, exact * (row_scale * load(scale + v * LANES)));
            }
        }
    }
}

#endif
