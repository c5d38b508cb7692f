/*
 * Products of every tier that this processor has, or that is emulated, against plain loops in
 * double: every pair of types, packed and row-major, with and without gathered rows, slot weights,
 * bias and activation, at sizes with every kind of rest. Every operand ends where a page begins
 * that nobody may touch. One line for each tier and pair of types: "ok ..." or "FAILED ...".
 */
#include "operands.h"

enum { GROUPS = 3, GROUP = 1, CASES = 24 };

static const char *const TIERS[] = {"", "avx2", "avx512", "amx"};
static const char *const TYPES[] = {"F32", "F16", "BF16", "I8"};

/* A problem: the rows of one group. */
typedef struct problem {
    jmoe_cpu_product product;
    int64_t tokens;
    int64_t first_row; /* rows before them belong to another group */
    int64_t rows;
    guarded x;
    guarded row_to_slot;
    guarded slot_weights;
    guarded weight;
    guarded packed;
    guarded scale;
    guarded bias;
    int gathers;
    int biased;
} problem;

static int64_t y_columns(const jmoe_cpu_product *product) {
    return product->activation == JMOE_NO_ACTIVATION ? product->parts * product->columns : product->columns;
}

static guarded random_factors(int64_t count, double about) {
    guarded memory = guarded_bytes(count * 4);
    for (int64_t i = 0; i < count; i++) {
        put(memory.data, i, JMOE_F32, about * (1 + 0.8 * random_number()));
    }
    return memory;
}

static void pack(problem *of) {
    int64_t blocks = jmoe_cpu_blocks(&of->product);
    int64_t bytes = GROUPS * blocks * jmoe_cpu_block_bytes(&of->product);
    of->packed = guarded_bytes((bytes + 63) / 64 * 64);
    for (int64_t group = 0; group < GROUPS; group++) {
        for (int64_t block = 0; block < blocks; block++) {
            if (jmoe_cpu_pack(&of->product, of->weight.data, of->packed.data, group, block, 1) != JMOE_OK) {
                printf("FAILED pack\n");
                exit(1);
            }
        }
    }
}

static problem make_problem(int32_t tier, int32_t x_type, int32_t weight_type, int number) {
    static const int64_t ROWS[] = {1, 2, 3, 4, 5, 7, 12, 13, 16, 17, 33, 60};
    static const int64_t INPUTS[] = {1, 2, 31, 64, 77, 130, 520, 1100, 2200};
    static const int64_t COLUMNS[] = {1, 7, 16, 17, 32, 40, 130, 330};
    static const int32_t PLAIN[] = {JMOE_NO_ACTIVATION, JMOE_SILU, JMOE_RELU, JMOE_SQUARED_RELU, JMOE_GELU, JMOE_GELU_TANH,
                                    JMOE_LINEAR};
    static const int32_t GATED[] = {JMOE_NO_ACTIVATION, JMOE_SWIGLU, JMOE_CLAMPED_SWIGLU, JMOE_GEGLU, JMOE_GEGLU_TANH,
                                    JMOE_REGLU, JMOE_GLU, JMOE_BILINEAR};
    problem of;
    memset(&of, 0, sizeof of);
    of.rows = ROWS[number % 12];
    of.first_row = random_below(4);
    of.gathers = number % 3 != 0;
    of.biased = number % 2 == 0;
    int32_t parts = 1 + (int32_t)random_below(2);
    int32_t top_k = of.gathers ? 1 + (int32_t)random_below(3) : 1;
    of.tokens = of.first_row + of.rows;
    of.product = (jmoe_cpu_product){
        .inputs = INPUTS[random_below(9)],
        .columns = COLUMNS[random_below(8)],
        .slots = of.tokens * top_k,
        .top_k = top_k,
        .parts = parts,
        .packed = number % 4 != 1,
        .x_type = x_type,
        .weight_type = weight_type,
        .y_type = number % 3,
        .activation = parts == 2 ? GATED[random_below(8)] : PLAIN[random_below(7)],
        .limit = 0.75f,
        .tier = tier,
        .weighted = of.gathers && number % 5 == 0,
    };
    int64_t outputs = GROUPS * parts * of.product.columns;
    of.x = random_operand(of.tokens * of.product.inputs, x_type);
    of.weight = random_operand(outputs * of.product.inputs, weight_type);
    /* Codes go to 128, numbers to about 1. */
    of.scale = random_factors(outputs, 0x1p-8);
    of.bias = random_operand(outputs, JMOE_F32);
    of.slot_weights = random_factors(of.product.slots, 0.5);
    of.row_to_slot = guarded_bytes(of.tokens * 4);
    for (int64_t row = 0; row < of.tokens; row++) {
        int32_t slot = (int32_t)random_below(of.product.slots);
        memcpy(of.row_to_slot.data + row * 4, &slot, sizeof slot);
    }
    pack(&of);
    return of;
}

static void release_problem(problem *of) {
    guarded *all[] = {&of->x, &of->row_to_slot, &of->slot_weights, &of->weight, &of->packed, &of->scale, &of->bias};
    for (int i = 0; i < 7; i++) {
        release(all[i]);
    }
}

/* Computes some rows by some blocks into y, which has all of them. */
static int32_t multiply(const problem *of, char *y, int64_t row, int64_t rows, int64_t block, int64_t blocks) {
    const jmoe_cpu_product *product = &of->product;
    int64_t bytes = jmoe_cpu_scratch_bytes(product, rows, blocks);
    guarded scratch = guarded_bytes((bytes + 63) / 64 * 64);
    memset(scratch.data, 0xff, scratch.bytes);
    int32_t result = jmoe_cpu_multiply(
        product,
        of->x.data,
        of->gathers ? (const int32_t *)(const void *)of->row_to_slot.data : 0,
        product->weighted ? (const float *)(const void *)of->slot_weights.data : 0,
        product->packed ? of->packed.data : of->weight.data,
        product->weight_type == JMOE_I8 ? (const float *)(const void *)of->scale.data : 0,
        of->biased ? (const float *)(const void *)of->bias.data : 0,
        y,
        scratch.data,
        GROUP,
        row,
        rows,
        block,
        blocks);
    release(&scratch);
    return result;
}

static int64_t y_bytes(const problem *of) {
    return of->tokens * y_columns(&of->product) * element_bytes(of->product.y_type);
}

static guarded result_of(const problem *of) {
    guarded y = guarded_bytes(y_bytes(of));
    memset(y.data, 0x5a, y.bytes);
    int32_t result = multiply(of, y.data, of->first_row, of->rows, 0, jmoe_cpu_blocks(&of->product));
    if (result != JMOE_OK) {
        printf("FAILED multiply returned %d\n", result);
        exit(1);
    }
    return y;
}

/* A row of x as the product sees it: gathered, weighted, and with I8 weights quantised in F32. */
static void read_x(const problem *of, int64_t row, double *to) {
    const jmoe_cpu_product *product = &of->product;
    int32_t slot = (int32_t)row;
    if (of->gathers) {
        memcpy(&slot, of->row_to_slot.data + row * 4, sizeof slot);
    }
    int64_t token = of->gathers ? slot / product->top_k : row;
    float factor = product->weighted ? (float)get(of->slot_weights.data, slot, JMOE_F32) : 1;
    float largest = 0;
    for (int64_t k = 0; k < product->inputs; k++) {
        float value = (float)get(of->x.data, token * product->inputs + k, product->x_type) * factor;
        largest = fmaxf(largest, fabsf(value));
        to[k] = (double)value;
    }
    for (int64_t k = 0; k < product->inputs && product->weight_type == JMOE_I8; k++) {
        to[k] = (double)(largest / 127) * (double)rintf((float)to[k] * (127 / largest));
    }
}

/* An output before the activation, and a bound of what F32 sums may be off by. */
static double output_of(const problem *of, const double *x, int64_t output, double *bound) {
    const jmoe_cpu_product *product = &of->product;
    int64_t at = GROUP * product->parts * product->columns + output;
    double scale = product->weight_type == JMOE_I8 ? get(of->scale.data, at, JMOE_F32) : 1;
    double sum = 0;
    double squares = 0;
    for (int64_t k = 0; k < product->inputs; k++) {
        double term = x[k] * scale * get(of->weight.data, at * product->inputs + k, product->weight_type);
        sum += term;
        squares += term * term;
    }
    if (of->biased) {
        double bias = get(of->bias.data, at, JMOE_F32);
        sum += bias;
        squares += bias * bias;
    }
    /* As in the tests of the backends: 4 eps sqrt(terms) rms of a sum of random terms. */
    *bound = 4 * 0x1p-23 * sqrt((double)product->inputs) * sqrt(squares);
    return sum;
}

static int check_row(const problem *of, const char *y, int64_t row, const double *x) {
    const jmoe_cpu_product *product = &of->product;
    int64_t width = y_columns(product);
    int activates = product->activation != JMOE_NO_ACTIVATION;
    for (int64_t column = 0; column < width; column++) {
        double bound = 0;
        double gate_bound = 0;
        double gate = 0;
        double want;
        if (activates && product->parts == 2) {
            gate = output_of(of, x, column, &gate_bound);
            want = output_of(of, x, product->columns + column, &bound);
            /* The slope of an activation is below 1.2 times the other factor, and that one plus 1. */
            double slope = 1.2 * (fabs(want) + 1);
            bound = slope * gate_bound + (fabs(gate) + 1) * bound;
        } else {
            want = output_of(of, x, column, &bound);
            bound *= activates ? 1.2 + 2 * fabs(want) : 1;
        }
        want = activated(product, gate, want);
        double got = get(y, row * width + column, product->y_type);
        double around = bound + fabs(want) * (rounding_of(product->y_type) + (activates ? 0x1p-20 : 0)) + 0x1p-24;
        if (!(fabs(got - want) <= around)) {
            printf("  row %ld of %ld, column %ld of %ld, %ld inputs: got %g, want %g, bound %g\n", (long)row, (long)of->rows,
                   (long)column, (long)width, (long)product->inputs, got, want, around);
            return 0;
        }
    }
    return 1;
}

/* Bytes of y outside the rows of the item are as they were. */
static int is_untouched(const char *y, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i++) {
        if (y[i] != 0x5a) {
            printf("  a row of another group was written\n");
            return 0;
        }
    }
    return 1;
}

/* The same item cut into rows and blocks one by one has the same bits. */
static int is_same_in_parts(const problem *of, const guarded *y) {
    guarded parts = guarded_bytes(y_bytes(of));
    memset(parts.data, 0x5a, parts.bytes);
    for (int64_t row = 0; row < of->rows; row += 1 + row / 3) {
        int64_t rows = of->rows - row < 1 + row / 3 ? of->rows - row : 1 + row / 3;
        for (int64_t block = 0; block < jmoe_cpu_blocks(&of->product); block++) {
            multiply(of, parts.data, of->first_row + row, rows, block, 1);
        }
    }
    int same = memcmp(parts.data, y->data, y->bytes) == 0;
    if (!same) {
        printf("  bits depend on how an item is cut\n");
    }
    release(&parts);
    return same;
}

/* Vectors of 8 and of 16 give the same bits, and so do tiles of I8, whose sums are exact. */
static int is_same_on_avx2(const problem *of, const guarded *y) {
    const jmoe_cpu_product *product = &of->product;
    int is_tiled = product->tier == JMOE_AMX && product->weight_type == JMOE_BF16 && product->x_type == JMOE_BF16 && !product->weighted;
    if (is_tiled) {
        return 1;
    }
    problem lower = *of;
    lower.product.tier = JMOE_AVX2;
    guarded other = result_of(&lower);
    int same = memcmp(other.data, y->data, y->bytes) == 0;
    if (!same) {
        printf("  bits differ from those of AVX2\n");
    }
    release(&other);
    return same;
}

static int check_case(int32_t tier, int32_t x_type, int32_t weight_type, int number) {
    problem of = make_problem(tier, x_type, weight_type, number);
    guarded y = result_of(&of);
    int64_t before = of.first_row * y_columns(&of.product) * element_bytes(of.product.y_type);
    int good = is_untouched(y.data, before);
    double *x = malloc((size_t)of.product.inputs * sizeof *x);
    for (int64_t row = of.first_row; row < of.tokens && good; row++) {
        read_x(&of, row, x);
        good = check_row(&of, y.data, row, x);
    }
    free(x);
    good = good && is_same_in_parts(&of, &y) && is_same_on_avx2(&of, &y);
    release(&y);
    release_problem(&of);
    return good;
}

/* What a caller may have wrong comes back as a code. */
static int refuses_what_is_wrong(int32_t tier) {
    problem of = make_problem(tier, JMOE_F32, JMOE_BF16, 4);
    guarded y = guarded_bytes(y_bytes(&of));
    int64_t blocks = jmoe_cpu_blocks(&of.product);
    int good = multiply(&of, y.data, 0, 1, 0, blocks + 1) == JMOE_BAD_PRODUCT && multiply(&of, y.data, 0, 1, -1, 1) == JMOE_BAD_PRODUCT;
    for (int wrong = 0; wrong < 2; wrong++) {
        problem bad = of;
        int32_t slot = wrong ? -1 : (int32_t)of.product.slots;
        memcpy(bad.row_to_slot.data, &slot, sizeof slot);
        bad.gathers = 1;
        good = good && multiply(&bad, y.data, 0, 1, 0, blocks) == JMOE_BAD_SLOT;
    }
    problem bad = of;
    bad.product.weight_type = 7;
    good = good && multiply(&bad, y.data, 0, 1, 0, 1) == JMOE_BAD_PRODUCT;
    bad = of;
    bad.product.weight_type = JMOE_I8;
    bad.product.inputs = 1 << 20;
    good = good && multiply(&bad, y.data, 0, 1, 0, 1) == JMOE_BAD_PRODUCT && jmoe_cpu_multiply_adds(&bad.product) == 0;
    release(&y);
    release_problem(&of);
    return good;
}

/* Operations of a call, which are as many as its instructions have. */
static int multiplies_and_adds(int32_t tier, int32_t x_type, int32_t weight_type) {
    jmoe_cpu_product product = {.top_k = 1, .parts = 1, .packed = 1, .x_type = x_type, .weight_type = weight_type, .tier = tier};
    int in_tiles = tier == JMOE_AMX && (weight_type == JMOE_I8 || (weight_type == JMOE_BF16 && x_type == JMOE_BF16));
    int codes = weight_type == JMOE_I8 ? 4 : 1;
    int64_t of_instruction = in_tiles ? 16 * 16 * (weight_type == JMOE_I8 ? 64 : 32) : (tier == JMOE_AVX2 ? 8 : 16) * codes;
    int64_t operations = jmoe_cpu_multiply_adds(&product);
    return operations > 0 && operations % (2 * of_instruction) == 0;
}

int main(void) {
    int failures = 0;
    for (int32_t tier = JMOE_AVX2; tier <= jmoe_cpu_best_tier(); tier++) {
        for (int32_t weight_type = JMOE_F32; weight_type <= JMOE_I8; weight_type++) {
            for (int32_t x_type = JMOE_F32; x_type <= JMOE_BF16; x_type++) {
                int good = multiplies_and_adds(tier, x_type, weight_type);
                for (int number = 0; number < CASES; number++) {
                    good &= check_case(tier, x_type, weight_type, number);
                }
                printf("%s %s: x %s, weight %s\n", good ? "ok" : "FAILED", TIERS[tier], TYPES[x_type], TYPES[weight_type]);
                failures += !good;
            }
        }
        int good = refuses_what_is_wrong(tier);
        printf("%s %s: wrong numbers are refused\n", good ? "ok" : "FAILED", TIERS[tier]);
        failures += !good;
    }
    return failures != 0;
}
