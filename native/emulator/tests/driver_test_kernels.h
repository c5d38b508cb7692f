// The kernels that the driver's check programs launch.
#pragma once

#include "fail.h"
#include "ptx.h"
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

// The same after waiting for the launches in front, and with a look at the data before that.
extern "C" inline void scale_add_waiting(int* data, int count, int factor, int addend) {
    ptx::grid_dependency_wait();
    scale_add(data, count, factor, addend);
}
extern "C" inline void scale_add_hasty(int* data, int count, int factor, int addend) {
    int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    int before = i < count ? data[i] : 0;
    ptx::grid_dependency_wait();
    scale_add(data, count, factor, before >= 0 ? addend : 0);
}

// Fails in every build, also where the sanitizer would end the process at a stray store.
extern "C" inline void fail_always(int*, int) {
    emulator::fail("failed as asked");
}

static const CheckLaunch scale_add_launch = {128, 128, 0};
static const CheckLaunch fail_always_launch = {32, 1, 0};
static const CheckLaunch scale_add_waiting_launch = scale_add_launch;
static const CheckLaunch scale_add_hasty_launch = scale_add_launch;
EMULATOR_EXPORT(scale_add, 256);
EMULATOR_EXPORT(scale_add_waiting, 256);
EMULATOR_EXPORT(scale_add_hasty, 256);
EMULATOR_EXPORT(fail_always, 256);
