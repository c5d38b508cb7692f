#include "worker.h"

#include <cstring>
#include <new>

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emulator {

constexpr unsigned char shared_poison = 0xFF;  // NaN in every float type, -1 as an integer
constexpr size_t guard_bytes = 64 * 1024;
constexpr size_t mapping_bytes = shared_window_bytes + 2 * guard_bytes;

Worker::~Worker() {
    for (std::byte* window : windows) {
        if (window != nullptr) {
            munmap(window - guard_bytes, mapping_bytes);
        }
    }
}

std::byte* Worker::window(unsigned rank) {
    if (windows[rank] == nullptr) {
        void* mapping = mmap(nullptr, mapping_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapping == MAP_FAILED) {
            throw std::bad_alloc();
        }
        std::byte* window = static_cast<std::byte*>(mapping) + guard_bytes;
        mprotect(window, shared_window_bytes, PROT_READ | PROT_WRITE);
        windows[rank] = window;
    }
    return windows[rank];
}

int Worker::rank_of(const void* pointer) const {
    for (unsigned rank = 0; rank < windows.size() && windows[rank] != nullptr; rank++) {
        if (uintptr_t(pointer) - uintptr_t(windows[rank]) < shared_window_bytes) {
            return int(rank);
        }
    }
    return -1;
}

void open_window([[maybe_unused]] std::byte* window) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(window, shared_window_bytes);
#endif
}

void open_region(std::byte* window, uint32_t begin, uint32_t end) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(window + begin, end - begin);
#endif
    std::memset(window + begin, shared_poison, end - begin);
}

}  // namespace emulator
