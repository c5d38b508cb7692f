// The kernels that the driver's check programs launch.
#pragma once

#include "fail.h"
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

// Fails in every build, also where the sanitizer would end the process at a stray store.
extern "C" inline void fail_always(int*, int) {
    emulator::fail("failed as asked");
}

static const CheckLaunch scale_add_launch = {128, 128, 0};
static const CheckLaunch fail_always_launch = {32, 1, 0};
EMULATOR_EXPORT(scale_add, 256);
EMULATOR_EXPORT(fail_always, 256);
