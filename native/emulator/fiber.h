// A CUDA thread's own stack, and the switch between two of them.
#pragma once

#include <cstddef>
#include <vector>

namespace emulator {

struct Stack {
    std::byte* low = nullptr;  // lowest usable byte; the page below it is a guard
    size_t bytes = 0;
};

// Kept and used again from block to block. Stacks are never given back: their untouched pages cost nothing.
class StackPool {
public:
    StackPool() = default;
    ~StackPool();
    StackPool(const StackPool&) = delete;
    StackPool& operator=(const StackPool&) = delete;

    // Stack number `index`, made if there is none yet. Throws std::bad_alloc if the system gives no memory.
    Stack get(size_t index);

private:
    std::vector<std::byte*> slabs_;
};

// A context that can be left and entered again: a CUDA thread, or the scheduler itself.
class Fiber {
public:
    // Will run body(argument) on the stack when first entered. The body must never return.
    void start(Stack stack, void (*body)(void* argument), void* argument);

    // Leaves `from`, which is running, and enters this one. Returns when `from` is entered again.
    void enter(Fiber& from);

    // The same when `from` will never be entered again.
    [[noreturn]] void enter_for_good(Fiber& from);

    const Stack& stack() const { return stack_; }

private:
    static void first_entry(Fiber* fiber);
    void leave_for(Fiber& from, bool for_good);
    void arrived();

    void* stack_pointer_ = nullptr;
    Stack stack_;
    void (*body_)(void*) = nullptr;
    void* argument_ = nullptr;
    Fiber* came_from_ = nullptr;
    void* address_sanitizer_frames_ = nullptr;
};

}  // namespace emulator
