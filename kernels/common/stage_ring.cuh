// The ring of stages through which the producer of a warp-specialised kernel hands operands to the consumers (sm_90a): for each
// stage a barrier on which its data arrive, and one on which its readers do.
#pragma once

#include "ptx.cuh"

namespace stage_ring {

// Barriers in shared memory: full of every stage, then empty of every stage.
template <int kStages>
struct Barriers {
    static constexpr int kBytes = 2 * kStages * 8;

    uint32_t address;

    __device__ __forceinline__ uint32_t full(int slot) const { return address + slot * 8; }
    __device__ __forceinline__ uint32_t empty(int slot) const { return address + (kStages + slot) * 8; }

    // By one thread; a barrier of all that use them comes after it.
    __device__ __forceinline__ void init(uint32_t writers, uint32_t readers) const {
        for (int slot = 0; slot < kStages; slot++) {
            ptx::mbarrier_init(full(slot), writers);
            ptx::mbarrier_init(empty(slot), readers);
        }
        ptx::fence_mbarrier_init();
    }
};

// Where one of them is: writers and readers walk through the same slots. A wait for an empty slot of the first round returns at
// once, because the phase before a barrier's first counts as complete.
template <int kStages>
struct Position {
    int slot = 0;
    uint32_t phase = 0;

    __device__ __forceinline__ void wait_empty(const Barriers<kStages>& barriers) const {
        ptx::mbarrier_wait(barriers.empty(slot), phase ^ 1);
    }

    __device__ __forceinline__ void wait_full(const Barriers<kStages>& barriers) const {
        ptx::mbarrier_wait(barriers.full(slot), phase);
    }

    __device__ __forceinline__ void advance() {
        slot++;
        if (slot == kStages) {
            slot = 0;
            phase ^= 1;
        }
    }

    __device__ __forceinline__ void advance(int stages) {
        slot += stages;
        phase ^= static_cast<uint32_t>(slot / kStages) & 1;
        slot %= kStages;
    }
};

}  // namespace stage_ring
