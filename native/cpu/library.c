/* The entry points: everything is checked here, so that the tiers need not. */
#define _GNU_SOURCE
#include "item.h"

#include <sys/mman.h>

/* Sums of products of I8 stay below 2^31 up to so many inputs: 255 times 128 each. */
enum { MAX_I8_INPUTS = 65536 };

int32_t jmoe_cpu_abi(void) {
    return JMOE_CPU_ABI;
}

/* Whether tiles multiply it: they round what they multiply to their own type. */
static int multiplied_by_tiles(const jmoe_cpu_product *product) {
    if (product->weight_type == JMOE_I8) {
        return 1;
    }
    return product->weight_type == JMOE_BF16 && product->x_type == JMOE_BF16 && !product->weighted;
}

static const tier *tier_of(const jmoe_cpu_product *product) {
    switch (product->tier) {
    case JMOE_AMX:
        return multiplied_by_tiles(product) ? &jmoe_tier_amx : &jmoe_tier_avx512;
    case JMOE_AVX512:
        return &jmoe_tier_avx512;
    default:
        return &jmoe_tier_avx2;
    }
}

static int is_float(int32_t type) {
    return type == JMOE_F32 || type == JMOE_F16 || type == JMOE_BF16;
}

static int is_valid(const jmoe_cpu_product *p) {
    int gated = p->activation == JMOE_SWIGLU || p->activation == JMOE_CLAMPED_SWIGLU || p->activation >= JMOE_GEGLU;
    int activates = p->activation != JMOE_NO_ACTIVATION;
    return p->inputs >= 0 && p->columns >= 0 && p->slots >= 0 && p->top_k >= 1 && (p->parts == 1 || p->parts == 2)
        && is_float(p->x_type) && is_float(p->y_type) && (is_float(p->weight_type) || p->weight_type == JMOE_I8)
        && p->activation >= JMOE_NO_ACTIVATION && p->activation <= JMOE_BILINEAR && (!activates || gated == (p->parts == 2))
        && (p->weight_type != JMOE_I8 || p->inputs <= MAX_I8_INPUTS) && p->tier >= JMOE_AVX2 && p->tier <= JMOE_AMX;
}

int64_t jmoe_cpu_blocks(const jmoe_cpu_product *product) {
    return is_valid(product) ? blocks_of_group(product) : 0;
}

int64_t jmoe_cpu_block_bytes(const jmoe_cpu_product *product) {
    return is_valid(product) ? block_bytes(product) : 0;
}

void jmoe_cpu_prefer_large_pages(void *memory, int64_t bytes) {
    /* Whole pages only; where the system has no large ones nothing changes. */
    enum { PAGE = 4096 };
    uintptr_t from = ((uintptr_t)memory + PAGE - 1) & -(uintptr_t)PAGE;
    uintptr_t to = ((uintptr_t)memory + (uintptr_t)bytes) & -(uintptr_t)PAGE;
    if (from < to) {
        madvise((void *)from, to - from, MADV_HUGEPAGE);
    }
}

int32_t jmoe_cpu_pack(
    const jmoe_cpu_product *product, const void *weight, void *packed, int64_t group, int64_t block, int64_t blocks) {
    if (!is_valid(product) || group < 0 || block < 0 || blocks < 0 || blocks > blocks_of_group(product) - block) {
        return JMOE_BAD_PRODUCT;
    }
    jmoe_pack(product, weight, (char *)packed + block_offset(product, group, block), group, block, blocks);
    return JMOE_OK;
}

int64_t jmoe_cpu_item_rows(const jmoe_cpu_product *product) {
    return is_valid(product) ? tier_of(product)->item_rows : 0;
}

int64_t jmoe_cpu_tile_rows(const jmoe_cpu_product *product) {
    return is_valid(product) ? tier_of(product)->tile_rows : 0;
}

int64_t jmoe_cpu_item_blocks(const jmoe_cpu_product *product) {
    return is_valid(product) ? tier_of(product)->item_blocks : 0;
}

int64_t jmoe_cpu_scratch_bytes(const jmoe_cpu_product *product, int64_t rows, int64_t blocks) {
    if (!is_valid(product)) {
        return 0;
    }
    return round_up(packed_on_the_way(product, blocks), LINE_BYTES) + tier_of(product)->scratch_bytes(product, rows, blocks);
}

/* What row_to_slot says comes from outside, and would be an address. */
static int slots_exist(const item *item) {
    for (int64_t row = 0; item->row_to_slot && row < item->rows; row++) {
        int64_t slot = item->row_to_slot[item->row + row];
        if (slot < 0 || slot >= item->product->slots) {
            return 0;
        }
    }
    return 1;
}

int32_t jmoe_cpu_multiply(
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
    int64_t blocks) {
    item item = {
        product, x, row_to_slot, slot_weights, weight, weight_scale, bias, y, scratch, group, row, rows, block, blocks};
    if (!is_valid(product) || group < 0 || row < 0 || rows < 0 || block < 0 || blocks < 0
        || blocks > blocks_of_group(product) - block || (slot_weights && !row_to_slot)
        || (product->weight_type == JMOE_I8 && !weight_scale) || !product->weighted != !slot_weights) {
        return JMOE_BAD_PRODUCT;
    }
    if (product->tier > jmoe_best_tier()) {
        return JMOE_BAD_TIER;
    }
    if (!slots_exist(&item)) {
        return JMOE_BAD_SLOT;
    }
    if (rows > 0 && blocks > 0) {
        tier_of(product)->multiply(&item);
    }
    return JMOE_OK;
}

int64_t jmoe_cpu_multiply_adds(const jmoe_cpu_product *product) {
    if (!is_valid(product) || product->tier > jmoe_best_tier()) {
        return 0;
    }
    return tier_of(product)->multiply_adds(product->weight_type);
}
