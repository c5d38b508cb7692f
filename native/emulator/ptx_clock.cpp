#include "ptx_clock.h"

#include <atomic>

namespace ptx {

namespace {

std::atomic<uint64_t> looks{0};

}  // namespace

uint64_t clock_cycles() { return ++looks; }

uint64_t clock_nanoseconds() { return ++looks; }

}  // namespace ptx
