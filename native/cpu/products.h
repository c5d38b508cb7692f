/* Items by vectors: multiply-adds of F32, or of I8 codes. */
#ifndef JMOE_PRODUCTS_H
#define JMOE_PRODUCTS_H

#include "codes.h"
#include "finish.h"
#include "tiles.h"

typedef void tile_function(const operands *of);

/* Tiles of every size that the tier has, by type, rows and the logarithm of their panels. */
enum { TYPES = 4, PANEL_SIZES = 4 };
enum { LOG_1, LOG_2, LOG_4, LOG_8 };

#define DEFINE_TILE(type, rows, panels)                                                                                 \
    static void tile_##type##_##rows##_##panels(const operands *of) { multiply_tile(rows, panels, JMOE_##type, of); }

#define LIST_TILE(type, rows, panels) [JMOE_##type][rows][LOG_##panels] = tile_##type##_##rows##_##panels,

EACH_TILE(DEFINE_TILE)

static tile_function *const TILES[TYPES][MAX_TILE_ROWS + 1][PANEL_SIZES] = {EACH_TILE(LIST_TILE)};

/* Inputs between two stores of the sums: what fits in a gathered row. One row of numbers has its
 * sums in registers all the way. */
static int64_t stretch_inputs(const jmoe_cpu_product *product, int64_t rows) {
    if (product->weight_type == JMOE_I8) {
        return MAX_INPUTS * 4;
    }
    return rows == 1 ? product->inputs : MAX_INPUTS;
}

/* Gathered rows; one row may be longer than several. */
static int64_t x_bytes(const jmoe_cpu_product *product, int64_t rows) {
    int64_t one = round_up(product->inputs, LANES) * 4;
    int64_t several = rows * ROW_BYTES;
    return one > several ? one : several;
}

static int64_t panel_sum_bytes(int64_t rows) {
    return rows * PANEL_COLUMNS * 4;
}

static int64_t products_scratch_bytes(const jmoe_cpu_product *product, int64_t rows, int64_t blocks) {
    return round_up(x_bytes(product, rows), LINE_BYTES) + blocks * BLOCK_PANELS * panel_sum_bytes(rows)
        + round_up(rows * (int64_t)sizeof(coded_row), LINE_BYTES);
}

/* Adds the products of some inputs, which begin at at in the first panel, and at next in the
 * stretch that comes after this one. */
static void multiply_stretch(const item *item, const char *x, const char *at, int64_t inputs, char *sums, const char *next) {
    int32_t type = item->product->weight_type;
    int64_t panels = item->blocks * BLOCK_PANELS;
    int64_t tiles = (item->rows + max_tile_rows(type) - 1) / max_tile_rows(type);
    int64_t most = (item->rows + tiles - 1) / tiles;
    int size = tile_panels(type, most);
    operands of = {.panel_bytes = panel_bytes(item->product),
                   .steps = (inputs + step_inputs(type) - 1) / step_inputs(type),
                   .panel_sums = panel_sum_bytes(item->rows)};
    for (int64_t p = 0; p < panels; p += 1 << size) {
        while (1 << size > panels - p) {
            size--;
        }
        of.panels = at + p * of.panel_bytes;
        int is_last = p + (1 << size) == panels;
        /* The first tile fetches what comes next, so that its own panels are in the cache by then.
         * With one row there is not so much to compute that it could hide behind. */
        of.ahead = most == 1 ? 0 : is_last ? next : of.panels + (of.panel_bytes << size);
        int64_t row = 0;
        for (int64_t left = tiles; left > 0; left--) {
            int64_t rows = (item->rows - row + left - 1) / left;
            of.x = x + row * ROW_BYTES;
            of.sums = sums + p * of.panel_sums + row * PANEL_COLUMNS * 4;
            TILES[type][rows][size](&of);
            of.ahead = of.panels;
            row += rows;
        }
    }
}

/* Some inputs of all rows, as the tiles read them. */
static void gather(const item *item, int64_t input, int64_t inputs, coded_row *coded, char *x) {
    for (int64_t row = 0; row < item->rows; row++) {
        if (item->product->weight_type == JMOE_I8) {
            encode_row(item, row, input, inputs, &coded[row], (int8_t *)(x + row * ROW_BYTES));
        } else {
            widen_row(item, row, input, inputs, (float *)(x + row * ROW_BYTES));
        }
    }
}

static void multiply_item(const item *item) {
    const jmoe_cpu_product *product = item->product;
    int is_coded = product->weight_type == JMOE_I8;
    char *scratch = item->scratch;
    const char *panels = item_panels(item, &scratch);
    char *x = take(&scratch, x_bytes(product, item->rows));
    coded_row *coded = (coded_row *)take(&scratch, item->rows * (int64_t)sizeof *coded);
    int64_t panel_sums = panel_sum_bytes(item->rows);
    char *sums = take(&scratch, item->blocks * BLOCK_PANELS * panel_sums);
    memset(sums, 0, (size_t)(item->blocks * BLOCK_PANELS * panel_sums));
    for (int64_t row = 0; row < item->rows && is_coded; row++) {
        coded[row] = code_row(item, row);
    }
    int64_t stretch = stretch_inputs(product, item->rows);
    int64_t input_bytes = PANEL_COLUMNS * type_bytes(product->weight_type);
    for (int64_t input = 0; input < product->inputs; input += stretch) {
        int64_t left = product->inputs - input;
        int64_t inputs = left < stretch ? left : stretch;
        const char *at = panels + input * input_bytes;
        gather(item, input, inputs, coded, x);
        multiply_stretch(item, x, at, inputs, sums, at + inputs * input_bytes);
    }
    for (int64_t b = 0; b < item->blocks; b++) {
        char *block_sums = sums + b * BLOCK_PANELS * panel_sums;
        if (is_coded) {
            decode_block(item, item->block + b, coded, excess_of_codes(), block_sums, panel_sums);
        }
        finish_block(item, item->block + b, block_sums, panel_sums);
    }
}

/* Sums that hide the latency of two units. */
enum { REGISTER_SUMS = 10 };

/* The numbers are such that sums neither overflow nor become subnormal. */
INLINE void multiply_add_sums(int32_t type) {
    floats factor = type == JMOE_I8 ? (floats)((ints){0} + 0x11213141) : all_lanes(0.999f);
    floats vector = type == JMOE_I8 ? (floats)((ints){0} + 0x3f2f1f0f) : all_lanes(0.001f);
    floats sums[REGISTER_SUMS];
#pragma GCC unroll 16
    for (int i = 0; i < REGISTER_SUMS; i++) {
        sums[i] = (floats)(ints){0};
    }
    for (int round = 0; round < REGISTER_ROUNDS; round++) {
#pragma GCC unroll 16
        for (int i = 0; i < REGISTER_SUMS; i++) {
            /* Else products would be computed once for all sums. */
            forget(&factor);
            add_product(type, &sums[i], factor, vector);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < REGISTER_SUMS; i++) {
        forget(&sums[i]);
    }
}

static int64_t multiply_adds(int32_t type) {
    if (type == JMOE_I8) {
        multiply_add_sums(JMOE_I8);
    } else {
        multiply_add_sums(JMOE_F32);
    }
    return (int64_t)2 * REGISTER_ROUNDS * REGISTER_SUMS * LANES * (type == JMOE_I8 ? 4 : 1);
}

#endif
