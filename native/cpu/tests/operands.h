/* Operands of check programs: memory that ends where a page begins that nobody may touch, numbers
 * of every type, and plain loops that say what a product is. */
#ifndef JMOE_OPERANDS_H
#define JMOE_OPERANDS_H

#include "../jmoe_cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

typedef struct guarded {
    void *map;
    size_t map_bytes;
    char *data; /* its last byte is followed by a page without access */
    size_t bytes;
} guarded;

static guarded guarded_bytes(int64_t bytes) {
    guarded memory;
    memory.bytes = (size_t)bytes;
    size_t pages = (memory.bytes + PAGE - 1) / PAGE * PAGE;
    memory.map_bytes = pages + PAGE;
    memory.map = mmap(0, memory.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory.map == MAP_FAILED || mprotect((char *)memory.map + pages, PAGE, PROT_NONE) != 0) {
        perror("mmap");
        exit(2);
    }
    memory.data = (char *)memory.map + pages - memory.bytes;
    return memory;
}

static void release(guarded *memory) {
    munmap(memory->map, memory->map_bytes);
}

static uint64_t random_state = 1;

/* Uniform in -1 to 1; the same numbers in every run. */
static double random_number(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)random_state * 0x1p-63;
}

static int64_t random_below(int64_t bound) {
    return (int64_t)(fabs(random_number()) * (double)bound) % bound;
}

static int64_t element_bytes(int32_t type) {
    return type == JMOE_F32 ? 4 : type == JMOE_I8 ? 1 : 2;
}

static double get(const char *data, int64_t element, int32_t type) {
    const char *at = data + element * element_bytes(type);
    if (type == JMOE_I8) {
        return *(const int8_t *)at;
    }
    if (type == JMOE_F32) {
        float value;
        memcpy(&value, at, sizeof value);
        return (double)value;
    }
    uint16_t code;
    memcpy(&code, at, sizeof code);
    if (type == JMOE_BF16) {
        uint32_t bits = (uint32_t)code << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        return (double)value;
    }
    double magnitude = (code & 0x7c00) == 0 ? ldexp(code & 0x3ff, -24) : ldexp((code & 0x3ff) | 0x400, ((code >> 10) & 31) - 25);
    return code & 0x8000 ? -magnitude : magnitude;
}

/* Puts a number of the type that is near: its last bits are cut off. */
static void put(char *data, int64_t element, int32_t type, double number) {
    char *at = data + element * element_bytes(type);
    float value = (float)number;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (type == JMOE_F32) {
        memcpy(at, &value, sizeof value);
    } else if (type == JMOE_BF16) {
        uint16_t code = (uint16_t)(bits >> 16);
        memcpy(at, &code, sizeof code);
    } else if (type == JMOE_F16) {
        int exponent = (int)((bits >> 23) & 0xff) - 112;
        uint16_t code = (uint16_t)(((bits >> 16) & 0x8000) | (exponent <= 0 ? 0 : (uint32_t)exponent << 10 | ((bits >> 13) & 0x3ff)));
        memcpy(at, &code, sizeof code);
    } else {
        *(int8_t *)at = (int8_t)lrint(number * 128 - 0.5);
    }
}

static guarded random_operand(int64_t elements, int32_t type) {
    guarded memory = guarded_bytes(elements * element_bytes(type));
    for (int64_t i = 0; i < elements; i++) {
        put(memory.data, i, type, random_number());
    }
    return memory;
}

/* Half a unit in the last place, relative. */
static double rounding_of(int32_t type) {
    return type == JMOE_F32 ? 0x1p-24 : type == JMOE_F16 ? 0x1p-11 : 0x1p-8;
}

static double normal(double x) {
    return 0.5 * erfc(-x * sqrt(0.5));
}

static double gelu_tanh(double x) {
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* What becomes of the outputs of gate and up, or of one output. */
static double activated(const jmoe_cpu_product *product, double gate, double up) {
    double limit = (double)product->limit;
    switch (product->activation) {
    case JMOE_SWIGLU:
        return gate * sigmoid(gate) * up;
    case JMOE_CLAMPED_SWIGLU:
        gate = fmin(gate, limit);
        return gate * sigmoid(1.702 * gate) * (fmax(fmin(up, limit), -limit) + 1);
    case JMOE_SILU:
        return up * sigmoid(up);
    case JMOE_RELU:
        return fmax(up, 0);
    case JMOE_SQUARED_RELU:
        return fmax(up, 0) * fmax(up, 0);
    case JMOE_GELU:
        return up * normal(up);
    case JMOE_GELU_TANH:
        return gelu_tanh(up);
    case JMOE_GEGLU:
        return gate * normal(gate) * up;
    case JMOE_GEGLU_TANH:
        return gelu_tanh(gate) * up;
    case JMOE_REGLU:
        return fmax(gate, 0) * up;
    case JMOE_GLU:
        return sigmoid(gate) * up;
    case JMOE_BILINEAR:
        return gate * up;
    default:
        return up;
    }
}

#endif
