// In which order things happen that CUDA leaves open.
#pragma once

#include <cstdint>

namespace emulator {

enum SchedulePolicy { in_order = 0, reverse_order = 1, random_order = 2, newest_first = 3, mostly_newest = 4 };
constexpr int num_policies = 5;

enum AsyncTiming { async_late = 0, async_early = 1, async_random = 2 };
constexpr int num_timings = 3;

// One kernel, one schedule, one seed: the same run every time (with one worker).
struct Schedule {
    int policy = in_order;
    uint64_t seed = 1;
    int async = async_random;
    // One in this many atomics, barriers and, in the race build, memory accesses lets another thread run; 0: none.
    int preempt = 0;
};

// For the launches that start from now on, in the whole process.
void set_schedule(const Schedule& schedule);
Schedule schedule();

// xorshift64*: small, and the same on every machine.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull | 1) {}

    uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545F4914F6CDD1Dull;
    }

    // Uniform enough for schedules.
    uint64_t below(uint64_t bound) { return (next() >> 16) % bound; }

    bool one_in(uint64_t chances) { return below(chances) == 0; }

private:
    uint64_t state_;
};

}  // namespace emulator
