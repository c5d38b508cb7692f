#include "schedule.h"

#include <mutex>

namespace emulator {

static std::mutex mutex;
static Schedule current;

void set_schedule(const Schedule& schedule) {
    std::lock_guard lock(mutex);
    current = schedule;
}

Schedule schedule() {
    std::lock_guard lock(mutex);
    return current;
}

}  // namespace emulator
