/* What the processor has, and what the system lets this process use of it. */
#include "item.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bits of the state that the system keeps for a thread, in XCR0. */
enum {
    XCR0_VECTORS = 6,           /* SSE and the upper halves of AVX */
    XCR0_AVX512 = 0xe0,         /* masks, upper halves of 512 bits, the upper 16 registers */
    XCR0_TILES = 3 << 17        /* configuration and data */
};

/* Linux lets a process use tiles once it has asked (arch_prctl, since 5.16). */
enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_TILE_DATA = 18 };

static uint64_t kept_state(void) {
    uint32_t low;
    uint32_t high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static int has(uint32_t word, uint32_t bits) {
    return (word & bits) == bits;
}

int32_t jmoe_cpu_features(void) {
    uint32_t a;
    uint32_t b;
    uint32_t c;
    uint32_t d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, bit_OSXSAVE | bit_FMA | bit_F16C | bit_AVX)) {
        return 0;
    }
    uint64_t kept = kept_state();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, bit_AVX2) || (kept & XCR0_VECTORS) != XCR0_VECTORS) {
        return 0;
    }
    int32_t features = JMOE_HAS_AVX2;
#ifdef JMOE_EMULATED
    return features | JMOE_HAS_AVX512 | JMOE_KEEPS_AVX512 | JMOE_HAS_AMX | JMOE_KEEPS_AMX | JMOE_PERMITS_AMX;
#else
    if (has(b, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL) && has(c, bit_AVX512VNNI)) {
        features |= JMOE_HAS_AVX512;
        features |= (kept & XCR0_AVX512) == XCR0_AVX512 ? JMOE_KEEPS_AVX512 : 0;
    }
    if (has(d, bit_AMX_TILE | bit_AMX_BF16 | bit_AMX_INT8)) {
        features |= JMOE_HAS_AMX;
        if ((kept & XCR0_TILES) == XCR0_TILES) {
            features |= JMOE_KEEPS_AMX;
            features |= syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) == 0 ? JMOE_PERMITS_AMX : 0;
        }
    }
    return features;
#endif
}

int32_t jmoe_cpu_best_tier(void) {
    uint32_t features = (uint32_t)jmoe_cpu_features();
    if (!has(features, JMOE_HAS_AVX2)) {
        return JMOE_NO_TIER;
    }
    if (!has(features, JMOE_HAS_AVX512 | JMOE_KEEPS_AVX512)) {
        return JMOE_AVX2;
    }
    return has(features, JMOE_HAS_AMX | JMOE_KEEPS_AMX | JMOE_PERMITS_AMX) ? JMOE_AMX : JMOE_AVX512;
}

int32_t jmoe_best_tier(void) {
    static int32_t found = -1;
    int32_t tier = __atomic_load_n(&found, __ATOMIC_RELAXED);
    if (tier < 0) {
        tier = jmoe_cpu_best_tier();
        __atomic_store_n(&found, tier, __ATOMIC_RELAXED);
    }
    return tier;
}
