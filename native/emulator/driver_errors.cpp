#include "driver_errors.h"

#include <cstdarg>
#include <cstdio>
#include <map>
#include <mutex>
#include <set>

namespace driver {
namespace {

// Reasons of lost contexts, which every thread sees, and all texts ever handed out: a caller may keep the pointer.
struct Texts {
    std::mutex mutex;
    std::map<int, std::string> lost_contexts;
    std::set<std::string> handed_out;
};

Texts& texts() {
    static Texts& instance = *new Texts;  // never destroyed: other threads may still call while the process exits
    return instance;
}

struct LastRefusal {
    int code = 0;
    std::string why;
};

thread_local LastRefusal last_refusal;

std::string reason(int code) {
    auto lost = texts().lost_contexts.find(code);
    if (lost != texts().lost_contexts.end()) {
        return lost->second;
    }
    return last_refusal.code == code ? last_refusal.why : std::string();
}

}  // namespace

void refuse(Result result, const char* format, ...) {
    char why[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    throw Refusal{result, why};
}

bool is_sticky(Result result) {
    bool lost_device = result == CUDA_ERROR_ECC_UNCORRECTABLE || result == CUDA_ERROR_NVLINK_UNCORRECTABLE;
    bool lost_launch = result == CUDA_ERROR_ILLEGAL_ADDRESS || result == CUDA_ERROR_LAUNCH_TIMEOUT ||
                       result == CUDA_ERROR_ASSERT ||
                       (result >= CUDA_ERROR_HARDWARE_STACK_ERROR && result <= CUDA_ERROR_LAUNCH_FAILED);
    return lost_device || lost_launch;
}

const char* describe_error(int code) {
    const char* text = error_text(code);
    if (text == nullptr) {
        return nullptr;
    }
    std::lock_guard lock(texts().mutex);
    std::string why = reason(code);
    if (why.empty()) {
        return text;
    }
    return texts().handed_out.insert(std::string(text) + ": " + why).first->c_str();
}

void remember_refusal(const char* call, const Refusal& refusal) {
    last_refusal.code = refusal.result;
    last_refusal.why = refusal.why.empty() ? std::string() : std::string(call) + ": " + refusal.why;
}

void remember_lost_context(Result result, const std::string& why) {
    std::lock_guard lock(texts().mutex);
    texts().lost_contexts[result] = why;
}

void forget_lost_contexts() {
    std::lock_guard lock(texts().mutex);
    texts().lost_contexts.clear();
}

}  // namespace driver
