// Order of candidates for a warp: the greatest value first, of equals the lower id, NaN below every number.
//
// Candidates are compared as unsigned keys. The next best one is the best that ranks strictly after the last one, so nothing
// has to remember what was taken.
#pragma once

#include "special.cuh"

namespace rank {

constexpr uint32_t kAllLanes = 0xffffffffu;

// Keys that are no number's: of nobody, and of NaN.
constexpr uint32_t kAbsent = 0;
constexpr uint32_t kNan = 1;

// A larger key is a larger value; -0 and 0 are equals.
__device__ __forceinline__ uint32_t key_of(float value) {
    if (value != value) {
        return kNan;
    }
    uint32_t bits = __float_as_uint(value + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ uint64_t key_of(double value) {
    if (value != value) {
        return kNan;
    }
    uint64_t bits = static_cast<uint64_t>(__double_as_longlong(value + 0.0));
    return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}

__device__ __forceinline__ float value_of(uint32_t key) {
    if (key == kNan) {
        return special::nan();
    }
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ double value_of(uint64_t key) {
    if (key == kNan) {
        return special::nan();
    }
    return __longlong_as_double(static_cast<long long>(key >> 63 ? key & 0x7fffffffffffffffull : ~key));
}

template <class Key>
struct Pick {
    Key key;
    int id;

    // Ranks before every candidate.
    static __device__ __forceinline__ Pick before_all() { return {static_cast<Key>(~static_cast<Key>(0)), -1}; }

    // Ranks after every candidate.
    static __device__ __forceinline__ Pick none() { return {static_cast<Key>(kAbsent), 0x7fffffff}; }

    __device__ __forceinline__ bool ranks_after(const Pick& other) const {
        return key < other.key || (key == other.key && id > other.id);
    }
};

// Makes best the better of itself and a candidate that ranks after previous. Candidates must come by rising id.
template <class Key>
__device__ __forceinline__ void offer(Pick<Key>& best, const Pick<Key>& previous, Key key, int id) {
    Pick<Key> candidate = {key, id};
    if (key > best.key && candidate.ranks_after(previous)) {
        best = candidate;
    }
}

__device__ __forceinline__ Pick<uint32_t> best_of_warp(const Pick<uint32_t>& own) {
    uint32_t key = __reduce_max_sync(kAllLanes, own.key);
    uint32_t id = __reduce_min_sync(kAllLanes, own.key == key ? static_cast<uint32_t>(own.id) : 0xffffffffu);
    return {key, static_cast<int>(id)};
}

__device__ __forceinline__ Pick<uint64_t> best_of_warp(const Pick<uint64_t>& own) {
    uint32_t own_high = static_cast<uint32_t>(own.key >> 32);
    uint32_t high = __reduce_max_sync(kAllLanes, own_high);
    uint32_t low = __reduce_max_sync(kAllLanes, own_high == high ? static_cast<uint32_t>(own.key) : 0u);
    uint64_t key = static_cast<uint64_t>(high) << 32 | low;
    uint32_t id = __reduce_min_sync(kAllLanes, own.key == key ? static_cast<uint32_t>(own.id) : 0xffffffffu);
    return {key, static_cast<int>(id)};
}

// The same sum in every lane, whatever the lanes' order of arrival.
template <class Value>
__device__ __forceinline__ Value sum_of_warp(Value value) {
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(kAllLanes, value, distance);
    }
    return value;
}

}  // namespace rank
