/*
 * libjmoe_cpu: the products of a MoE layer with AMX, AVX-512 or AVX2, called from Java.
 *
 * A weight is packed once into panels: 16 outputs side by side, input by input, so that a product
 * reads it from the first byte to the last. Two panels make a block, which is what an item is
 * counted in: 32 outputs, or 16 of the gate and the same 16 of up where a weight has two parts.
 * An item is some rows of one expert by some of its blocks; whoever calls shares items out to
 * threads. Every function may run on any number of threads at once, allocates nothing and takes no
 * lock. Pointers need no alignment but that of scratch and packed weights, 64 bytes; NULL where
 * something is left out. What a pointer leads to is as large as the product says: the caller has
 * checked.
 */
#ifndef JMOE_CPU_H
#define JMOE_CPU_H

#include <stdint.h>

/* Raised with every change of what is below; Java refuses any other number. */
#define JMOE_CPU_ABI 3

#define JMOE_CPU_EXPORT __attribute__((visibility("default")))

enum jmoe_cpu_type { JMOE_F32, JMOE_F16, JMOE_BF16, JMOE_I8 };

/* What a tier has, the tiers below it have too. */
enum jmoe_cpu_tier { JMOE_NO_TIER, JMOE_AVX2, JMOE_AVX512, JMOE_AMX };

enum jmoe_cpu_activation {
    JMOE_NO_ACTIVATION,
    JMOE_SWIGLU,
    JMOE_CLAMPED_SWIGLU,
    JMOE_SILU,
    JMOE_RELU,
    JMOE_SQUARED_RELU,
    JMOE_GELU,
    JMOE_GELU_TANH,
    JMOE_LINEAR,
    JMOE_GEGLU, /* from here on with a gate, as the first two */
    JMOE_GEGLU_TANH,
    JMOE_REGLU,
    JMOE_GLU,
    JMOE_BILINEAR
};

/* What a call may return; nothing raises a signal. */
enum jmoe_cpu_result {
    JMOE_OK,
    JMOE_BAD_PRODUCT, /* a number of the product, or of the item, is out of range */
    JMOE_BAD_SLOT,    /* row_to_slot names a slot that does not exist */
    JMOE_BAD_TIER     /* this machine does not have the tier */
};

/* What this machine has, as bits, so that a caller can say what a tier is missing. */
enum jmoe_cpu_feature {
    JMOE_HAS_AVX2 = 1,          /* AVX2, FMA and F16C, kept by the system */
    JMOE_HAS_AVX512 = 2,        /* AVX-512 F, BW, DQ, VL and VNNI */
    JMOE_KEEPS_AVX512 = 4,      /* the system keeps its registers */
    JMOE_HAS_AMX = 8,           /* AMX tiles, BF16 and INT8 */
    JMOE_KEEPS_AMX = 16,        /* the system keeps tiles */
    JMOE_PERMITS_AMX = 32       /* and lets this process use them */
};

/* y[r] = activation(x[r] weight^T + bias) for the rows of an expert; the same for all of them. */
typedef struct jmoe_cpu_product {
    int64_t inputs;       /* of a row of x and of the weight; with I8 at most 65536 */
    int64_t columns;      /* outputs of a part */
    int64_t slots;        /* of row_to_slot, if there is one: tokens * top_k */
    int32_t top_k;        /* row r is row row_to_slot[r] / top_k of x */
    int32_t parts;        /* 2 if the outputs are gate rows before up rows, else 1 */
    int32_t packed;       /* 0 if the weight is row-major [groups, parts * columns, inputs] */
    int32_t x_type;       /* F32, F16 or BF16 */
    int32_t weight_type;  /* any */
    int32_t y_type;       /* F32, F16 or BF16 */
    int32_t activation;
    float limit;          /* of JMOE_CLAMPED_SWIGLU */
    int32_t tier;
    int32_t weighted;     /* whether there are slot weights */
} jmoe_cpu_product;

JMOE_CPU_EXPORT int32_t jmoe_cpu_abi(void);

/* The bits of jmoe_cpu_feature; asks the system to permit tiles. */
JMOE_CPU_EXPORT int32_t jmoe_cpu_features(void);

/* The highest tier that the features allow. */
JMOE_CPU_EXPORT int32_t jmoe_cpu_best_tier(void);

/* Sizes are 0 if the product is not valid. */

/* Blocks of one group of the weight. */
JMOE_CPU_EXPORT int64_t jmoe_cpu_blocks(const jmoe_cpu_product *product);

/* Bytes of a packed block. */
JMOE_CPU_EXPORT int64_t jmoe_cpu_block_bytes(const jmoe_cpu_product *product);

/* Asks for large pages for memory that will be packed weights. */
JMOE_CPU_EXPORT void jmoe_cpu_prefer_large_pages(void *memory, int64_t bytes);

/*
 * Packs some blocks of a group. weight: row-major, all groups; packed: all groups, each of
 * jmoe_cpu_blocks blocks.
 */
JMOE_CPU_EXPORT int32_t jmoe_cpu_pack(
    const jmoe_cpu_product *product, const void *weight, void *packed, int64_t group, int64_t block, int64_t blocks);

/* Rows that an item should have at most, and in whole numbers of which it is computed best. */
JMOE_CPU_EXPORT int64_t jmoe_cpu_item_rows(const jmoe_cpu_product *product);
JMOE_CPU_EXPORT int64_t jmoe_cpu_tile_rows(const jmoe_cpu_product *product);

/* Blocks that an item should have at most. */
JMOE_CPU_EXPORT int64_t jmoe_cpu_item_blocks(const jmoe_cpu_product *product);

/* Bytes of scratch for items of at most so many rows and blocks. */
JMOE_CPU_EXPORT int64_t jmoe_cpu_scratch_bytes(const jmoe_cpu_product *product, int64_t rows, int64_t blocks);

/*
 * Computes an item.
 *
 * x: [rows, inputs], or [tokens, inputs] with row_to_slot
 * row_to_slot: by row of all experts, or NULL
 * slot_weights: by slot, or NULL; x is multiplied by it
 * weight, weight_scale: all groups; the scale, F32 [groups, parts * columns], for I8 only
 * bias: [groups, parts * columns], or NULL
 * y: [rows, columns] with an activation, else [rows, parts * columns]
 * scratch: of this thread, any content before and after
 * group: of the weight
 * row, rows: among the rows of all experts
 * block, blocks: of the group
 */
JMOE_CPU_EXPORT int32_t jmoe_cpu_multiply(
    const jmoe_cpu_product *product,
    const void *x,
    const int32_t *row_to_slot,
    const float *slot_weights,
    const void *weight,
    const float *weight_scale,
    const float *bias,
    void *y,
    void *scratch,
    int64_t group,
    int64_t row,
    int64_t rows,
    int64_t block,
    int64_t blocks);

/*
 * Some microseconds of multiply-adds on registers alone, as such products are computed: the most
 * that anything else leaves of an item. Returns how many operations that were, two for each
 * multiply-add; 0 if the product is not valid, or the machine does not have the tier.
 */
JMOE_CPU_EXPORT int64_t jmoe_cpu_multiply_adds(const jmoe_cpu_product *product);

#endif
