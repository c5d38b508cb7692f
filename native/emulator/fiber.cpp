#include "fiber.h"

#include <cstdint>
#include <cstring>
#include <new>

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

// Saves the registers that a called function must preserve on the running stack, stores the stack pointer in *save and
// continues where `load` was saved. To its caller it looks like a function that returns late.
extern "C" void emulator_switch_stacks(void** save, void* load);

// What a new stack "returns" to: calls second(first), two values it finds in preserved registers. A zero return address
// below ends every walk up the stack.
extern "C" void emulator_enter_stack();

#if defined(__x86_64__)

constexpr size_t saved_words = 6;
constexpr size_t word_of_argument = 3;  // %r12
constexpr size_t word_of_function = 2;  // %r13

asm(R"(
    .text
    .globl emulator_switch_stacks
    .hidden emulator_switch_stacks
    .type emulator_switch_stacks, @function
emulator_switch_stacks:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size emulator_switch_stacks, . - emulator_switch_stacks

    .globl emulator_enter_stack
    .hidden emulator_enter_stack
    .type emulator_enter_stack, @function
emulator_enter_stack:
    .cfi_startproc
    .cfi_undefined rip
    mov %r12, %rdi
    jmp *%r13
    .cfi_endproc
    .size emulator_enter_stack, . - emulator_enter_stack
)");

// The address to return to lies above the saved registers, and above that the zero. The ABI wants the stack pointer to
// be 8 below a multiple of 16 when a function is entered.
static void* first_frame(std::byte* top, void* argument, void* function) {
    void** words = reinterpret_cast<void**>(top) - 1;
    *words = nullptr;
    *--words = reinterpret_cast<void*>(&emulator_enter_stack);
    words -= saved_words;
    std::memset(words, 0, saved_words * sizeof(void*));
    words[word_of_argument] = argument;
    words[word_of_function] = function;
    return words;
}

#elif defined(__aarch64__)

// Untested: written from the procedure call standard (x19-x30 and d8-d15 are preserved), never run.
constexpr size_t saved_words = 20;
constexpr size_t word_of_argument = 0;   // x19
constexpr size_t word_of_function = 1;   // x20
constexpr size_t word_of_link = 11;      // x30

asm(R"(
    .text
    .globl emulator_switch_stacks
    .hidden emulator_switch_stacks
    .type emulator_switch_stacks, %function
emulator_switch_stacks:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size emulator_switch_stacks, . - emulator_switch_stacks

    .globl emulator_enter_stack
    .hidden emulator_enter_stack
    .type emulator_enter_stack, %function
emulator_enter_stack:
    mov x0, x19
    mov x29, #0
    mov x30, #0
    br x20
    .size emulator_enter_stack, . - emulator_enter_stack
)");

static void* first_frame(std::byte* top, void* argument, void* function) {
    void** words = reinterpret_cast<void**>(top) - saved_words;
    std::memset(words, 0, saved_words * sizeof(void*));
    words[word_of_argument] = argument;
    words[word_of_function] = function;
    words[word_of_link] = reinterpret_cast<void*>(&emulator_enter_stack);
    return words;
}

#else
#error "the emulator knows how to switch stacks on x86-64 and aarch64 only"
#endif

// AddressSanitizer puts unused space around every local array.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t stack_bytes = 256 * 1024;
#else
constexpr size_t stack_bytes = 64 * 1024;
#endif
constexpr size_t guard_bytes = 4096;
constexpr size_t stacks_per_slab = 32;
constexpr size_t slab_bytes = stacks_per_slab * (stack_bytes + guard_bytes);

StackPool::~StackPool() {
    for (std::byte* slab : slabs_) {
        munmap(slab, slab_bytes);
    }
}

Stack StackPool::get(size_t index) {
    while (slabs_.size() * stacks_per_slab <= index) {
        void* slab = mmap(nullptr, slab_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (slab == MAP_FAILED) {
            throw std::bad_alloc();
        }
        slabs_.push_back(static_cast<std::byte*>(slab));
        for (size_t i = 0; i < stacks_per_slab; i++) {
            mprotect(slabs_.back() + i * (stack_bytes + guard_bytes), guard_bytes, PROT_NONE);
        }
    }
    std::byte* guard = slabs_[index / stacks_per_slab] + index % stacks_per_slab * (stack_bytes + guard_bytes);
    return {guard + guard_bytes, stack_bytes};
}

void Fiber::start(Stack stack, void (*body)(void*), void* argument) {
    stack_ = stack;
    body_ = body;
    argument_ = argument;
#if defined(__SANITIZE_ADDRESS__)
    // A fiber that failed left its frames behind.
    __asan_unpoison_memory_region(stack.low, stack.bytes);
#endif
    stack_pointer_ = first_frame(stack.low + stack.bytes, this, reinterpret_cast<void*>(&Fiber::first_entry));
}

void Fiber::first_entry(Fiber* fiber) {
    fiber->arrived();
    fiber->body_(fiber->argument_);
    __builtin_trap();
}

void Fiber::enter(Fiber& from) {
    leave_for(from, false);
    from.arrived();
}

void Fiber::enter_for_good(Fiber& from) {
    leave_for(from, true);
    __builtin_trap();
}

void Fiber::leave_for(Fiber& from, [[maybe_unused]] bool for_good) {
    came_from_ = &from;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from.address_sanitizer_frames_, stack_.low, stack_.bytes);
#endif
    emulator_switch_stacks(&from.stack_pointer_, stack_pointer_);
}

void Fiber::arrived() {
#if defined(__SANITIZE_ADDRESS__)
    // The first fiber entered from the scheduler learns here where the scheduler's stack lies.
    const void* low = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(address_sanitizer_frames_, &low, &bytes);
    if (came_from_->stack_.low == nullptr) {
        came_from_->stack_ = {static_cast<std::byte*>(const_cast<void*>(low)), bytes};
    }
#endif
}

}  // namespace emulator
