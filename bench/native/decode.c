/*
 * One token's gate and up product by 8 random experts of 64, in turns with plain reads of as many
 * bytes of the same memory: what share of the memory's speed a product reaches, when that speed
 * changes from one minute to the next. By hand, after `native/make cpu`:
 *
 *     gcc -O2 -mavx2 -o target/decode bench/native/decode.c target/native/cpu/libjmoe_cpu.so \
 *         -Wl,-rpath,$PWD/target/native/cpu -lpthread
 *     target/decode TYPE [INPUTS COLUMNS]       TYPE: 0 F32, 1 F16, 2 BF16, 3 I8
 */
#include "../../native/cpu/jmoe_cpu.h"

#include <immintrin.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { EXPERTS = 64, TOP_K = 8, THREADS = 2, STREAMS = 8, ROUNDS = 150, LARGE_PAGE = 2 << 20 };

static jmoe_cpu_product product;
static char *weight;
static void *x;
static float *scale;
static char *y;
static void *scratch[THREADS];
static int64_t blocks;
static int64_t block_bytes;
static int64_t item_blocks;

/* A run, which both threads take items from. */
static int reads_only;
static int chosen[TOP_K];
static atomic_int next_item;
static atomic_int runs;
static atomic_int ended;
static volatile float sink;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static __m256 read_bytes(const char *from, int64_t bytes, __m256 sum) {
    int64_t apart = bytes / STREAMS;
    for (int64_t at = 0; at < apart; at += 64) {
        for (int stream = 0; stream < STREAMS; stream++) {
            const char *line = from + stream * apart + at;
            sum = _mm256_add_ps(sum, _mm256_load_ps((const float *)(const void *)line));
            sum = _mm256_add_ps(sum, _mm256_load_ps((const float *)(const void *)(line + 32)));
        }
    }
    return sum;
}

static void take_items(int thread) {
    int64_t per_expert = (blocks + item_blocks - 1) / item_blocks;
    __m256 sum = _mm256_setzero_ps();
    for (int64_t item; (item = atomic_fetch_add(&next_item, 1)) < TOP_K * per_expert;) {
        int expert = chosen[item / per_expert];
        int64_t block = item % per_expert * item_blocks;
        int64_t count = blocks - block < item_blocks ? blocks - block : item_blocks;
        if (reads_only) {
            sum = read_bytes(weight + (expert * blocks + block) * block_bytes, count * block_bytes, sum);
        } else {
            char *row = y + item / per_expert * product.columns * 2;
            jmoe_cpu_multiply(&product, x, 0, 0, weight, scale, 0, row, scratch[thread], expert, 0, 1, block, count);
        }
    }
    sink = sum[0];
}

static void *help(void *unused) {
    (void)unused;
    for (int seen = 0;; take_items(1), atomic_fetch_add(&ended, 1)) {
        while (atomic_load(&runs) == seen) {
            _mm_pause();
        }
        seen = atomic_load(&runs);
        if (seen < 0) {
            return 0;
        }
    }
}

static double seconds(int reads) {
    for (int k = 0; k < TOP_K; k++) {
        chosen[k] = rand() % EXPERTS;
    }
    reads_only = reads;
    atomic_store(&next_item, 0);
    atomic_store(&ended, 0);
    double start = now();
    atomic_fetch_add(&runs, 1);
    take_items(0);
    while (!atomic_load(&ended)) {
        _mm_pause();
    }
    return now() - start;
}

static int rising(const void *a, const void *b) {
    double difference = *(const double *)a - *(const double *)b;
    return (difference > 0) - (difference < 0);
}

static void fill(void *to, int64_t bytes, int is_codes) {
    for (int64_t i = 0; i < bytes / 2; i++) {
        /* As halves of either kind, and as upper halves of F32: small numbers of both signs. */
        ((uint16_t *)to)[i] = (uint16_t)(is_codes ? rand() : 0x3c00 + (rand() & 0x80ff));
    }
}

static void *memory(int64_t bytes) {
    int64_t whole = (bytes + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    void *found = aligned_alloc(LARGE_PAGE, (size_t)whole);
    jmoe_cpu_prefer_large_pages(found, whole);
    return found;
}

int main(int count, char **arguments) {
    int type = count > 1 ? atoi(arguments[1]) : JMOE_BF16;
    product = (jmoe_cpu_product){.inputs = count > 2 ? atoi(arguments[2]) : 2048,
                                 .columns = count > 3 ? atoi(arguments[3]) : 1024,
                                 .top_k = 1,
                                 .parts = 2,
                                 .packed = 1,
                                 .x_type = JMOE_BF16,
                                 .weight_type = type,
                                 .y_type = JMOE_BF16,
                                 .activation = JMOE_SWIGLU,
                                 .tier = jmoe_cpu_best_tier()};
    blocks = jmoe_cpu_blocks(&product);
    block_bytes = jmoe_cpu_block_bytes(&product);
    item_blocks = jmoe_cpu_item_blocks(&product) < 8 ? jmoe_cpu_item_blocks(&product) : 8;
    weight = memory(EXPERTS * blocks * block_bytes);
    fill(weight, EXPERTS * blocks * block_bytes, type == JMOE_I8);
    x = memory(product.inputs * 2);
    fill(x, product.inputs * 2, 0);
    y = memory(TOP_K * product.columns * 2);
    scale = type == JMOE_I8 ? calloc((size_t)(EXPERTS * 2 * product.columns), sizeof *scale) : 0;
    for (int thread = 0; thread < THREADS; thread++) {
        scratch[thread] = memory(jmoe_cpu_scratch_bytes(&product, 1, item_blocks));
    }
    pthread_t helper;
    pthread_create(&helper, 0, help, 0);
    double share[ROUNDS];
    double rate[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        double before = seconds(1);
        double of_product = seconds(0);
        share[round] = (before + seconds(1)) / 2 / of_product;
        rate[round] = (double)(TOP_K * blocks * block_bytes) / of_product / 1e9;
    }
    atomic_store(&runs, -1);
    pthread_join(helper, 0);
    qsort(share, ROUNDS, sizeof *share, rising);
    qsort(rate, ROUNDS, sizeof *rate, rising);
    printf("type %d, %ld x %ld: median %.1f GB/s, %.0f %% of plain reads [quartiles %.0f-%.0f]\n", type, (long)product.inputs,
           (long)product.columns, rate[ROUNDS / 2], 100 * share[ROUNDS / 2], 100 * share[ROUNDS / 4], 100 * share[3 * ROUNDS / 4]);
    return 0;
}
