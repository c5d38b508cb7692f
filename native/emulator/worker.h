// What one OS thread uses to run clusters, and keeps from one to the next.
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "block.h"
#include "cluster.h"
#include "fiber.h"
#include "shadow_cells.h"

namespace emulator {

struct Worker {
    Worker() = default;
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // The shared memory of the block of that rank: 256 KiB, with unmapped pages around.
    std::byte* window(unsigned rank);

    // The rank whose window contains the pointer, or -1.
    int rank_of(const void* pointer) const;

    StackPool stacks;
    std::array<std::byte*, max_cluster_blocks> windows{};
    std::array<ShadowCells, max_cluster_blocks> cells;
};

// Fresh shared memory is poisoned as it is handed out; in the asan build all of the rest of the window is off limits.
void open_window(std::byte* window);
void open_region(std::byte* window, uint32_t begin, uint32_t end);

}  // namespace emulator
