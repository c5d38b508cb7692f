// wgmma (sm_90a): products of a warpgroup. Included by ptx.cuh.
//   d (64 x N, N / 2 registers of every thread) = a (64 x k) * b (N x k) transposed + (scale_d ? d : 0)
// Thread t holds in d[4 j + 2 h + e] row 16 (t / 32) + (t % 32) / 4 + 8 h, column 8 j + 2 (t % 4) + e.
#pragma once

namespace ptx {

// Before the first wgmma, and between a thread's own access to d or to a in registers and the next wgmma that uses
// them.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void wgmma_commit_group() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// At most PENDING of the newest groups are under way; d of the others may be read, their tiles written again.
template <int PENDING>
__device__ __forceinline__ void wgmma_wait_group() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// No instruction. The compiler takes accumulators for ordinary registers and may read them before a wait that stands in front of
// that: then ptxas serialises every wgmma. What is read after this is not read before it.
template <int COUNT>
__device__ __forceinline__ void wgmma_hold(float (&d)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}

// An asm statement spells out each of its registers, so every N needs its own text and operands: D for the operands, T
// for the text. The numbers in LIST are those of the operands after the accumulators.

#define JMOE_D8(k, d) "+" k(d[0]), "+" k(d[1]), "+" k(d[2]), "+" k(d[3])
#define JMOE_D16(k, d) JMOE_D8(k, d), "+" k(d[4]), "+" k(d[5]), "+" k(d[6]), "+" k(d[7])
#define JMOE_D24(k, d) JMOE_D16(k, d), "+" k(d[8]), "+" k(d[9]), "+" k(d[10]), "+" k(d[11])
#define JMOE_D32(k, d) JMOE_D24(k, d), "+" k(d[12]), "+" k(d[13]), "+" k(d[14]), "+" k(d[15])
#define JMOE_D40(k, d) JMOE_D32(k, d), "+" k(d[16]), "+" k(d[17]), "+" k(d[18]), "+" k(d[19])
#define JMOE_D48(k, d) JMOE_D40(k, d), "+" k(d[20]), "+" k(d[21]), "+" k(d[22]), "+" k(d[23])
#define JMOE_D56(k, d) JMOE_D48(k, d), "+" k(d[24]), "+" k(d[25]), "+" k(d[26]), "+" k(d[27])
#define JMOE_D64(k, d) JMOE_D56(k, d), "+" k(d[28]), "+" k(d[29]), "+" k(d[30]), "+" k(d[31])
#define JMOE_D72(k, d) JMOE_D64(k, d), "+" k(d[32]), "+" k(d[33]), "+" k(d[34]), "+" k(d[35])
#define JMOE_D80(k, d) JMOE_D72(k, d), "+" k(d[36]), "+" k(d[37]), "+" k(d[38]), "+" k(d[39])
#define JMOE_D88(k, d) JMOE_D80(k, d), "+" k(d[40]), "+" k(d[41]), "+" k(d[42]), "+" k(d[43])
#define JMOE_D96(k, d) JMOE_D88(k, d), "+" k(d[44]), "+" k(d[45]), "+" k(d[46]), "+" k(d[47])
#define JMOE_D104(k, d) JMOE_D96(k, d), "+" k(d[48]), "+" k(d[49]), "+" k(d[50]), "+" k(d[51])
#define JMOE_D112(k, d) JMOE_D104(k, d), "+" k(d[52]), "+" k(d[53]), "+" k(d[54]), "+" k(d[55])
#define JMOE_D120(k, d) JMOE_D112(k, d), "+" k(d[56]), "+" k(d[57]), "+" k(d[58]), "+" k(d[59])
#define JMOE_D128(k, d) JMOE_D120(k, d), "+" k(d[60]), "+" k(d[61]), "+" k(d[62]), "+" k(d[63])
#define JMOE_D136(k, d) JMOE_D128(k, d), "+" k(d[64]), "+" k(d[65]), "+" k(d[66]), "+" k(d[67])
#define JMOE_D144(k, d) JMOE_D136(k, d), "+" k(d[68]), "+" k(d[69]), "+" k(d[70]), "+" k(d[71])
#define JMOE_D152(k, d) JMOE_D144(k, d), "+" k(d[72]), "+" k(d[73]), "+" k(d[74]), "+" k(d[75])
#define JMOE_D160(k, d) JMOE_D152(k, d), "+" k(d[76]), "+" k(d[77]), "+" k(d[78]), "+" k(d[79])
#define JMOE_D168(k, d) JMOE_D160(k, d), "+" k(d[80]), "+" k(d[81]), "+" k(d[82]), "+" k(d[83])
#define JMOE_D176(k, d) JMOE_D168(k, d), "+" k(d[84]), "+" k(d[85]), "+" k(d[86]), "+" k(d[87])
#define JMOE_D184(k, d) JMOE_D176(k, d), "+" k(d[88]), "+" k(d[89]), "+" k(d[90]), "+" k(d[91])
#define JMOE_D192(k, d) JMOE_D184(k, d), "+" k(d[92]), "+" k(d[93]), "+" k(d[94]), "+" k(d[95])
#define JMOE_D200(k, d) JMOE_D192(k, d), "+" k(d[96]), "+" k(d[97]), "+" k(d[98]), "+" k(d[99])
#define JMOE_D208(k, d) JMOE_D200(k, d), "+" k(d[100]), "+" k(d[101]), "+" k(d[102]), "+" k(d[103])
#define JMOE_D216(k, d) JMOE_D208(k, d), "+" k(d[104]), "+" k(d[105]), "+" k(d[106]), "+" k(d[107])
#define JMOE_D224(k, d) JMOE_D216(k, d), "+" k(d[108]), "+" k(d[109]), "+" k(d[110]), "+" k(d[111])
#define JMOE_D232(k, d) JMOE_D224(k, d), "+" k(d[112]), "+" k(d[113]), "+" k(d[114]), "+" k(d[115])
#define JMOE_D240(k, d) JMOE_D232(k, d), "+" k(d[116]), "+" k(d[117]), "+" k(d[118]), "+" k(d[119])
#define JMOE_D248(k, d) JMOE_D240(k, d), "+" k(d[120]), "+" k(d[121]), "+" k(d[122]), "+" k(d[123])
#define JMOE_D256(k, d) JMOE_D248(k, d), "+" k(d[124]), "+" k(d[125]), "+" k(d[126]), "+" k(d[127])
#define JMOE_T8 "%0, %1, %2, %3"
#define JMOE_T16 JMOE_T8 ", %4, %5, %6, %7"
#define JMOE_T24 JMOE_T16 ", %8, %9, %10, %11"
#define JMOE_T32 JMOE_T24 ", %12, %13, %14, %15"
#define JMOE_T40 JMOE_T32 ", %16, %17, %18, %19"
#define JMOE_T48 JMOE_T40 ", %20, %21, %22, %23"
#define JMOE_T56 JMOE_T48 ", %24, %25, %26, %27"
#define JMOE_T64 JMOE_T56 ", %28, %29, %30, %31"
#define JMOE_T72 JMOE_T64 ", %32, %33, %34, %35"
#define JMOE_T80 JMOE_T72 ", %36, %37, %38, %39"
#define JMOE_T88 JMOE_T80 ", %40, %41, %42, %43"
#define JMOE_T96 JMOE_T88 ", %44, %45, %46, %47"
#define JMOE_T104 JMOE_T96 ", %48, %49, %50, %51"
#define JMOE_T112 JMOE_T104 ", %52, %53, %54, %55"
#define JMOE_T120 JMOE_T112 ", %56, %57, %58, %59"
#define JMOE_T128 JMOE_T120 ", %60, %61, %62, %63"
#define JMOE_T136 JMOE_T128 ", %64, %65, %66, %67"
#define JMOE_T144 JMOE_T136 ", %68, %69, %70, %71"
#define JMOE_T152 JMOE_T144 ", %72, %73, %74, %75"
#define JMOE_T160 JMOE_T152 ", %76, %77, %78, %79"
#define JMOE_T168 JMOE_T160 ", %80, %81, %82, %83"
#define JMOE_T176 JMOE_T168 ", %84, %85, %86, %87"
#define JMOE_T184 JMOE_T176 ", %88, %89, %90, %91"
#define JMOE_T192 JMOE_T184 ", %92, %93, %94, %95"
#define JMOE_T200 JMOE_T192 ", %96, %97, %98, %99"
#define JMOE_T208 JMOE_T200 ", %100, %101, %102, %103"
#define JMOE_T216 JMOE_T208 ", %104, %105, %106, %107"
#define JMOE_T224 JMOE_T216 ", %108, %109, %110, %111"
#define JMOE_T232 JMOE_T224 ", %112, %113, %114, %115"
#define JMOE_T240 JMOE_T232 ", %116, %117, %118, %119"
#define JMOE_T248 JMOE_T240 ", %120, %121, %122, %123"
#define JMOE_T256 JMOE_T248 ", %124, %125, %126, %127"

#define JMOE_LIST_OF_ALL_TYPES(X, ...) \
    X(8, 4, 5, 6, 7, 8, 9, 10, __VA_ARGS__) \
    X(16, 8, 9, 10, 11, 12, 13, 14, __VA_ARGS__) \
    X(24, 12, 13, 14, 15, 16, 17, 18, __VA_ARGS__) \
    X(32, 16, 17, 18, 19, 20, 21, 22, __VA_ARGS__) \
    X(48, 24, 25, 26, 27, 28, 29, 30, __VA_ARGS__) \
    X(64, 32, 33, 34, 35, 36, 37, 38, __VA_ARGS__) \
    X(80, 40, 41, 42, 43, 44, 45, 46, __VA_ARGS__) \
    X(96, 48, 49, 50, 51, 52, 53, 54, __VA_ARGS__) \
    X(112, 56, 57, 58, 59, 60, 61, 62, __VA_ARGS__) \
    X(128, 64, 65, 66, 67, 68, 69, 70, __VA_ARGS__) \
    X(144, 72, 73, 74, 75, 76, 77, 78, __VA_ARGS__) \
    X(160, 80, 81, 82, 83, 84, 85, 86, __VA_ARGS__) \
    X(176, 88, 89, 90, 91, 92, 93, 94, __VA_ARGS__) \
    X(192, 96, 97, 98, 99, 100, 101, 102, __VA_ARGS__) \
    X(208, 104, 105, 106, 107, 108, 109, 110, __VA_ARGS__) \
    X(224, 112, 113, 114, 115, 116, 117, 118, __VA_ARGS__) \
    X(240, 120, 121, 122, 123, 124, 125, 126, __VA_ARGS__) \
    X(256, 128, 129, 130, 131, 132, 133, 134, __VA_ARGS__)
#define JMOE_LIST_OF_FLOAT_TYPES(X, ...) \
    X(40, 20, 21, 22, 23, 24, 25, 26, __VA_ARGS__) \
    X(56, 28, 29, 30, 31, 32, 33, 34, __VA_ARGS__) \
    X(72, 36, 37, 38, 39, 40, 41, 42, __VA_ARGS__) \
    X(88, 44, 45, 46, 47, 48, 49, 50, __VA_ARGS__) \
    X(104, 52, 53, 54, 55, 56, 57, 58, __VA_ARGS__) \
    X(120, 60, 61, 62, 63, 64, 65, 66, __VA_ARGS__) \
    X(136, 68, 69, 70, 71, 72, 73, 74, __VA_ARGS__) \
    X(152, 76, 77, 78, 79, 80, 81, 82, __VA_ARGS__) \
    X(168, 84, 85, 86, 87, 88, 89, 90, __VA_ARGS__) \
    X(184, 92, 93, 94, 95, 96, 97, 98, __VA_ARGS__) \
    X(200, 100, 101, 102, 103, 104, 105, 106, __VA_ARGS__) \
    X(216, 108, 109, 110, 111, 112, 113, 114, __VA_ARGS__) \
    X(232, 116, 117, 118, 119, 120, 121, 122, __VA_ARGS__) \
    X(248, 124, 125, 126, 127, 128, 129, 130, __VA_ARGS__)

#define JMOE_WGMMA_BEGIN(n, scale) \
    "{\n.reg .pred p;\nsetp.ne.b32 p, %" #scale ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n

// 16-bit types: both shared operands may be MN-major.
#define JMOE_SHARED_16(n, p0, p1, p2, p3, p4, p5, p6, type)                                                           \
    if constexpr (N == n)                                                                                             \
        asm volatile(JMOE_WGMMA_BEGIN(n, p2) type " {" JMOE_T##n "}, %" #p0 ", %" #p1 ", p, 1, 1, %" #p3 ", %" #p4 ";\n}" \
                     : JMOE_D##n("f", d)                                                                              \
                     : "l"(a), "l"(b), "r"(scale_d), "n"(TRANSPOSE_A), "n"(TRANSPOSE_B)                               \
                     : "memory");
#define JMOE_REGISTERS_16(n, p0, p1, p2, p3, p4, p5, p6, type)                                                        \
    if constexpr (N == n)                                                                                             \
        asm volatile(JMOE_WGMMA_BEGIN(n, p5) type " {" JMOE_T##n "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 \
                                                  ", p, 1, 1, %" #p6 ";\n}"                                           \
                     : JMOE_D##n("f", d)                                                                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(scale_d), "n"(TRANSPOSE_B)             \
                     : "memory");
// The other types: K-major only. kind is the constraint of an accumulator, flags are the signs of a and b.
#define JMOE_SHARED_K(n, p0, p1, p2, p3, p4, p5, p6, type, kind, flags)                                               \
    if constexpr (N == n)                                                                                             \
        asm volatile(JMOE_WGMMA_BEGIN(n, p2) type " {" JMOE_T##n "}, %" #p0 ", %" #p1 ", p" flags ";\n}"              \
                     : JMOE_D##n(kind, d)                                                                             \
                     : "l"(a), "l"(b), "r"(scale_d)                                                                   \
                     : "memory");
#define JMOE_REGISTERS_K(n, p0, p1, p2, p3, p4, p5, p6, type, kind, flags)                                            \
    if constexpr (N == n)                                                                                             \
        asm volatile(JMOE_WGMMA_BEGIN(n, p5) type " {" JMOE_T##n "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 \
                                                  ", p" flags ";\n}"                                                  \
                     : JMOE_D##n(kind, d)                                                                             \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(scale_d)                               \
                     : "memory");

// k is 16 for bf16 and f16, 8 for tf32, 32 for e4m3 and s8. a and b are matrix descriptors, a[4] a fragment in
// registers. TRANSPOSE is 1 for an MN-major operand. N = 8, 16, 24, ... 256; s8 has 8, 16, 24, 32, 48, 64, ... 256.


template <int N, int TRANSPOSE_A = 0, int TRANSPOSE_B = 0>
__device__ __forceinline__ void wgmma_bf16(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    static_assert(N >= 8 && N <= 256 && N % 8 == 0, "N is 8, 16, 24, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_SHARED_16, "k16.f32.bf16.bf16")
    JMOE_LIST_OF_FLOAT_TYPES(JMOE_SHARED_16, "k16.f32.bf16.bf16")
}

template <int N, int TRANSPOSE_B = 0>
__device__ __forceinline__ void wgmma_bf16_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,
                                                     int scale_d) {
    static_assert(N >= 8 && N <= 256 && N % 8 == 0, "N is 8, 16, 24, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_REGISTERS_16, "k16.f32.bf16.bf16")
    JMOE_LIST_OF_FLOAT_TYPES(JMOE_REGISTERS_16, "k16.f32.bf16.bf16")
}

template <int N, int TRANSPOSE_A = 0, int TRANSPOSE_B = 0>
__device__ __forceinline__ void wgmma_f16(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    static_assert(N >= 8 && N <= 256 && N % 8 == 0, "N is 8, 16, 24, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_SHARED_16, "k16.f32.f16.f16")
    JMOE_LIST_OF_FLOAT_TYPES(JMOE_SHARED_16, "k16.f32.f16.f16")
}

template <int N, int TRANSPOSE_B = 0>
__device__ __forceinline__ void wgmma_f16_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,
                                                    int scale_d) {
    static_assert(N >= 8 && N <= 256 && N % 8 == 0, "N is 8, 16, 24, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_REGISTERS_16, "k16.f32.f16.f16")
    JMOE_LIST_OF_FLOAT_TYPES(JMOE_REGISTERS_16, "k16.f32.f16.f16")
}

template <int N>
__device__ __forceinline__ void wgmma_tf32(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    static_assert(N >= 8 && N <= 256 && N % 8 == 0, "N is 8, 16, 24, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_SHARED_K, "k8.f32.tf32.tf32", "f", ", 1, 1")
    JMOE_LIST_OF_FLOAT_TYPES(JMOE_SHARED_K, "k8.f32.tf32.tf32", "f", ", 1, 1")
}

template <int N>
__device__ __forceinline__ void wgmma_tf32_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,
                                                     int scale_d) {
    static_assert(N >= 8 && N <= 256 && N % 8 == 0, "N is 8, 16, 24, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_REGISTERS_K, "k8.f32.tf32.tf32", "f", ", 1, 1")
    JMOE_LIST_OF_FLOAT_TYPES(JMOE_REGISTERS_K, "k8.f32.tf32.tf32", "f", ", 1, 1")
}

template <int N>
__device__ __forceinline__ void wgmma_e4m3(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    static_assert(N >= 8 && N <= 256 && N % 8 == 0, "N is 8, 16, 24, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_SHARED_K, "k32.f32.e4m3.e4m3", "f", ", 1, 1")
    JMOE_LIST_OF_FLOAT_TYPES(JMOE_SHARED_K, "k32.f32.e4m3.e4m3", "f", ", 1, 1")
}

template <int N>
__device__ __forceinline__ void wgmma_e4m3_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,
                                                     int scale_d) {
    static_assert(N >= 8 && N <= 256 && N % 8 == 0, "N is 8, 16, 24, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_REGISTERS_K, "k32.f32.e4m3.e4m3", "f", ", 1, 1")
    JMOE_LIST_OF_FLOAT_TYPES(JMOE_REGISTERS_K, "k32.f32.e4m3.e4m3", "f", ", 1, 1")
}

template <int N>
__device__ __forceinline__ void wgmma_s8(int (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    static_assert(N >= 8 && N <= 256 && (N % 16 == 0 || N == 8 || N == 24), "N is 8, 16, 24, 32, 48, 64, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_SHARED_K, "k32.s32.s8.s8", "r", "")
}

template <int N>
__device__ __forceinline__ void wgmma_s8_registers(int (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d) {
    static_assert(N >= 8 && N <= 256 && (N % 16 == 0 || N == 8 || N == 24), "N is 8, 16, 24, 32, 48, 64, ... 256");
    JMOE_LIST_OF_ALL_TYPES(JMOE_REGISTERS_K, "k32.s32.s8.s8", "r", "")
}

#undef JMOE_LIST_OF_ALL_TYPES
#undef JMOE_LIST_OF_FLOAT_TYPES
#undef JMOE_WGMMA_BEGIN
#undef JMOE_SHARED_16
#undef JMOE_REGISTERS_16
#undef JMOE_SHARED_K
#undef JMOE_REGISTERS_K

}  // namespace ptx
