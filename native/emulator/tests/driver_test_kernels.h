// The kernels that the driver's check programs launch.
#pragma once

#include "simt.h"

struct CheckLaunch {
    int threads;
    int items_per_block;
    int shared_bytes;
};

// data[i] = data[i] * factor + addend
extern "C" inline void scale_add(int* data, int count, int factor, int addend) {
    int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) {
        data[i] = data[i] * factor + addend;
    }
}

extern "C" inline void store_past_end(int* data, int count) {
    if (threadIdx.x == 0) {
        data[count] = 1;
    }
}

static const CheckLaunch scale_add_launch = {128, 128, 0};
static const CheckLaunch store_past_end_launch = {32, 1, 0};
EMULATOR_EXPORT(scale_add, 256);
EMULATOR_EXPORT(store_past_end, 256);
