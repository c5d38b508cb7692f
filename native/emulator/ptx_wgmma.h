// Twins of kernels/common/ptx_wgmma.cuh.
#pragma once

#include <cstdint>

#include "simt.h"

namespace ptx {

using emulator::Site;

enum class WgmmaType : uint8_t { bf16, f16, tf32, e4m3, s8 };

// One wgmma as a thread passes it. a_registers is null if a is in shared memory.
struct Wgmma {
    WgmmaType type;
    int n;
    uint32_t* d;
    const uint32_t* a_registers;
    uint64_t a;
    uint64_t b;
    bool scale_d;
    bool transpose_a;
    bool transpose_b;
};

void wgmma(const Wgmma& operands, Site site);
void wgmma_fence(Site site = Site::here());
void wgmma_commit_group(Site site = Site::here());
void wgmma_wait(int pending, Site site);

template <int PENDING>
void wgmma_wait_group(Site site = Site::here()) {
    static_assert(PENDING >= 0 && PENDING <= 7);
    wgmma_wait(PENDING, site);
}

template <int COUNT>
void wgmma_hold(float (&)[COUNT]) {}

template <int N>
constexpr bool wgmma_width = N >= 8 && N <= 256 && N % 8 == 0;
template <int N>
constexpr bool wgmma_integer_width = wgmma_width<N> && (N % 16 == 0 || N == 8 || N == 24);

template <int N, int TRANSPOSE_A = 0, int TRANSPOSE_B = 0>
void wgmma_bf16(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d, Site site = Site::here()) {
    static_assert(wgmma_width<N>, "N is 8, 16, 24, ... 256");
    wgmma({WgmmaType::bf16, N, reinterpret_cast<uint32_t*>(d), nullptr, a, b, scale_d != 0, TRANSPOSE_A != 0,
           TRANSPOSE_B != 0},
          site);
}

template <int N, int TRANSPOSE_B = 0>
void wgmma_bf16_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d,
                          Site site = Site::here()) {
    static_assert(wgmma_width<N>, "N is 8, 16, 24, ... 256");
    wgmma({WgmmaType::bf16, N, reinterpret_cast<uint32_t*>(d), a, 0, b, scale_d != 0, false, TRANSPOSE_B != 0}, site);
}

template <int N, int TRANSPOSE_A = 0, int TRANSPOSE_B = 0>
void wgmma_f16(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d, Site site = Site::here()) {
    static_assert(wgmma_width<N>, "N is 8, 16, 24, ... 256");
    wgmma({WgmmaType::f16, N, reinterpret_cast<uint32_t*>(d), nullptr, a, b, scale_d != 0, TRANSPOSE_A != 0,
           TRANSPOSE_B != 0},
          site);
}

template <int N, int TRANSPOSE_B = 0>
void wgmma_f16_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d,
                         Site site = Site::here()) {
    static_assert(wgmma_width<N>, "N is 8, 16, 24, ... 256");
    wgmma({WgmmaType::f16, N, reinterpret_cast<uint32_t*>(d), a, 0, b, scale_d != 0, false, TRANSPOSE_B != 0}, site);
}

template <int N>
void wgmma_tf32(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d, Site site = Site::here()) {
    static_assert(wgmma_width<N>, "N is 8, 16, 24, ... 256");
    wgmma({WgmmaType::tf32, N, reinterpret_cast<uint32_t*>(d), nullptr, a, b, scale_d != 0, false, false}, site);
}

template <int N>
void wgmma_tf32_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d,
                          Site site = Site::here()) {
    static_assert(wgmma_width<N>, "N is 8, 16, 24, ... 256");
    wgmma({WgmmaType::tf32, N, reinterpret_cast<uint32_t*>(d), a, 0, b, scale_d != 0, false, false}, site);
}

template <int N>
void wgmma_e4m3(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d, Site site = Site::here()) {
    static_assert(wgmma_width<N>, "N is 8, 16, 24, ... 256");
    wgmma({WgmmaType::e4m3, N, reinterpret_cast<uint32_t*>(d), nullptr, a, b, scale_d != 0, false, false}, site);
}

template <int N>
void wgmma_e4m3_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d,
                          Site site = Site::here()) {
    static_assert(wgmma_width<N>, "N is 8, 16, 24, ... 256");
    wgmma({WgmmaType::e4m3, N, reinterpret_cast<uint32_t*>(d), a, 0, b, scale_d != 0, false, false}, site);
}

template <int N>
void wgmma_s8(int (&d)[N / 2], uint64_t a, uint64_t b, int scale_d, Site site = Site::here()) {
    static_assert(wgmma_integer_width<N>, "N is 8, 16, 24, 32, 48, 64, ... 256");
    wgmma({WgmmaType::s8, N, reinterpret_cast<uint32_t*>(d), nullptr, a, b, scale_d != 0, false, false}, site);
}

template <int N>
void wgmma_s8_registers(int (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d, Site site = Site::here()) {
    static_assert(wgmma_integer_width<N>, "N is 8, 16, 24, 32, 48, 64, ... 256");
    wgmma({WgmmaType::s8, N, reinterpret_cast<uint32_t*>(d), a, 0, b, scale_d != 0, false, false}, site);
}

}  // namespace ptx
