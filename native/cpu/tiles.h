/*
 * Tiles: some rows of x by some panels, with every sum in a register. A sum of F32 takes its terms
 * in rising order of inputs, rounded once each, in whichever tile it is computed, so that neither
 * tiles nor batches nor the width of vectors change a bit; sums of I8 are exact.
 */
#ifndef JMOE_TILES_H
#define JMOE_TILES_H

#include "rows.h"

/* Panels that the tile of one row has; few rows read many panels, because many streams from memory
 * are faster than one. */
enum { MAX_TILE_PANELS = 8 };

/* Bytes of a panel that a tile works through in a step, and the inputs in them. */
INLINE int64_t step_bytes(int32_t type) {
    return type == JMOE_F16 ? 32 : 64;
}

INLINE int64_t step_inputs(int32_t type) {
    return type == JMOE_I8 ? 4 : type == JMOE_BF16 ? 2 : 1;
}

/* Bytes of a gathered row for a step: four codes, or an F32 for each input. */
INLINE int64_t step_row_bytes(int32_t type) {
    return type == JMOE_I8 ? 4 : step_inputs(type) * 4;
}

/* The second numbers of pairs of BF16, as F32. */
INLINE floats second_of_pairs(words pairs) {
#if LANES == 8
    /* The mask stays in memory: there is no register to spare. */
    static const uint32_t MASK[LANES] __attribute__((aligned(32))) = {
        0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000, 0xffff0000};
    floats second;
    __asm__("vpand %2, %1, %0" : "=x"(second) : "x"(pairs), "m"(MASK));
    return second;
#else
    return (floats)(pairs & 0xffff0000);
#endif
}

/* One vector of a panel's step, for one of its inputs: the upper half of a pair of BF16 is the
 * second input, and an F32 already but for the lower half. The four codes of I8 stay together. */
INLINE floats weight_vector(int32_t type, const char *step, int64_t vector, int64_t input) {
    if (type == JMOE_F32) {
        return load(step + vector * LANES * 4);
    }
    if (type == JMOE_F16) {
        return widen_f16(step + vector * LANES * 2);
    }
    words pairs = (words)load_ints(step + vector * LANES * 4);
    if (type == JMOE_I8) {
        return (floats)pairs;
    }
    return input == 0 ? (floats)(pairs << 16) : second_of_pairs(pairs);
}

/* What a tile multiplies. */
typedef struct operands {
    const char *x;        /* rows, ROW_BYTES apart, and zeros behind the last input of a step */
    const char *panels;   /* where the inputs begin in the first panel */
    int64_t panel_bytes;  /* from panel to panel */
    int64_t steps;
    char *sums;           /* of the first row and panel, F32 or I32 */
    int64_t panel_sums;   /* bytes from panel to panel; rows follow each other */
    const char *ahead;    /* what to fetch meanwhile, or NULL: as many panels, as far apart */
} operands;

typedef floats tile_sums[MAX_TILE_ROWS][MAX_TILE_PANELS][VECTORS];

INLINE char *sum_at(const operands *of, int row, int panel, int vector) {
    return of->sums + panel * of->panel_sums + (row * PANEL_COLUMNS + vector * LANES) * 4;
}

/* sum += x w, of one input or of four codes. */
INLINE void add_product(int32_t type, floats *sum, floats factor, floats vector) {
    if (type == JMOE_I8) {
        ints codes = (ints)*sum;
        accumulate_codes(&codes, (ints)factor, (ints)vector);
        *sum = (floats)codes;
    } else {
        accumulate(sum, factor, vector);
    }
}

/* One input, or four codes, of all rows by some vectors of the weight: those of one panel where
 * there are 16 registers, else those of all panels. */
INLINE void add_products(
    const int rows, const int first, const int past, const int32_t type, const char *x, floats vectors[][VECTORS], tile_sums sums) {
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        floats factor = next_factor(x + r * ROW_BYTES);
#pragma GCC unroll 16
        for (int p = first; p < past; p++) {
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) {
                add_product(type, &sums[r][p][v], factor, vectors[p][v]);
            }
        }
    }
}

/* Rows, panels and the type are constants wherever it is called, so that the loops over them
 * dissolve and the sums are registers. */
INLINE void multiply_tile(const int rows, const int panels, const int32_t type, const operands *of) {
    const int panels_at_once = LANES == 8 ? 1 : panels;
    const int inputs_apart = type == JMOE_BF16 ? 2 : 1;
    tile_sums sums;
#pragma GCC unroll 16
    for (int p = 0; p < panels; p++) {
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) {
                sums[r][p][v] = load(sum_at(of, r, p, v));
            }
        }
    }
    const char *x = of->x;
    const char *weight = of->panels;
    const int64_t panel_bytes = of->panel_bytes;
    const int64_t ahead = of->ahead ? of->ahead - of->panels : PREFETCH_BYTES;
    for (int64_t steps = of->steps; steps > 0; steps--) {
#pragma GCC unroll 2
        for (int k = 0; k < inputs_apart; k++) {
            /* The weight of the second input is loaded again, rather than kept in registers. */
            __asm__ volatile("" ::: "memory");
            floats vectors[MAX_TILE_PANELS][VECTORS];
#pragma GCC unroll 16
            for (int p = 0; p < panels; p++) {
                const char *at = weight + p * panel_bytes;
                if (k == 0) {
                    __builtin_prefetch(at + ahead);
                }
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++) {
                    vectors[p][v] = weight_vector(type, at, v, k);
                }
                if ((p + 1) % panels_at_once == 0) {
                    add_products(rows, p + 1 - panels_at_once, p + 1, type, x + k * 4, vectors, sums);
                }
            }
        }
        x += step_row_bytes(type);
        weight += step_bytes(type);
    }
#pragma GCC unroll 16
    for (int p = 0; p < panels; p++) {
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) {
                store(sum_at(of, r, p, v), sums[r][p][v]);
            }
        }
    }
}

#endif
