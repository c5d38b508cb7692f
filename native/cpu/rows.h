/* Rows of x as the tiles want them: widened to F32, or quantised to I8. */
#ifndef JMOE_ROWS_H
#define JMOE_ROWS_H

#include "lanes.h"

/* Inputs that a tile works through before its sums are stored. Two panels of so many, the one that
 * is multiplied by and the next, fit in the first-level cache with the rows of a tile: with 512
 * inputs the product of 16 rows took 1.3 times as long (AVX2, 32 KiB). */
enum { MAX_INPUTS = 256 };

/* From one gathered row to the next, F32 or I8: more than a power of two, for the cache's sake. */
enum { ROW_BYTES = MAX_INPUTS * 4 + LINE_BYTES };

INLINE floats widen(int32_t type, const char *at) {
    return type == JMOE_F32 ? load(at) : type == JMOE_BF16 ? widen_bf16(at) : widen_f16(at);
}

/* Some inputs of a row, times its factor, and zeros up to a whole number of vectors. */
INLINE void widen_row(const item *item, int64_t row, int64_t input, int64_t inputs, float *to) {
    int32_t type = item->product->x_type;
    int64_t bytes = type_bytes(type);
    const char *from = x_at(item, row, input);
    int64_t whole = inputs / LANES * LANES;
    floats factor = all_lanes(x_factor(item, row));
    int weighted = item->slot_weights != 0;
    for (int64_t k = 0; k < whole; k += LANES) {
        floats value = widen(type, from + k * bytes);
        store(to + k, weighted ? value * factor : value);
    }
    if (whole < inputs) {
        /* What lies behind the row is not ours to read. */
        char tail[LINE_BYTES] = {0};
        memcpy(tail, from + whole * bytes, (size_t)((inputs - whole) * bytes));
        floats value = widen(type, tail);
        store(to + whole, weighted ? value * factor : value);
        /* After the factor, which may be infinite. */
        memset(to + inputs, 0, (size_t)(whole + LANES - inputs) * sizeof *to);
    }
}

#endif
