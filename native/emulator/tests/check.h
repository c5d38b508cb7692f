// The little that the check programs share: one line per check, "ok <name>" or "FAILED <name>: <why>".
//
//     int main() {
//         check::equal("answer", check::first_int(...), 42);
//         check::passes<my_kernel>("my kernel", {blocks, threads}, pointer, count);
//         check::reports<bad_kernel>("missing barrier", "uninitialised", {blocks, threads}, pointer);
//         return check::result();
//     }
#pragma once

#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "export.h"
#include "fail.h"
#include "memory.h"
#include "schedule.h"

namespace check {

inline int num_failed = 0;

inline void report(const std::string& name, bool good, const std::string& why = "") {
    if (good) {
        std::printf("ok %s\n", name.c_str());
    } else {
        std::printf("FAILED %s: %s\n", name.c_str(), why.c_str());
        num_failed++;
    }
    std::fflush(stdout);
}

template <class A, class B>
void equal(const std::string& name, const A& got, const B& expected) {
    report(name, got == expected, "got " + std::to_string(got) + ", expected " + std::to_string(expected));
}

inline int result() { return num_failed == 0 ? 0 : 1; }

// True in the build that checks every access. What only that build can find is checked nowhere else.
inline bool is_race_build() { return std::strcmp(emulator::build_name(), "race") == 0; }

struct Shape {
    emulator::Dim3 grid;
    emulator::Dim3 block;
    unsigned shared = 0;
    emulator::Dim3 cluster = {};
};

// Device memory that ends with its scope. The host looks at it directly, as no driver would.
template <class T>
class Buffer {
public:
    explicit Buffer(size_t count) : count_(count), address_(emulator::allocate(count * sizeof(T))) {}

    Buffer(std::initializer_list<T> values) : Buffer(std::vector<T>(values)) {}

    explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
        for (size_t i = 0; i < count_; i++) {
            data()[i] = values[i];
        }
        emulator::mark_written(address_, count_ * sizeof(T));
    }

    ~Buffer() { emulator::free(address_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    T* data() const { return reinterpret_cast<T*>(address_); }
    T& operator[](size_t index) const { return data()[index]; }
    size_t count() const { return count_; }

private:
    size_t count_;
    emulator::DeviceAddress address_;
};

template <auto function, class... Values>
emulator::Launch launch_of(const Shape& shape, const Values&... values) {
    static const emulator::Kernel kernel = emulator::KernelOf<function>::describe("checked", __FILE__, 0);
    emulator::Launch launch;
    launch.kernel = &kernel;
    launch.grid = shape.grid;
    launch.block = shape.block;
    launch.cluster = shape.cluster;
    launch.dynamic_shared = shape.shared;
    launch.params = emulator::KernelOf<function>::pack(values...);
    return launch;
}

template <auto function, class... Values>
std::string run(const Shape& shape, const Values&... values) {
    return emulator::run(launch_of<function>(shape, values...));
}

// Launches one after another, as in a stream: the early ones may overlap with those in front of them.
class Stream {
public:
    template <auto function, class... Values>
    std::string run(const Shape& shape, const Values&... values) {
        return next<function>(false, shape, values...);
    }

    template <auto function, class... Values>
    std::string run_early(const Shape& shape, const Values&... values) {
        return next<function>(true, shape, values...);
    }

private:
    template <auto function, class... Values>
    std::string next(bool early, const Shape& shape, const Values&... values) {
        emulator::Launch launch = launch_of<function>(shape, values...);
        launch.early = early;
        emulator::place_behind(any_ ? &last_ : nullptr, launch);
        last_ = launch;
        any_ = true;
        return emulator::run(launch);
    }

    emulator::Launch last_;
    bool any_ = false;
};

// Every policy with every timing of asynchronous operations, with two seeds, without and with preemption.
inline std::vector<emulator::Schedule> all_schedules() {
    std::vector<emulator::Schedule> schedules;
    for (int policy = 0; policy < emulator::num_policies; policy++) {
        for (int async = 0; async < emulator::num_timings; async++) {
            for (uint64_t seed = 1; seed <= 2; seed++) {
                schedules.push_back({policy, seed + uint64_t(policy) * 7, async, seed == 1 ? 0 : 20});
            }
        }
    }
    return schedules;
}

inline std::string name_of(const emulator::Schedule& schedule) {
    return emulator::text("policy=%d,seed=%lu,async=%d,preempt=%d", schedule.policy, schedule.seed, schedule.async,
                          schedule.preempt);
}

// `once` runs the thing under the schedule that is set, and returns why it is wrong, or nothing.
inline void passes_always(const std::string& name, const std::function<std::string()>& once) {
    for (const emulator::Schedule& schedule : all_schedules()) {
        emulator::set_schedule(schedule);
        std::string why = once();
        if (!why.empty()) {
            report(name, false, name_of(schedule) + ": " + why);
            return;
        }
    }
    report(name, true);
}

// Some schedule has to report an error that contains `expected`, and none may report another.
inline void reports_somewhere(const std::string& name, const std::string& expected,
                              const std::function<std::string()>& once) {
    int found = 0;
    for (const emulator::Schedule& schedule : all_schedules()) {
        emulator::set_schedule(schedule);
        std::string why = once();
        if (!why.empty() && why.find(expected) == std::string::npos) {
            report(name, false, name_of(schedule) + ": expected \"" + expected + "\", got: " + why);
            return;
        }
        found += !why.empty();
    }
    report(name, found > 0, "no schedule reported anything, expected \"" + expected + "\"");
}

template <auto function, class... Values>
void passes(const std::string& name, const Shape& shape, const Values&... values) {
    passes_always(name, [&] { return run<function>(shape, values...); });
}

template <auto function, class... Values>
void reports(const std::string& name, const std::string& expected, const Shape& shape, const Values&... values) {
    reports_somewhere(name, expected, [&] { return run<function>(shape, values...); });
}

}  // namespace check
