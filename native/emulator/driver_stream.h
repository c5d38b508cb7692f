// Streams: where work comes from, and the edges that stream order draws between operations.
#pragma once

#include "driver_call.h"

namespace driver {

using StreamPtr = std::shared_ptr<Stream>;

constexpr int greatest_priority = -5;

// Null and 1 are the legacy stream of the current context, 2 is this thread's own. Throws Refusal.
StreamPtr find_stream(const Call& frame, CUstream handle);

// Appends work to a stream, or to the graph it is captured into; then the result is null.
OperationPtr enqueue(Call& frame, const StreamPtr& stream, Work work);

// Appends an operation that waits for the stream and for `others` besides, in the way of `enqueue`.
OperationPtr enqueue_after(Call& frame, const StreamPtr& stream, std::shared_ptr<const Work> work,
                           std::vector<OperationPtr> others);

// Waits for one operation (null: nothing to wait for) and throws the context's sticky error if there is one now.
void wait_for(Call& frame, const OperationPtr& operation);

// All that a stream still has to do.
void wait_for(Call& frame, const StreamPtr& stream);

// All that the context still has to do.
void wait_for_all(Call& frame);

}  // namespace driver
