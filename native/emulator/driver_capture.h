// Stream capture: work of a capturing stream becomes nodes of a graph instead of operations.
#pragma once

#include "driver_stream.h"

namespace driver {

// Refuses calls that are unsafe while some stream is captured, as the capture modes define, and ends such captures.
void forbid_during_capture(const Call& frame);

// Refuses what would wait for a capturing stream, and ends the capture.
void forbid_on_capturing(const Stream& stream);

// Refuses work of the legacy stream while a blocking stream of its context is captured.
void forbid_implicit_dependency(const Stream& legacy);

void add_to_capture(Stream& stream, std::shared_ptr<const Work> work);

// What cuStreamWaitEvent does where stream or event belong to a capture; a stream that waits for a captured event joins.
void wait_in_capture(Stream& stream, const Event& event);

}  // namespace driver
