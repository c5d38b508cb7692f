#include "fail.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "cluster.h"
#include "code_place.h"

#if defined(__SANITIZE_ADDRESS__)
// A fiber that failed is abandoned with whatever it owned: that is no leak worth a report.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace emulator {

const char* short_name(const char* file) {
    const char* slash = std::strrchr(file, '/');
    return slash == nullptr ? file : slash + 1;
}

static std::string format_text(const char* format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = std::vsnprintf(nullptr, 0, format, again);
    va_end(again);
    std::string result(size_t(length) + 1, '\0');
    std::vsnprintf(result.data(), result.size(), format, arguments);
    result.resize(size_t(length));
    return result;
}

std::string text(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string result = format_text(format, arguments);
    va_end(arguments);
    return result;
}

static std::string name_of_index(const Dim3& index) { return text("(%u,%u,%u)", index.x, index.y, index.z); }

std::string name_of(const Thread& thread) {
    std::string name = "thread " + name_of_index(thread.thread_index);
    if (thread.block->cluster->blocks().size() > 1) {
        name += " of block " + name_of_index(thread.block_index);
    }
    return name;
}

// "kernel k, k.cu:41, block (3,0,0) thread (17,0,0): ", as far as known.
static std::string heading(std::string place) {
    if (current_cluster == nullptr) {
        return {};
    }
    std::string result = text("kernel %s", current_cluster->launch().kernel->name);
    const AsyncOperation* operation = current_cluster->running_operation;
    if (!place.empty()) {
        result += ", " + place;
    }
    const Thread* thread = operation != nullptr ? operation->issuer : current_thread;
    if (thread != nullptr) {
        result += ", block " + name_of_index(thread->block_index) + " thread " + name_of_index(thread->thread_index);
    }
    if (operation != nullptr) {
        result += text(", %s issued at %s:%d", operation->what, short_name(operation->site.file), operation->site.line);
    }
    return result + ": ";
}

static std::string place_of(Site site) {
    return site.known() ? text("%s:%d", short_name(site.file), site.line) : std::string();
}

// A fiber cannot be unwound by an exception: what lies below its frames is another stack.
[[noreturn]] static void end_launch(std::string message) {
    if (current_cluster == nullptr || current_thread == nullptr) {
        throw Failure{std::move(message)};
    }
    current_cluster->record(std::move(message));
    current_thread->state = ThreadState::exited;
    current_cluster->switch_to_scheduler();
    __builtin_unreachable();
}

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string what = format_text(format, arguments);
    va_end(arguments);
    Site site = current_thread != nullptr ? current_thread->site : Site();
    end_launch(heading(place_of(site)) + what);
}

void fail_at(Site site, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string what = format_text(format, arguments);
    va_end(arguments);
    end_launch(heading(place_of(site)) + what);
}

void fail_at_code(const void* code, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string what = format_text(format, arguments);
    va_end(arguments);
    std::string place = name_of_code(code);
    if (place.empty() && current_thread != nullptr) {
        place = place_of(current_thread->site);
        place += place.empty() ? "" : " or later";
    }
    end_launch(heading(place) + what);
}

}  // namespace emulator
