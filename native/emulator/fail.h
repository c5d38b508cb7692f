// How a kernel's mistake ends its launch.
#pragma once

#include <string>

#include "site.h"

namespace emulator {

// Ends the running launch. The text that `run` returns is
//     kernel permute_copy, permute.cu:41, block (3,0,0) thread (17,0,0): <what>
// with the last site the thread passed. A fiber that fails is abandoned where it stands: its destructors never run.
// So never call this with a lock held, nor with anything on the stack that somebody else needs.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// The same with the place given.
[[noreturn]] void fail_at(Site site, const char* format, ...) __attribute__((format(printf, 2, 3)));

// The same for an address inside instrumented kernel code (a return address); the line comes from debug information.
[[noreturn]] void fail_at_code(const void* code, const char* format, ...) __attribute__((format(printf, 2, 3)));

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));

// What `fail` throws where no CUDA thread is running (an asynchronous operation run by the scheduler).
struct Failure {
    std::string message;
};

}  // namespace emulator
