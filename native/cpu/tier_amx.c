/*
 * AMX: tiles of 16 rows of 64 bytes, which are 32 inputs of BF16 or 64 of I8, and 16 sums. Two tiles
 * of x and two of the weight, the panels of a block, give four of sums at a time.
 *
 * Sums stay in tiles for a stretch of inputs so short that the tiles of x for it lie in the
 * first-level cache, where all blocks of a group find them; meanwhile the sums of the other tiles
 * wait in the second-level cache, as do the panels.
 */
#define LANES 16

#include "codes.h"
#include "tile_registers.h"

enum {
    /* Tile rows of a stretch: 16 KiB of two tiles of x. */
    STRETCH_STEPS = 8,
    /* Blocks that pass by the same rows of x in a stretch: 128 KiB of panels. */
    GROUP_BLOCKS = 8,
    ITEM_ROWS = 256,
    /* Many, since the rows of x are cut into tiles, and quantised, once for all of them. */
    ITEM_BLOCKS = 64,
};

/* Which register is what; macros, because the number goes into the text of an instruction. */
#define SUM_00 0
#define SUM_01 1
#define SUM_10 2
#define SUM_11 3
#define X_0 4
#define X_1 5
#define WEIGHT_0 6
#define WEIGHT_1 7

static int64_t steps_of(const jmoe_cpu_product *product) {
    return padded_inputs(product) * type_bytes(product->weight_type) / LINE_BYTES;
}

static int64_t x_tile_bytes(const jmoe_cpu_product *product, int64_t rows) {
    return round_up(rows, TILE_ROWS) * LINE_BYTES * steps_of(product);
}

static int64_t panel_sum_bytes(int64_t rows) {
    return round_up(rows, TILE_ROWS) * PANEL_COLUMNS * 4;
}

static int64_t group_blocks(int64_t blocks) {
    return blocks < GROUP_BLOCKS ? blocks : GROUP_BLOCKS;
}

static int64_t amx_scratch_bytes(const jmoe_cpu_product *product, int64_t rows, int64_t blocks) {
    return x_tile_bytes(product, rows) + group_blocks(blocks) * BLOCK_PANELS * panel_sum_bytes(rows)
        + round_up(rows * (int64_t)sizeof(coded_row), LINE_BYTES) + round_up(padded_inputs(product), LINE_BYTES);
}

/*
 * Where a row's 64 bytes of a step go. Rows come in pairs of tiles, the last perhaps a single one;
 * within a pair all of a step follows each other.
 */
static char *x_tile_row(const jmoe_cpu_product *product, int64_t rows, char *x, int64_t row, int64_t step) {
    int64_t pair = row / (2 * TILE_ROWS) * (2 * TILE_ROWS);
    int64_t height = round_up(rows, TILE_ROWS) - pair < 2 * TILE_ROWS ? TILE_ROWS : 2 * TILE_ROWS;
    return x + (pair * steps_of(product) + step * height + row - pair) * LINE_BYTES;
}

/* Cuts a row into the lines of its tiles, with zeros behind the last element. */
static void place_row(const jmoe_cpu_product *product, int64_t rows, char *x, int64_t row, const char *from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += LINE_BYTES) {
        char *to = x_tile_row(product, rows, x, row, at / LINE_BYTES);
        int64_t left = bytes - at;
        if (left >= LINE_BYTES) {
            memcpy(to, from + at, LINE_BYTES);
        } else {
            memset(to, 0, LINE_BYTES);
            memcpy(to, from + at, (size_t)left);
        }
    }
}

static void place_rows(const item *item, coded_row *coded, char *codes, char *x) {
    const jmoe_cpu_product *product = item->product;
    int64_t inputs = product->inputs;
    for (int64_t row = 0; row < item->rows; row++) {
        if (product->weight_type == JMOE_I8) {
            coded[row] = code_row(item, row);
            encode_row(item, row, 0, inputs, &coded[row], (int8_t *)codes);
            place_row(product, item->rows, x, row, codes, inputs);
        } else {
            place_row(product, item->rows, x, row, x_at(item, row, 0), inputs * 2);
        }
    }
    /* Rows that only fill a tile. */
    for (int64_t row = item->rows; row < round_up(item->rows, TILE_ROWS); row++) {
        for (int64_t step = 0; step < steps_of(product); step++) {
            memset(x_tile_row(product, item->rows, x, row, step), 0, LINE_BYTES);
        }
    }
}

/* What a block of tiles is computed from. */
typedef struct tile_operands {
    const char *x;          /* of a step one or two tiles, one step after the other */
    const char *weight;     /* of a step a tile of each panel */
    int64_t panel_bytes;    /* from panel to panel */
    int64_t steps;
    char *sums;             /* tiles; a row of tiles is TILE_BYTES further */
    int64_t panel_sums;     /* from panel to panel */
    int is_first;           /* whether sums begin at 0 */
    const char *ahead;      /* what to fetch into the second-level cache meanwhile */
    int64_t ahead_lines;    /* of each panel, in each step */
} tile_operands;

static inline void fetch_ahead(const tile_operands *of, int64_t step) {
    const char *at = of->ahead + step * of->ahead_lines * LINE_BYTES;
    for (int64_t line = 0; line < of->ahead_lines; line++) {
        __builtin_prefetch(at + line * LINE_BYTES, 0, 2);
        __builtin_prefetch(at + of->panel_bytes + line * LINE_BYTES, 0, 2);
    }
}

/* The numbers of registers are constants of the instructions, so what differs by type is a macro. */
#define DEFINE_TILES(name, add)                                                                                         \
    static void name##_two(const tile_operands *of) {                                                                   \
        char *second = of->sums + of->panel_sums;                                                                       \
        if (of->is_first) {                                                                                             \
            zero_tile(SUM_00);                                                                                          \
            zero_tile(SUM_01);                                                                                          \
            zero_tile(SUM_10);                                                                                          \
            zero_tile(SUM_11);                                                                                          \
        } else {                                                                                                        \
            load_tile(SUM_00, of->sums);                                                                                \
            load_tile(SUM_01, second);                                                                                  \
            load_tile(SUM_10, of->sums + TILE_BYTES);                                                                   \
            load_tile(SUM_11, second + TILE_BYTES);                                                                     \
        }                                                                                                               \
        for (int64_t step = 0; step < of->steps; step++) {                                                              \
            const char *x = of->x + step * 2 * TILE_BYTES;                                                              \
            const char *weight = of->weight + step * TILE_BYTES;                                                        \
            load_tile(WEIGHT_0, weight);                                                                                \
            load_tile(X_0, x);                                                                                          \
            load_tile(WEIGHT_1, weight + of->panel_bytes);                                                              \
            load_tile(X_1, x + TILE_BYTES);                                                                             \
            fetch_ahead(of, step);                                                                                      \
            add(SUM_00, X_0, WEIGHT_0);                                                                                 \
            add(SUM_01, X_0, WEIGHT_1);                                                                                 \
            add(SUM_10, X_1, WEIGHT_0);                                                                                 \
            add(SUM_11, X_1, WEIGHT_1);                                                                                 \
        }                                                                                                               \
        store_tile(SUM_00, of->sums);                                                                                   \
        store_tile(SUM_01, second);                                                                                     \
        store_tile(SUM_10, of->sums + TILE_BYTES);                                                                      \
        store_tile(SUM_11, second + TILE_BYTES);                                                                        \
    }                                                                                                                   \
    static void name##_one(const tile_operands *of) {                                                                   \
        char *second = of->sums + of->panel_sums;                                                                       \
        if (of->is_first) {                                                                                             \
            zero_tile(SUM_00);                                                                                          \
            zero_tile(SUM_01);                                                                                          \
        } else {                                                                                                        \
            load_tile(SUM_00, of->sums);                                                                                \
            load_tile(SUM_01, second);                                                                                  \
        }                                                                                                               \
        for (int64_t step = 0; step < of->steps; step++) {                                                              \
            const char *weight = of->weight + step * TILE_BYTES;                                                        \
            load_tile(X_0, of->x + step * TILE_BYTES);                                                                  \
            load_tile(WEIGHT_0, weight);                                                                                \
            load_tile(WEIGHT_1, weight + of->panel_bytes);                                                              \
            fetch_ahead(of, step);                                                                                      \
            add(SUM_00, X_0, WEIGHT_0);                                                                                 \
            add(SUM_01, X_0, WEIGHT_1);                                                                                 \
        }                                                                                                               \
        store_tile(SUM_00, of->sums);                                                                                   \
        store_tile(SUM_01, second);                                                                                     \
    }

DEFINE_TILES(bf16, add_bf16_products)
DEFINE_TILES(i8, add_i8_products)

static void multiply_tiles(const jmoe_cpu_product *product, int is_single, const tile_operands *of) {
    if (product->weight_type == JMOE_I8) {
        (is_single ? i8_one : i8_two)(of);
    } else {
        (is_single ? bf16_one : bf16_two)(of);
    }
}

/* A group of blocks, all rows, all inputs; next_blocks follow it. */
static void multiply_group(const item *item, const char *panels, int64_t blocks, int64_t next_blocks, char *x, char *sums) {
    const jmoe_cpu_product *product = item->product;
    int64_t padded_rows = round_up(item->rows, TILE_ROWS);
    int64_t pairs = (padded_rows + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS);
    int64_t all_steps = steps_of(product);
    tile_operands of = {.panel_bytes = panel_bytes(product), .panel_sums = panel_sum_bytes(item->rows)};
    for (int64_t step = 0; step < all_steps; step += STRETCH_STEPS) {
        int64_t left = all_steps - step;
        of.steps = left < STRETCH_STEPS ? left : STRETCH_STEPS;
        of.is_first = step == 0;
        /* All pairs of rows together fetch the panels of the next stretch. */
        int is_last = left <= STRETCH_STEPS;
        const char *ahead = is_last ? panels + blocks * block_bytes(product) : panels + (step + STRETCH_STEPS) * TILE_BYTES;
        int64_t blocks_ahead = is_last ? next_blocks : blocks;
        int64_t lines = (TILE_ROWS + pairs - 1) / pairs;
        for (int64_t pair = 0; pair < pairs; pair++) {
            int64_t row = pair * 2 * TILE_ROWS;
            of.x = x_tile_row(product, item->rows, x, row, step);
            for (int64_t b = 0; b < blocks; b++) {
                of.weight = panels + b * block_bytes(product) + step * TILE_BYTES;
                of.ahead = ahead + b * block_bytes(product) + pair * of.steps * lines * LINE_BYTES;
                of.ahead_lines = b < blocks_ahead ? lines : 0;
                of.sums = sums + b * BLOCK_PANELS * of.panel_sums + row * PANEL_COLUMNS * 4;
                multiply_tiles(product, padded_rows - row < 2 * TILE_ROWS, &of);
            }
        }
    }
}

static void multiply_item(const item *item) {
    const jmoe_cpu_product *product = item->product;
    char *scratch = item->scratch;
    const char *panels = item_panels(item, &scratch);
    char *x = take(&scratch, x_tile_bytes(product, item->rows));
    int64_t panel_sums = panel_sum_bytes(item->rows);
    char *sums = take(&scratch, group_blocks(item->blocks) * BLOCK_PANELS * panel_sums);
    coded_row *coded = (coded_row *)take(&scratch, item->rows * (int64_t)sizeof *coded);
    char *codes = take(&scratch, padded_inputs(product));
    place_rows(item, coded, codes, x);
    if (product->inputs == 0) {
        memset(sums, 0, (size_t)(group_blocks(item->blocks) * BLOCK_PANELS * panel_sums));
    }
    begin_tiles();
    for (int64_t first = 0; first < item->blocks; first += GROUP_BLOCKS) {
        int64_t blocks = group_blocks(item->blocks - first);
        int64_t next_blocks = group_blocks(item->blocks - first - blocks);
        multiply_group(item, panels + first * block_bytes(product), blocks, next_blocks, x, sums);
        for (int64_t b = 0; b < blocks; b++) {
            char *block_sums = sums + b * BLOCK_PANELS * panel_sums;
            if (product->weight_type == JMOE_I8) {
                decode_block(item, item->block + first + b, coded, 0, block_sums, panel_sums);
            }
            finish_block(item, item->block + first + b, block_sums, panel_sums);
        }
    }
    end_tiles();
}

static int64_t multiply_adds(int32_t type) {
    /* Numbers near 1 as BF16, and all kinds of codes: zeros would take less power. */
    uint8_t tile[TILE_BYTES] __attribute__((aligned(LINE_BYTES)));
    for (int i = 0; i < TILE_BYTES; i++) {
        tile[i] = (uint8_t)(type == JMOE_I8 || i % 2 == 0 ? i * 73 : 0x3f);
    }
    begin_tiles();
    load_tile(X_0, tile);
    load_tile(X_1, tile);
    load_tile(WEIGHT_0, tile);
    load_tile(WEIGHT_1, tile);
    for (int round = 0; round < REGISTER_ROUNDS; round++) {
        if (type == JMOE_I8) {
            add_i8_products(SUM_00, X_0, WEIGHT_0);
            add_i8_products(SUM_01, X_0, WEIGHT_1);
            add_i8_products(SUM_10, X_1, WEIGHT_0);
            add_i8_products(SUM_11, X_1, WEIGHT_1);
        } else {
            add_bf16_products(SUM_00, X_0, WEIGHT_0);
            add_bf16_products(SUM_01, X_0, WEIGHT_1);
            add_bf16_products(SUM_10, X_1, WEIGHT_0);
            add_bf16_products(SUM_11, X_1, WEIGHT_1);
        }
    }
    end_tiles();
    return (int64_t)2 * REGISTER_ROUNDS * 4 * TILE_ROWS * PANEL_COLUMNS * (LINE_BYTES / type_bytes(type));
}

const tier jmoe_tier_amx = {ITEM_ROWS, 2 * TILE_ROWS, ITEM_BLOCKS, amx_scratch_bytes, multiply_item, multiply_adds};
