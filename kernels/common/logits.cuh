// The logits of one token as a warp sees them: in memory, as sums of product keys, or in registers.
//
// Each kind has at(id), the logit of one expert, and for_each(lane, visit), which calls visit(id, logit) for this lane's
// share of the experts, by rising id.
#pragma once

#include "device.cuh"

namespace logits {

// [E] in memory.
struct Row {
    using Value = float;
    using Key = uint32_t;

    const float* values;
    int count;

    __device__ __forceinline__ float at(int id) const { return values[id]; }

    template <class Visit>
    __device__ __forceinline__ void for_each(int lane, Visit visit) const {
        for (long long id = lane; id < count; id += 32) {
            visit(static_cast<int>(id), values[id]);
        }
    }
};

// Expert i n + j has the logit first[i] + second[j].
struct ProductKeys {
    using Value = double;
    using Key = uint64_t;

    const float* first;
    const float* second;
    int count;  // n

    __device__ __forceinline__ double at(int id) const {
        return static_cast<double>(first[id / count]) + static_cast<double>(second[id % count]);
    }

    template <class Visit>
    __device__ __forceinline__ void for_each(int lane, Visit visit) const {
        for (int i = lane; i < count; i += 32) {
#pragma unroll 2
            for (int j = 0; j < count; j++) {
                visit(i * count + j, static_cast<double>(first[i]) + static_cast<double>(second[j]));
            }
        }
    }
};

// [E] in the registers of a warp, per_lane of them in each lane; expert id is in lane id % 32.
template <int per_lane>
struct Registers {
    using Value = float;
    using Key = uint32_t;

    float values[per_lane];
    Row memory;

    __device__ __forceinline__ Registers(const Row& row, int lane) : memory(row) {
#pragma unroll
        for (int i = 0; i < per_lane; i++) {
            int id = lane + 32 * i;
            values[i] = id < row.count ? row.values[id] : 0.0f;
        }
    }

    // Registers cannot be indexed; what was just read is still in the cache.
    __device__ __forceinline__ float at(int id) const { return memory.at(id); }

    template <class Visit>
    __device__ __forceinline__ void for_each(int lane, Visit visit) const {
#pragma unroll
        for (int i = 0; i < per_lane; i++) {
            int id = lane + 32 * i;
            if (id < memory.count) {
                visit(id, values[i]);
            }
        }
    }
};

}  // namespace logits
