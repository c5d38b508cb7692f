// Errors ordered in advance: the countdown-th next call of a function fails.
#pragma once

#include <map>
#include <string>

#include "driver_abi.h"

namespace driver {

class Faults {
public:
    // Names count without their version: cuMemAlloc is cuMemAlloc_v2. "*clear*" forgets all.
    void arm(const std::string& call, int countdown, Result result);

    // What this call has to return: CUDA_SUCCESS unless its time has come.
    Result strike(const char* call);

private:
    struct Fault {
        int countdown;
        Result result;
    };

    std::map<std::string, Fault> faults_;
};

// "cuMemAlloc_v2" -> "cuMemAlloc"
std::string without_version(const std::string& symbol);

}  // namespace driver
