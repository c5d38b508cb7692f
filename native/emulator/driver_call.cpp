#include "driver_call.h"

#include "driver_context.h"

namespace driver {
namespace {

std::shared_ptr<Context> current_context() {
    std::shared_ptr<Context> context = thread_contexts().empty() ? nullptr : thread_contexts().back();
    if (!context) {
        refuse(CUDA_ERROR_INVALID_CONTEXT, "this thread has no current context; call cuCtxSetCurrent in it first");
    }
    if (!context->alive) {
        refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the context that is current in this thread was destroyed or reset");
    }
    return context;
}

void strike(Call& frame) {
    Result ordered = state().faults.strike(frame.name);
    if (ordered == CUDA_SUCCESS) {
        return;
    }
    if (is_sticky(ordered) && !thread_contexts().empty() && thread_contexts().back()) {
        lose(*thread_contexts().back(), ordered, std::string("fault ordered at ") + frame.name);
    }
    refuse(ordered, "fault ordered by jmoeEmulatorFault");
}

}  // namespace

State& state() {
    static State& instance = *new State;  // never destroyed: other threads may still call while the process exits
    return instance;
}

Call enter(const char* name, Needs needs) {
    if (Queue::in_host_function() && needs != Needs::nothing) {
        refuse(CUDA_ERROR_NOT_PERMITTED, "a host function must not call the driver");
    }
    Call frame{name, Lock(state().mutex), nullptr};
    if (needs != Needs::nothing && !state().initialised) {
        refuse(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
    }
    if (needs == Needs::context) {
        frame.context = current_context();
        require_healthy(*frame.context);
    }
    strike(frame);
    return frame;
}

void require_healthy(const Context& context) {
    if (context.lost != CUDA_SUCCESS) {
        throw Refusal{context.lost, context.why_lost};
    }
}

Result fail_call(const char* name, const Refusal& refusal) {
    remember_refusal(name, refusal);
    return refusal.result;
}

}  // namespace driver
