/* AVX-512: 32 registers of 16 lanes. A tile has at most 24 sums, beside up to four vectors of the
 * weight and one of x. */
#define LANES 16

#include "item.h"

enum { MAX_TILE_ROWS = 12, PREFETCH_BYTES = 1024 };

static inline int64_t max_tile_rows(int32_t type) {
    (void)type;
    return MAX_TILE_ROWS;
}

/* The logarithm of the panels of the widest tile with so many rows. */
static inline int tile_panels(int32_t type, int64_t rows) {
    (void)type;
    return rows <= 2 ? 3 : rows <= 5 ? 2 : 1;
}

#define TILES_OF(tile, type)                                                                                            \
    tile(type, 1, 2) tile(type, 1, 4) tile(type, 1, 8) tile(type, 2, 2) tile(type, 2, 4) tile(type, 2, 8)               \
    tile(type, 3, 2) tile(type, 3, 4) tile(type, 4, 2) tile(type, 4, 4) tile(type, 5, 2) tile(type, 5, 4)               \
    tile(type, 6, 2) tile(type, 7, 2) tile(type, 8, 2) tile(type, 9, 2) tile(type, 10, 2)              \
    tile(type, 11, 2) tile(type, 12, 2)
#define EACH_TILE(tile) TILES_OF(tile, F32) TILES_OF(tile, F16) TILES_OF(tile, BF16) TILES_OF(tile, I8)

#include "products.h"

const tier jmoe_tier_avx512 = {60, MAX_TILE_ROWS, 8, products_scratch_bytes, multiply_item, multiply_adds};
