// Where in a kernel's source something was called.
#pragma once

namespace emulator {

// Taken as the last parameter with the default `Site site = Site::here()`: the compiler then fills in the line of the
// caller. A wrapper has to declare the same parameter and pass it on, or every report names the wrapper's own line.
struct Site {
    const char* file = nullptr;
    int line = 0;

    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }

    bool known() const { return file != nullptr; }
};

// The file name without its folders.
const char* short_name(const char* file);

}  // namespace emulator
