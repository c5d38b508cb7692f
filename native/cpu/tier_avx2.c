/* AVX2: 16 registers of 8 lanes. A tile has at most 12 sums, beside two vectors of the weight and
 * one of x; with codes at most 8, which need more registers on the way. */
#define LANES 8

#include "item.h"

/* Farther ahead than 256 bytes, a row of F32 or of codes was 9 % slower to multiply from memory. */
enum { MAX_TILE_ROWS = 6, PREFETCH_BYTES = 256 };

static inline int64_t max_tile_rows(int32_t type) {
    return type == JMOE_I8 ? 4 : MAX_TILE_ROWS;
}

/* The logarithm of the panels of the widest tile with so many rows. */
static inline int tile_panels(int32_t type, int64_t rows) {
    return rows == 1 ? 2 : rows == 2 || (rows == 3 && type != JMOE_I8) ? 1 : 0;
}

#define SHORT_TILES(tile, type)                                                                                         \
    tile(type, 1, 1) tile(type, 1, 2) tile(type, 1, 4) tile(type, 2, 1) tile(type, 2, 2) tile(type, 3, 1)               \
    tile(type, 4, 1)
#define TALL_TILES(tile, type) tile(type, 3, 2) tile(type, 5, 1) tile(type, 6, 1)
#define EACH_TILE(tile)                                                                                                 \
    SHORT_TILES(tile, F32) SHORT_TILES(tile, F16) SHORT_TILES(tile, BF16) SHORT_TILES(tile, I8)                         \
    TALL_TILES(tile, F32) TALL_TILES(tile, F16) TALL_TILES(tile, BF16)

#include "products.h"

const tier jmoe_tier_avx2 = {60, MAX_TILE_ROWS, 8, products_scratch_bytes, multiply_item, multiply_adds};
