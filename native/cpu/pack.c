/* Rearranges a row-major weight into panels; see item.h for where everything goes. */
#include "item.h"

/* Inputs that are rearranged at a time, so that what is written stays in the first-level cache. */
enum { STRETCH = 64 };

/* Inputs whose elements lie side by side: a tile, and an instruction that adds neighbouring
 * products, take pairs of BF16 and quads of I8. */
static int64_t neighbours(int32_t type) {
    return type == JMOE_BF16 ? 2 : type == JMOE_I8 ? 4 : 1;
}

/* Element k of an output in a panel comes after all elements of earlier groups of neighbours. */
#define PACK(name, element)                                                                        \
    static void name(const element *from, int64_t inputs, int64_t count, int64_t padded,           \
                     int64_t side_by_side, element *to) {                                          \
        for (int64_t start = 0; start < padded; start += STRETCH) {                                \
            int64_t end = start + STRETCH < padded ? start + STRETCH : padded;                     \
            for (int64_t c = 0; c < PANEL_COLUMNS; c++) {                                          \
                const element *row = from + c * inputs;                                            \
                for (int64_t k = start; k < end; k++) {                                            \
                    int64_t at = (k / side_by_side * PANEL_COLUMNS + c) * side_by_side + k % side_by_side; \
                    to[at] = c < count && k < inputs ? row[k] : 0;                                 \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

/* Elements are copied as they are, and may lie anywhere. */
typedef uint32_t __attribute__((aligned(1), may_alias)) word;
typedef uint16_t __attribute__((aligned(1), may_alias)) half_word;
typedef uint8_t byte;

PACK(pack_words, word)
PACK(pack_half_words, half_word)
PACK(pack_bytes, byte)

static void pack_panel(const jmoe_cpu_product *product, const char *from, int64_t count, char *to) {
    int64_t inputs = product->inputs;
    int64_t padded = padded_inputs(product);
    int64_t side_by_side = neighbours(product->weight_type);
    switch (type_bytes(product->weight_type)) {
    case 4:
        pack_words((const word *)from, inputs, count, padded, side_by_side, (word *)to);
        break;
    case 2:
        pack_half_words((const half_word *)from, inputs, count, padded, side_by_side, (half_word *)to);
        break;
    default:
        pack_bytes((const byte *)from, inputs, count, padded, side_by_side, (byte *)to);
    }
}

void jmoe_pack(const jmoe_cpu_product *product, const char *weight, char *packed, int64_t group, int64_t block, int64_t blocks) {
    int64_t row_bytes = product->inputs * type_bytes(product->weight_type);
    int64_t group_outputs = product->parts * product->columns;
    for (int64_t b = block; b < block + blocks; b++) {
        for (int64_t p = 0; p < BLOCK_PANELS; p++) {
            outputs found = panel_outputs(product, b, p);
            const char *from = weight + (group * group_outputs + found.first) * row_bytes;
            char *to = packed + (b - block) * block_bytes(product) + p * panel_bytes(product);
            pack_panel(product, from, found.count, to);
        }
    }
}
