// Kernels by name, and launches of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace emulator {

struct Dim3 {
    unsigned x = 1;
    unsigned y = 1;
    unsigned z = 1;

    constexpr Dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1)
        : x(width), y(height), z(depth) {}

    constexpr uint64_t count() const { return uint64_t(x) * y * z; }
};

// One __global__ function. Parameters lie in Launch::params as CUDA lays them out: in order, each at the next multiple
// of its alignment.
struct Kernel {
    const char* name;
    const char* file;
    int num_params;
    const size_t* param_bytes;
    const size_t* param_alignments;
    const bool* param_is_pointer;
    void (*invoke)(const std::byte* params);  // runs the function once, for one CUDA thread
    int max_threads;                          // per block; 0: no bound declared

    size_t param_offset(int param) const;
    size_t params_bytes() const;
};

// A named constant of a module, as cuModuleGetGlobal finds it: `<kernel>_launch`.
struct Constant {
    const char* name;
    const void* address;
    size_t bytes;
};

// nullptr if there is none of that name.
const Kernel* find_kernel(const char* name);
const Constant* find_constant(const char* name);
const std::vector<const Kernel*>& kernels();
const std::vector<const Constant*>& constants();

void add_kernel(const Kernel* kernel);
void add_constant(const Constant* constant);

// One launch as those after it know it. The number is that of its last run: a captured launch runs many times.
struct LaunchRun {
    const Kernel* kernel = nullptr;
    uint64_t number = 0;
};

struct Launch {
    const Kernel* kernel = nullptr;
    Dim3 grid;
    Dim3 block;
    Dim3 cluster;  // blocks per cluster, 1 to 16 in all; grid is a multiple of it
    uint32_t dynamic_shared = 0;
    std::vector<std::byte> params;

    // Programmatic stream serialisation: it may start before those in front of it have ended, of which the oldest
    // waited for all before. Here they have ended all the same; the race build finds what would go wrong if not.
    bool early = false;
    std::vector<std::shared_ptr<const LaunchRun>> before;
    std::shared_ptr<LaunchRun> run;
};

// Before the launch runs: what is in front of it in its stream. Null: no launch, or one that has ended for certain.
void place_behind(const Launch* last, Launch& launch);

// What the driver refuses before anything runs: empty if the launch is possible, else the reason.
std::string refusal(const Launch& launch);

// Runs the grid to its end. Empty, or the text of the first error found; what the kernel stored before stays stored.
std::string run(const Launch& launch);

// Number of OS threads that share the clusters of a grid; 1 by default, and always 1 in the race build.
void set_workers(int workers);

// "fast", "race" or "asan".
const char* build_name();

}  // namespace emulator
