// Checks of kernels that take words and give words, as most of those about single instructions do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "common/ptx.cuh"

namespace check {

using Words = std::vector<uint32_t>;

inline std::string compare(const Buffer<uint32_t>& got, const Words& expected) {
    for (size_t i = 0; i < expected.size(); i++) {
        if (got[i] != expected[i]) {
            return emulator::text("word %zu is %#x, expected %#x", i, got[i], expected[i]);
        }
    }
    return "";
}

// kernel(const uint32_t* in, uint32_t* out) gives `expected` under every schedule.
template <auto kernel>
void computes(const std::string& name, const Shape& shape, const Words& in, const Words& expected) {
    passes_always(name, [&] {
        Buffer<uint32_t> input(in.empty() ? Words{0} : in);
        Buffer<uint32_t> output(expected.empty() ? 1 : expected.size());
        const std::string error = run<kernel>(shape, input.data(), output.data());
        return error.empty() ? compare(output, expected) : error;
    });
}

// The same kernel form is stopped, under some schedule, with a text that contains `expected`.
template <auto kernel>
void refuses(const std::string& name, const std::string& expected, const Shape& shape, const Words& in = {0}) {
    reports_somewhere(name, expected, [&] {
        Buffer<uint32_t> input(in);
        Buffer<uint32_t> output(Words(4096, 0));
        return run<kernel>(shape, input.data(), output.data());
    });
}

// Under some schedule the kernel is stopped, or its result is not `expected`.
template <auto kernel>
void fails_somewhere(const std::string& name, const Shape& shape, const Words& in, const Words& expected) {
    int wrong = 0;
    for (const emulator::Schedule& schedule : all_schedules()) {
        emulator::set_schedule(schedule);
        Buffer<uint32_t> input(in);
        Buffer<uint32_t> output(expected.size());
        const std::string error = run<kernel>(shape, input.data(), output.data());
        wrong += !error.empty() || !compare(output, expected).empty();
    }
    report(name, wrong > 0, "no schedule showed the mistake");
}

// Runs a kernel that has launch bounds, as setmaxnreg wants.
template <auto kernel, class... Values>
std::string run_bounded(int max_threads, const Shape& shape, const Values&... values) {
    const emulator::Kernel description = emulator::KernelOf<kernel>::describe("checked", __FILE__, max_threads);
    emulator::Launch launch;
    launch.kernel = &description;
    launch.grid = shape.grid;
    launch.block = shape.block;
    launch.cluster = shape.cluster;
    launch.dynamic_shared = shape.shared;
    launch.params = emulator::KernelOf<kernel>::pack(values...);
    return emulator::run(launch);
}

// What only the race build can find.
template <auto kernel>
void refuses_in_race_build(const std::string& name, const std::string& expected, const Shape& shape,
                           const Words& in = {0}) {
    if (is_race_build()) {
        refuses<kernel>(name, expected, shape, in);
    }
}

}  // namespace check
