// Twins of kernels/common/ptx_clock.cuh. Time means nothing here: a clock is one step further whenever somebody looks.
#pragma once

#include <cstdint>

namespace ptx {

uint64_t clock_cycles();
uint64_t clock_nanoseconds();

}  // namespace ptx
