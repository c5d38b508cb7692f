// The calls that no real driver has: tests choose the schedule, order faults, describe the machine and count.
#include "driver_control.h"

#include <cstdlib>
#include <sstream>

#include "driver_call.h"
#include "driver_calls.h"
#include "grid.h"
#include "memory.h"
#include "schedule.h"

namespace driver {
namespace {

void change_schedule(Lock& lock, const emulator::Schedule& schedule) {
    state().queue.wait_until_idle(lock);
    emulator::set_schedule(schedule);
    state().queue.set_schedule(schedule);
}

// False if the key is no part of a schedule.
bool set_schedule_field(emulator::Schedule& schedule, const std::string& key, long long value) {
    if (key == "policy") {
        schedule.policy = static_cast<int>(value);
    } else if (key == "seed") {
        schedule.seed = static_cast<uint64_t>(value);
    } else if (key == "async") {
        schedule.async = static_cast<int>(value);
    } else if (key == "preempt") {
        schedule.preempt = static_cast<int>(value);
    } else {
        return false;
    }
    return true;
}

bool is_possible(const emulator::Schedule& schedule) {
    return schedule.policy >= 0 && schedule.policy < emulator::num_policies && schedule.async >= 0 &&
           schedule.async < emulator::num_timings && schedule.preempt >= 0;
}

bool read_number(const std::string& digits, long long& value) {
    char* end = nullptr;
    value = std::strtoll(digits.c_str(), &end, 0);
    return !digits.empty() && *end == 0;
}

}  // namespace

void read_environment() {
    const char* variable = std::getenv("JMOE_EMULATOR");
    if (state().environment_read || variable == nullptr || *variable == 0) {
        return;
    }
    emulator::Schedule schedule = emulator::schedule();
    std::istringstream entries(variable);
    std::string entry;
    while (std::getline(entries, entry, ',')) {
        size_t equals = entry.find('=');
        std::string key = entry.substr(0, equals);
        long long value = 0;
        if (equals == std::string::npos || !read_number(entry.substr(equals + 1), value)) {
            refuse(CUDA_ERROR_INVALID_VALUE, "JMOE_EMULATOR: expected key=number, got '%s'", entry.c_str());
        }
        if (key == "workers") {
            emulator::set_workers(static_cast<int>(value));
        } else if (long long* field = state().settings.find(key)) {
            *field = value;
        } else if (!set_schedule_field(schedule, key, value)) {
            refuse(CUDA_ERROR_INVALID_VALUE, "JMOE_EMULATOR: unknown key '%s'", key.c_str());
        }
    }
    if (!is_possible(schedule)) {
        refuse(CUDA_ERROR_INVALID_VALUE, "JMOE_EMULATOR: no such schedule: %s", variable);
    }
    emulator::set_schedule(schedule);
    state().queue.set_schedule(schedule);
    state().environment_read = true;
}

extern "C" {

const char* jmoeEmulatorName() {
    static const std::string& name = *new std::string(std::string("jmoe emulator, ") + emulator::build_name() + " build");
    return name.c_str();
}

void jmoeEmulatorSchedule(int policy, unsigned long long seed, int async, int preempt) {
    emulator::Schedule schedule{policy, seed, async, preempt};
    if (is_possible(schedule)) {
        Lock lock(state().mutex);
        change_schedule(lock, schedule);
    }
}

void jmoeEmulatorFault(const char* name, int countdown, int result) {
    Lock lock(state().mutex);
    state().faults.arm(name, countdown, static_cast<Result>(result));
}

void jmoeEmulatorSet(const char* key, long long value) {
    Lock lock(state().mutex);
    if (std::string(key) == "workers") {
        state().queue.wait_until_idle(lock);
        emulator::set_workers(static_cast<int>(value));
        return;
    }
    if (long long* field = state().settings.find(key)) {
        *field = value;
    }
}

long long jmoeEmulatorGet(const char* key) {
    Lock lock(state().mutex);
    std::string name(key);
    if (name == "liveAllocations") {
        return state().device_memory.live_blocks();
    }
    if (name == "liveBytes") {
        return state().device_memory.live_bytes();
    }
    if (name == "launches") {
        return state().counters.launches;
    }
    if (name == "copies") {
        return state().counters.copies;
    }
    if (name == "pending") {
        return static_cast<long long>(state().queue.size());
    }
    long long* field = state().settings.find(name);
    return field ? *field : -1;
}

}  // extern "C"
}  // namespace driver
