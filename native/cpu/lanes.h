/*
 * Vectors of F32, 8 or 16 to a vector, and what is done with them. Sums, products and comparisons
 * are C operators on GCC's vector types; the functions here are those that need an instruction.
 * Where a tier is emulated, a vector of 16 is two of 8.
 *
 * LANES is defined by the tier that includes this.
 */
#ifndef JMOE_LANES_H
#define JMOE_LANES_H

#include "item.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(LANES * 4)));
typedef int32_t ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t words __attribute__((vector_size(LANES * 4)));
typedef uint16_t halves __attribute__((vector_size(LANES * 2)));

typedef floats __attribute__((aligned(1), may_alias)) any_floats;
typedef ints __attribute__((aligned(1), may_alias)) any_ints;
typedef halves __attribute__((aligned(1), may_alias)) any_halves;

/* Vectors of a panel for one input. */
enum { VECTORS = PANEL_COLUMNS / LANES };

INLINE floats load(const void *at) {
    return *(const any_floats *)at;
}

INLINE ints load_ints(const void *at) {
    return *(const any_ints *)at;
}

INLINE void store(void *at, floats value) {
    *(any_floats *)at = value;
}

INLINE void store_ints(void *at, ints value) {
    *(any_ints *)at = value;
}

INLINE floats blend(ints where, floats yes, floats no) {
    return (floats)((where & (ints)yes) | (~where & (ints)no));
}

/* Widens BF16, exactly. */
INLINE floats widen_bf16(const void *at) {
    return (floats)(__builtin_convertvector(*(const any_halves *)at, words) << 16);
}

/* Rounds to BF16, ties to even; NaN must be canonical, which no carry brings to the sign. */
INLINE void narrow_bf16(void *at, floats value) {
    words bits = (words)value;
    words rounded = bits + 0x7fff + ((bits >> 16) & 1);
    *(any_halves *)at = __builtin_convertvector(rounded >> 16, halves);
}

#if LANES == 8

INLINE floats broadcast(const float *at) {
    return (floats)_mm256_broadcast_ss(at);
}

INLINE ints broadcast_int(const void *at) {
    int32_t value;
    memcpy(&value, at, sizeof value);
    return (ints)_mm256_set1_epi32(value);
}

/* a b + c, rounded once. */
INLINE floats multiply_add(floats a, floats b, floats c) {
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

INLINE floats widen_f16(const void *at) {
    return (floats)_mm256_cvtph_ps(_mm_loadu_si128(at));
}

INLINE void narrow_f16(void *at, floats value) {
    _mm_storeu_si128(at, _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
}

INLINE floats to_floats(ints value) {
    return (floats)_mm256_cvtepi32_ps((__m256i)value);
}

/* To nearest, ties to even. */
INLINE ints to_ints(floats value) {
    return (ints)_mm256_cvtps_epi32((__m256)value);
}

#elif defined(__AVX512F__)

INLINE floats broadcast(const float *at) {
    return (floats)_mm512_set1_ps(*at);
}

INLINE ints broadcast_int(const void *at) {
    int32_t value;
    memcpy(&value, at, sizeof value);
    return (ints)_mm512_set1_epi32(value);
}

INLINE floats multiply_add(floats a, floats b, floats c) {
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

INLINE floats widen_f16(const void *at) {
    return (floats)_mm512_cvtph_ps(_mm256_loadu_si256(at));
}

INLINE void narrow_f16(void *at, floats value) {
    _mm256_storeu_si256(at, _mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT));
}

INLINE floats to_floats(ints value) {
    return (floats)_mm512_cvtepi32_ps((__m512i)value);
}

INLINE ints to_ints(floats value) {
    return (ints)_mm512_cvtps_epi32((__m512)value);
}

#else /* emulated */

typedef union {
    floats all;
    ints all_ints;
    __m256 half[2];
    __m256i half_ints[2];
} two;

INLINE floats broadcast(const float *at) {
    two both = {.half = {_mm256_broadcast_ss(at), _mm256_broadcast_ss(at)}};
    return both.all;
}

INLINE ints broadcast_int(const void *at) {
    int32_t value;
    memcpy(&value, at, sizeof value);
    two both = {.half_ints = {_mm256_set1_epi32(value), _mm256_set1_epi32(value)}};
    return both.all_ints;
}

INLINE floats multiply_add(floats a, floats b, floats c) {
    two x = {.all = a};
    two y = {.all = b};
    two z = {.all = c};
    two sum = {.half = {_mm256_fmadd_ps(x.half[0], y.half[0], z.half[0]), _mm256_fmadd_ps(x.half[1], y.half[1], z.half[1])}};
    return sum.all;
}

INLINE floats widen_f16(const void *at) {
    const char *bytes = at;
    two both = {.half = {_mm256_cvtph_ps(_mm_loadu_si128((const void *)bytes)),
                         _mm256_cvtph_ps(_mm_loadu_si128((const void *)(bytes + 16)))}};
    return both.all;
}

INLINE void narrow_f16(void *at, floats value) {
    char *bytes = at;
    two both = {.all = value};
    _mm_storeu_si128((void *)bytes, _mm256_cvtps_ph(both.half[0], _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((void *)(bytes + 16), _mm256_cvtps_ph(both.half[1], _MM_FROUND_TO_NEAREST_INT));
}

INLINE floats to_floats(ints value) {
    two both = {.all_ints = value};
    two result = {.half = {_mm256_cvtepi32_ps(both.half_ints[0]), _mm256_cvtepi32_ps(both.half_ints[1])}};
    return result.all;
}

INLINE ints to_ints(floats value) {
    two both = {.all = value};
    two result = {.half_ints = {_mm256_cvtps_epi32(both.half[0]), _mm256_cvtps_epi32(both.half[1])}};
    return result.all_ints;
}

#endif

/*
 * What the loop of a tile consists of. GCC would load all factors first and move sums from register
 * to register, and so spill some; volatile instructions stay in their order.
 */
INLINE floats next_factor(const void *at) {
#if LANES == 8 || defined(__AVX512F__)
    floats factor;
    __asm__ volatile("vbroadcastss %1, %0" : "=v"(factor) : "m"(*(const float *)at));
    return factor;
#else
    return (floats)broadcast_int(at);
#endif
}

/* Keeps the compiler from knowing what a value is, and from leaving out what it comes from. */
INLINE void forget(floats *value) {
#if LANES == 8 || defined(__AVX512F__)
    __asm__ volatile("" : "+v"(*value));
#else
    __asm__ volatile("" : "+m"(*value));
#endif
}

/* sum += a b, rounded once. */
INLINE void accumulate(floats *sum, floats a, floats b) {
#if LANES == 8 || defined(__AVX512F__)
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
#else
    *sum = multiply_add(a, b, *sum);
#endif
}

/*
 * sum += x w of four codes a lane: x the same four in every lane. Codes of w may be minus 128.
 *
 * The instructions multiply unsigned by signed bytes. AVX2's would saturate, so it gets the
 * magnitude of w, and x with the sign of w: 128 * 127 * 2 is the most that it adds. AVX-512's gets
 * w + 128, and so adds 128 times the sum of x too much; see excess_of_codes.
 */
INLINE void accumulate_codes(ints *sum, ints x, ints w) {
#if LANES == 8
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), _mm256_sign_epi8((__m256i)x, (__m256i)w));
    *sum += (ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
    ints shifted = w ^ (int32_t)0x80808080;
#ifdef __AVX512VNNI__
    __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(shifted), "v"(x));
#else
    const uint8_t *unsigned_codes = (const uint8_t *)&shifted;
    const int8_t *signed_codes = (const int8_t *)&x;
    for (int i = 0; i < LANES * 4; i++) {
        (*sum)[i / 4] += unsigned_codes[i] * signed_codes[i];
    }
#endif
#endif
}

/* What accumulate_codes adds too much, for each unit of the sum of x. */
INLINE int32_t excess_of_codes(void) {
    return LANES == 8 ? 0 : 128;
}

/* Every lane the same, also where the number is not in memory. */
INLINE floats all_lanes(float value) {
    return broadcast(&value);
}

#endif
