/* What the tiers share: an item, and where things are in packed weights and in scratch. */
#ifndef JMOE_ITEM_H
#define JMOE_ITEM_H

#include "jmoe_cpu.h"

#include <stddef.h>
#include <string.h>

/* Outputs of a panel, panels of a block. */
enum { PANEL_COLUMNS = 16, BLOCK_PANELS = 2 };

/* Everything in scratch begins at a cache line, which is also a row of a tile. */
enum { LINE_BYTES = 64 };

/* The arguments of jmoe_cpu_multiply. */
typedef struct item {
    const jmoe_cpu_product *product;
    const char *x;
    const int32_t *row_to_slot;
    const float *slot_weights;
    const char *weight;
    const float *weight_scale;
    const float *bias;
    char *y;
    char *scratch;
    int64_t group;
    int64_t row;
    int64_t rows;
    int64_t block;
    int64_t blocks;
} item;

/* What a tier has to offer. */
typedef struct tier {
    int64_t item_rows;   /* most rows of an item */
    int64_t tile_rows;   /* rows of the largest tile */
    int64_t item_blocks; /* most blocks of an item */
    int64_t (*scratch_bytes)(const jmoe_cpu_product *product, int64_t rows, int64_t blocks);
    void (*multiply)(const item *item);
    int64_t (*multiply_adds)(int32_t weight_type);
} tier;

/* Rounds of multiply-adds on registers that are timed together. */
enum { REGISTER_ROUNDS = 1024 };

/* The highest tier of this machine, found once: asking the processor may take microseconds. */
int32_t jmoe_best_tier(void);

extern const tier jmoe_tier_avx2;
extern const tier jmoe_tier_avx512;
extern const tier jmoe_tier_amx;

/* Packs some blocks of a group, the first of them at the beginning of packed. */
void jmoe_pack(const jmoe_cpu_product *product, const char *weight, char *packed, int64_t group, int64_t block, int64_t blocks);

static inline int64_t round_up(int64_t number, int64_t unit) {
    return (number + unit - 1) / unit * unit;
}

static inline int64_t type_bytes(int32_t type) {
    return type == JMOE_F32 ? 4 : type == JMOE_I8 ? 1 : 2;
}

/* Inputs in a panel, with zeros behind the last: whole tile rows of 64 bytes for the types that
 * tiles multiply, whole lines for the others. */
static inline int64_t padded_inputs(const jmoe_cpu_product *product) {
    int32_t type = product->weight_type;
    return round_up(product->inputs, type == JMOE_I8 ? 64 : type == JMOE_F32 ? 1 : 32);
}

static inline int64_t panel_bytes(const jmoe_cpu_product *product) {
    return padded_inputs(product) * PANEL_COLUMNS * type_bytes(product->weight_type);
}

static inline int64_t block_bytes(const jmoe_cpu_product *product) {
    return BLOCK_PANELS * panel_bytes(product);
}

/* Columns of a part that a block has. */
static inline int64_t block_columns(const jmoe_cpu_product *product) {
    return BLOCK_PANELS * PANEL_COLUMNS / product->parts;
}

static inline int64_t blocks_of_group(const jmoe_cpu_product *product) {
    return (product->columns + block_columns(product) - 1) / block_columns(product);
}

static inline int64_t block_offset(const jmoe_cpu_product *product, int64_t group, int64_t block) {
    return (group * blocks_of_group(product) + block) * block_bytes(product);
}

/* Where the 16 outputs of a panel begin among the outputs of a group, and how many there are. */
typedef struct outputs {
    int64_t first;
    int64_t count;
} outputs;

static inline outputs panel_outputs(const jmoe_cpu_product *product, int64_t block, int64_t panel) {
    int64_t part = product->parts == 2 ? panel : 0;
    int64_t column = block * block_columns(product) + (product->parts == 2 ? 0 : panel * PANEL_COLUMNS);
    int64_t left = product->columns - column;
    outputs found = {part * product->columns + column, left < 0 ? 0 : left < PANEL_COLUMNS ? left : PANEL_COLUMNS};
    return found;
}

/* The row of x that a row of the item is. */
static inline int64_t x_row(const item *item, int64_t row) {
    int64_t at = item->row + row;
    return item->row_to_slot ? item->row_to_slot[at] / item->product->top_k : at;
}

static inline const char *x_at(const item *item, int64_t row, int64_t input) {
    int64_t bytes = type_bytes(item->product->x_type);
    return item->x + (x_row(item, row) * item->product->inputs + input) * bytes;
}

/* What x is multiplied by before anything else. */
static inline float x_factor(const item *item, int64_t row) {
    return item->slot_weights ? item->slot_weights[item->row_to_slot[item->row + row]] : 1;
}

/* Takes a piece of scratch. */
static inline char *take(char **scratch, int64_t bytes) {
    char *piece = *scratch;
    *scratch += round_up(bytes, LINE_BYTES);
    return piece;
}

/* Bytes of the weights of an item that are packed on the way; in scratch they come first. */
static inline int64_t packed_on_the_way(const jmoe_cpu_product *product, int64_t blocks) {
    return product->packed ? 0 : blocks * block_bytes(product);
}

/* The panels of an item, packed now if the weight is not. */
static inline const char *item_panels(const item *item, char **scratch) {
    const jmoe_cpu_product *product = item->product;
    if (product->packed) {
        return item->weight + block_offset(product, item->group, item->block);
    }
    char *panels = take(scratch, packed_on_the_way(product, item->blocks));
    jmoe_pack(product, item->weight, panels, item->group, item->block, item->blocks);
    return panels;
}

#endif
