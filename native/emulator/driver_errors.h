// Results of driver calls: their names, their texts, and how a call that refuses says why.
#pragma once

#include <string>

#include "driver_abi.h"

namespace driver {

// Thrown inside a driver call; becomes its result.
struct Refusal {
    Result result;
    std::string why;
};

[[noreturn]] void refuse(Result result, const char* format, ...) __attribute__((format(printf, 2, 3)));

// nullptr for a code the driver does not know.
const char* error_name(int code);

// The driver's short text; nullptr for a code the driver does not know.
const char* error_text(int code);

// True for the errors after which the real driver refuses everything until the context is destroyed.
bool is_sticky(Result result);

// What cuGetErrorString answers: the short text, followed by the reason of this thread's last refusal with that code or
// of the last lost context with that code. The pointer stays valid for ever.
const char* describe_error(int code);

void remember_refusal(const char* call, const Refusal& refusal);
void remember_lost_context(Result result, const std::string& why);
void forget_lost_contexts();

}  // namespace driver
