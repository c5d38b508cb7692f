/*
 * The instructions of AMX, each a function: eight registers of 16 rows of 64 bytes. Where the tier
 * is emulated, they are memory of this thread, and loops compute what Intel's manual says. The
 * numbers of registers must be constants.
 */
#ifndef JMOE_TILE_REGISTERS_H
#define JMOE_TILE_REGISTERS_H

#include "lanes.h"

enum { TILE_ROWS = 16, TILE_BYTES = TILE_ROWS * LINE_BYTES };

#ifndef JMOE_EMULATED

/*
 * Not GCC's intrinsics: theirs do not say that a tile is loaded from memory, so that what was
 * written just before might still be on its way there.
 */
#define TILE_ASM(text, ...) __asm__ volatile(text : : __VA_ARGS__ : "memory")

/* All eight at full size. */
static inline void begin_tiles(void) {
    static const struct {
        uint8_t palette;
        uint8_t start_row;
        uint8_t reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } FULL = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    TILE_ASM("ldtilecfg %0", "m"(FULL));
}

/* Tiles that are released need not be saved when the thread is interrupted. */
static inline void end_tiles(void) {
    __asm__ volatile("tilerelease" : : : "memory");
}

/* The number of a register becomes part of the text, after it was replaced by what it stands for. */
#define zero_tile(to) ZERO_TILE(to)
#define load_tile(to, from) LOAD_TILE(to, from)
#define store_tile(from, to) STORE_TILE(from, to)
#define add_bf16_products(sum, a, b) ADD_PRODUCTS("tdpbf16ps", sum, a, b)
#define add_i8_products(sum, a, b) ADD_PRODUCTS("tdpbssd", sum, a, b)

#define ZERO_TILE(to) __asm__ volatile("tilezero %%tmm" #to : :)
#define LOAD_TILE(to, from) TILE_ASM("tileloadd (%0,%1,1), %%tmm" #to, "r"(from), "r"((int64_t)LINE_BYTES))
#define STORE_TILE(from, to) TILE_ASM("tilestored %%tmm" #from ", (%0,%1,1)", "r"(to), "r"((int64_t)LINE_BYTES))
#define ADD_PRODUCTS(name, sum, a, b) ADD_NUMBERED_PRODUCTS(name, sum, a, b)
#define ADD_NUMBERED_PRODUCTS(name, sum, a, b) __asm__ volatile(name " %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)

#else

static __thread uint8_t emulated_tiles[8][TILE_BYTES] __attribute__((aligned(64)));
static __thread int tiles_are_on;

static inline uint8_t *emulated(int tile) {
    if (!tiles_are_on) {
        __builtin_trap();
    }
    return emulated_tiles[tile];
}

static inline void begin_tiles(void) {
    tiles_are_on = 1;
    memset(emulated_tiles, 0, sizeof emulated_tiles);
}

static inline void end_tiles(void) {
    tiles_are_on = 0;
}

static inline void zero_tile(int to) {
    memset(emulated(to), 0, TILE_BYTES);
}

static inline void load_tile(int to, const void *from) {
    memcpy(emulated(to), from, TILE_BYTES);
}

static inline void store_tile(int from, void *to) {
    memcpy(to, emulated(from), TILE_BYTES);
}

/* Subnormal numbers count as zeros, as operands and as results. */
static inline floats flushed(floats value) {
    ints magnitude = (ints)value & INT32_MAX;
    return (floats)((ints)value & ((magnitude >= 0x00800000) | INT32_MIN));
}

static inline floats flushed_bf16(const uint8_t *at) {
    uint16_t code;
    memcpy(&code, at, sizeof code);
    return flushed((floats)((words){0} + ((uint32_t)code << 16)));
}

/* Even and odd products have a sum each, in rising order, which are added in the end. */
static inline void add_bf16_products(int sum, int a, int b) {
    for (int row = 0; row < TILE_ROWS; row++) {
        const uint8_t *x = emulated(a) + row * LINE_BYTES;
        floats even = {0};
        floats odd = {0};
        for (int k = 0; k < TILE_ROWS; k++) {
            words pairs = (words)load_ints(emulated(b) + k * LINE_BYTES);
            even = flushed(multiply_add(flushed_bf16(x + 4 * k), flushed((floats)(pairs << 16)), even));
            odd = flushed(multiply_add(flushed_bf16(x + 4 * k + 2), flushed((floats)(pairs & 0xffff0000)), odd));
        }
        uint8_t *at = emulated(sum) + row * LINE_BYTES;
        store(at, flushed(flushed(load(at)) + flushed(even + odd)));
    }
}

static inline void add_i8_products(int sum, int a, int b) {
    for (int row = 0; row < TILE_ROWS; row++) {
        const int8_t *x = (const int8_t *)emulated(a) + row * LINE_BYTES;
        ints total = load_ints(emulated(sum) + row * LINE_BYTES);
        for (int k = 0; k < LINE_BYTES; k++) {
            ints quads = load_ints(emulated(b) + k / 4 * LINE_BYTES);
            total += x[k] * ((quads << (24 - 8 * (k % 4))) >> 24);
        }
        store_ints(emulated(sum) + row * LINE_BYTES, total);
    }
}

#endif

#endif
