// Compiles one kernel file several times, with one mistake each.
#pragma once

#include "common/ptx.cuh"

#define PLANTED_PASTE(name, number) name##_planted_##number
#define PLANTED_NAME(name, number) PLANTED_PASTE(name, number)

// Expands its argument before JMOE_EXPORT makes names of it.
#define PLANTED_EXPORT(kernel, threads, items_per_block, shared_bytes) \
    JMOE_EXPORT(kernel, threads, items_per_block, shared_bytes)
