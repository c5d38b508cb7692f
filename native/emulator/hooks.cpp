// Answers the calls that -fsanitize=thread puts before every memory access of the kernels. The thread sanitizer's own
// library is not linked: these names are all that is taken from it.
#include "shadow.h"

#if JMOE_EMULATOR_SHADOW

#include <cstddef>
#include <cstdint>

#include "cluster.h"
#include "fail.h"
#include "global_cells.h"
#include "memory.h"
#include "worker.h"

namespace emulator {

namespace {

constexpr uintptr_t null_page_bytes = 65536;

// User space ends here; random bits taken for a pointer mostly lie above.
constexpr uintptr_t user_space_end = uintptr_t(1) << 47;

// "of 4 bytes at byte 40 of row_max, which has 32": counted from the nearest array below.
std::string outside_of_arrays(const Block& block, uint32_t offset, size_t bytes) {
    const SharedRegion* nearest = nullptr;
    for (const SharedRegion& region : block.regions) {
        if (region.begin <= offset && (nearest == nullptr || nearest->begin < region.begin)) {
            nearest = &region;
        }
    }
    if (nearest == nullptr) {
        return text("of %zu bytes at shared address %#x, below every array", bytes, offset);
    }
    const char* name = nearest->array == nullptr ? "dynamic shared memory" : nearest->array->name;
    return text("of %zu bytes at byte %u of %s, which has %u", bytes, offset - nearest->begin, name,
                nearest->end - nearest->begin);
}

void access_shared(const Access& access, int rank, const void* address, size_t bytes) {
    Block& block = *current_cluster->blocks()[size_t(rank)];
    uint32_t offset = uint32_t(uintptr_t(address) - uintptr_t(block.window));
    if (block.region_of(offset, bytes) == nullptr) {
        fail_access(access, text("%s ", access.what) + outside_of_arrays(block, offset, bytes));
    }
    current_cluster->worker().cells[size_t(rank)].access(access, offset, bytes);
}

void check_access(const void* address, size_t bytes, bool write, bool aligned, const void* code) {
    if (current_thread == nullptr) {
        return;
    }
    const char* what = write ? "store" : "load";
    Access access{current_thread->agent, write, false, Proxy::generic, what, 0, code, {}};
    int rank = current_cluster->worker().rank_of(address);
    bool device = rank < 0 && in_device_range(DeviceAddress(address));
    if (rank < 0 && !device) {
        // The kernel's stack, threadIdx and its like, parameters, tables, and what inline code of the emulator itself
        // looks at. Host pointers as kernel arguments were refused at the launch.
        if (uintptr_t(address) < null_page_bytes || uintptr_t(address) >= user_space_end) {
            fail_access(access, text("%s of %zu bytes through %s pointer %p", what, bytes,
                                     uintptr_t(address) < null_page_bytes ? "the null" : "a wild", address));
        }
        return;
    }
    if (aligned && uintptr_t(address) % bytes != 0) {
        fail_access(access, text("%s of %zu bytes at %p, which is not aligned to them", what, bytes, address));
    }
    access.place = place_at(code);
    if (device) {
        global_access(access, address, bytes);
    } else {
        access_shared(access, rank, address, bytes);
    }
    maybe_preempt();
}

}  // namespace

}  // namespace emulator

#define HOOK extern "C" __attribute__((visibility("hidden"))) void

#define ACCESS_HOOKS(bytes)                                                                                   \
    HOOK __tsan_read##bytes(void* address) {                                                                  \
        emulator::check_access(address, bytes, false, true, __builtin_return_address(0));                     \
    }                                                                                                         \
    HOOK __tsan_write##bytes(void* address) {                                                                 \
        emulator::check_access(address, bytes, true, true, __builtin_return_address(0));                      \
    }                                                                                                         \
    HOOK __tsan_unaligned_read##bytes(void* address) {                                                        \
        emulator::check_access(address, bytes, false, false, __builtin_return_address(0));                    \
    }                                                                                                         \
    HOOK __tsan_unaligned_write##bytes(void* address) {                                                       \
        emulator::check_access(address, bytes, true, false, __builtin_return_address(0));                     \
    }

ACCESS_HOOKS(1)
ACCESS_HOOKS(2)
ACCESS_HOOKS(4)
ACCESS_HOOKS(8)
ACCESS_HOOKS(16)

HOOK __tsan_read_range(void* address, size_t bytes) {
    emulator::check_access(address, bytes, false, false, __builtin_return_address(0));
}

HOOK __tsan_write_range(void* address, size_t bytes) {
    emulator::check_access(address, bytes, true, false, __builtin_return_address(0));
}

HOOK __tsan_init() {}
HOOK __tsan_func_entry(void*) {}
HOOK __tsan_func_exit() {}
HOOK __tsan_vptr_update(void**, void*) {}
HOOK __tsan_vptr_read(void**) {}

// The check programs are instrumented too, and their host code may use standard atomics. Kernels use atomics.h.
#define ATOMIC_HOOKS(bits)                                                                                            \
    using Bits##bits = uint##bits##_t;                                                                                \
    extern "C" __attribute__((visibility("hidden"))) Bits##bits __tsan_atomic##bits##_load(                           \
        const volatile Bits##bits* address, int) {                                                                    \
        return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                                            \
    }                                                                                                                 \
    HOOK __tsan_atomic##bits##_store(volatile Bits##bits* address, Bits##bits value, int) {                           \
        __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                           \
    }                                                                                                                 \
    extern "C" __attribute__((visibility("hidden"))) Bits##bits __tsan_atomic##bits##_exchange(                       \
        volatile Bits##bits* address, Bits##bits value, int) {                                                        \
        return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                                                 \
    }                                                                                                                 \
    extern "C" __attribute__((visibility("hidden"))) Bits##bits __tsan_atomic##bits##_fetch_add(                      \
        volatile Bits##bits* address, Bits##bits value, int) {                                                        \
        return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);                                                  \
    }                                                                                                                 \
    extern "C" __attribute__((visibility("hidden"))) Bits##bits __tsan_atomic##bits##_fetch_sub(                      \
        volatile Bits##bits* address, Bits##bits value, int) {                                                        \
        return __atomic_fetch_sub(address, value, __ATOMIC_SEQ_CST);                                                  \
    }                                                                                                                 \
    extern "C" __attribute__((visibility("hidden"))) int __tsan_atomic##bits##_compare_exchange_strong(               \
        volatile Bits##bits* address, Bits##bits* expected, Bits##bits value, int, int) {                             \
        return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);      \
    }                                                                                                                 \
    extern "C" __attribute__((visibility("hidden"))) int __tsan_atomic##bits##_compare_exchange_weak(                 \
        volatile Bits##bits* address, Bits##bits* expected, Bits##bits value, int, int) {                             \
        return __atomic_compare_exchange_n(address, expected, value, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
    }

ATOMIC_HOOKS(8)
ATOMIC_HOOKS(16)
ATOMIC_HOOKS(32)
ATOMIC_HOOKS(64)

#endif
