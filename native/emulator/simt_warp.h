// Warp intrinsics under their CUDA names. Each lane of the mask has to call them.
#pragma once

#include <cstring>
#include <type_traits>

#include "warp.h"

namespace emulator {

// The types that have shuffles and matches in CUDA are 4 or 8 bytes wide.
template <class T>
uint64_t to_bits(T value) {
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

template <class T>
T from_bits(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

}  // namespace emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, emulator::Site site = emulator::Site::here()) {
    return emulator::from_bits<T>(emulator::shuffle(emulator::Shuffle::index, mask, emulator::to_bits(value),
                                                    unsigned(lane), width, "__shfl_sync", site));
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                 emulator::Site site = emulator::Site::here()) {
    return emulator::from_bits<T>(emulator::shuffle(emulator::Shuffle::up, mask, emulator::to_bits(value), distance,
                                                    width, "__shfl_up_sync", site));
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                   emulator::Site site = emulator::Site::here()) {
    return emulator::from_bits<T>(emulator::shuffle(emulator::Shuffle::down, mask, emulator::to_bits(value), distance,
                                                    width, "__shfl_down_sync", site));
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  emulator::Site site = emulator::Site::here()) {
    return emulator::from_bits<T>(emulator::shuffle(emulator::Shuffle::butterfly, mask, emulator::to_bits(value),
                                                    unsigned(lane_mask), width, "__shfl_xor_sync", site));
}

inline unsigned __ballot_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
    return emulator::ballot(mask, predicate != 0, "__ballot_sync", site);
}

inline int __any_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
    return emulator::ballot(mask, predicate != 0, "__any_sync", site) != 0;
}

inline int __all_sync(unsigned mask, int predicate, emulator::Site site = emulator::Site::here()) {
    // No lane says no: lanes that have exited have no vote.
    return emulator::ballot(mask, predicate == 0, "__all_sync", site) == 0;
}

template <class T>
unsigned __match_any_sync(unsigned mask, T value, emulator::Site site = emulator::Site::here()) {
    return emulator::match_any(mask, emulator::to_bits(value), site);
}

template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* all_equal, emulator::Site site = emulator::Site::here()) {
    unsigned lanes = emulator::match_all(mask, emulator::to_bits(value), site);
    *all_equal = lanes != 0;
    return lanes;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, emulator::Site site = emulator::Site::here()) {
    emulator::sync_warp(mask, site);
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, emulator::Site site = emulator::Site::here()) {
    return emulator::reduce(emulator::Reduction::add, mask, value, "__reduce_add_sync", site);
}

inline int __reduce_add_sync(unsigned mask, int value, emulator::Site site = emulator::Site::here()) {
    return int(emulator::reduce(emulator::Reduction::add, mask, unsigned(value), "__reduce_add_sync", site));
}

inline unsigned __reduce_min_sync(unsigned mask, unsigned value, emulator::Site site = emulator::Site::here()) {
    return emulator::reduce(emulator::Reduction::min_unsigned, mask, value, "__reduce_min_sync", site);
}

inline int __reduce_min_sync(unsigned mask, int value, emulator::Site site = emulator::Site::here()) {
    return int(emulator::reduce(emulator::Reduction::min_signed, mask, unsigned(value), "__reduce_min_sync", site));
}

inline unsigned __reduce_max_sync(unsigned mask, unsigned value, emulator::Site site = emulator::Site::here()) {
    return emulator::reduce(emulator::Reduction::max_unsigned, mask, value, "__reduce_max_sync", site);
}

inline int __reduce_max_sync(unsigned mask, int value, emulator::Site site = emulator::Site::here()) {
    return int(emulator::reduce(emulator::Reduction::max_signed, mask, unsigned(value), "__reduce_max_sync", site));
}

inline unsigned __reduce_and_sync(unsigned mask, unsigned value, emulator::Site site = emulator::Site::here()) {
    return emulator::reduce(emulator::Reduction::bit_and, mask, value, "__reduce_and_sync", site);
}

inline unsigned __reduce_or_sync(unsigned mask, unsigned value, emulator::Site site = emulator::Site::here()) {
    return emulator::reduce(emulator::Reduction::bit_or, mask, value, "__reduce_or_sync", site);
}

inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, emulator::Site site = emulator::Site::here()) {
    return emulator::reduce(emulator::Reduction::bit_xor, mask, value, "__reduce_xor_sync", site);
}
