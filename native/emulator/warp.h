// Shuffles, votes, matches and reductions of a warp, on raw bits; simt.h gives them their CUDA names and types.
#pragma once

#include <cstdint>

#include "site.h"

namespace emulator {

enum class Shuffle : uint8_t { index, up, down, butterfly };
enum class Reduction : uint8_t { add, min_signed, min_unsigned, max_signed, max_unsigned, bit_and, bit_or, bit_xor };

// `operand` is the source lane, the distance or the lane mask; only its low five bits count. A source outside of the
// segment of `width` lanes gives the lane's own value.
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, uint32_t operand, int width, const char* name, Site site);

uint32_t ballot(uint32_t mask, bool predicate, const char* name, Site site);
uint32_t match_any(uint32_t mask, uint64_t value, Site site);
uint32_t match_all(uint32_t mask, uint64_t value, Site site);
uint32_t reduce(Reduction operation, uint32_t mask, uint32_t value, const char* name, Site site);
void sync_warp(uint32_t mask, Site site);

}  // namespace emulator
