// y[t,h] = f x[t,h], with factors f uniform between 1 - epsilon and 1 + epsilon
//
// Shapes    x, y [tokens, hidden]; step [1] or null for 0.
// Grid      x: ceil(tokens / items_per_block); y: any, shares the columns.
// Numerics  f in F64, rounded to F32; the product is rounded once. Each operation is that of jmoe.ops.Jittering, so that the
//           bits are.
// Requires  nothing of alignment.
// Adjoint   itself.
#include "common/dtypes.cuh"
#include "common/noise.cuh"
#include "common/rows.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;
using portable::Real;

// Columns that one counter gives factors to.
constexpr int kColumns = 4;

// Where noise of logits has its place in a list, so that one seed may serve both.
constexpr uint32_t kPlace = 0xffffffffu;

struct Counter {
    uint64_t seed;
    uint32_t token;
    uint32_t step;
};

__device__ __forceinline__ float factor(uint32_t word, double epsilon) {
    Real u = (Real(static_cast<double>(word)) + 0.5) * 0x1p-32;
    return __double2float_rn((Real(1.0) + Real(epsilon) * (u * 2.0 - 1.0)).value);
}

__device__ __forceinline__ float jittered(float x, uint32_t word, double epsilon) {
    float product = x * factor(word, epsilon);
    return product != product ? special::nan() : product;
}

template <class X>
__device__ void jitter_row(const typename X::Bits* x, float* y, int hidden, const Counter& counter, double epsilon) {
    bool fits = dtypes::quads_fit<X>(x, hidden) && dtypes::quads_fit<F32>(y, hidden);
    for (long long i = rows::first_column() * kColumns; i < hidden; i += rows::column_step() * kColumns) {
        noise::Words words = noise::philox(
            counter.seed, {{counter.token, static_cast<uint32_t>(i / kColumns), counter.step, kPlace}});
        if (fits) {
            float4 from = dtypes::load_quad<X>(x + i);
            *reinterpret_cast<float4*>(y + i) =
                make_float4(jittered(from.x, words.at[0], epsilon), jittered(from.y, words.at[1], epsilon),
                            jittered(from.z, words.at[2], epsilon), jittered(from.w, words.at[3], epsilon));
            continue;
        }
#pragma unroll
        for (int j = 0; j < kColumns; j++) {
            if (i + j < hidden) {
                y[i + j] = jittered(X::decode(x[i + j]), words.at[j], epsilon);
            }
        }
    }
}

template <class X>
__device__ void jitter(const typename X::Bits* x, const int* step, float* y, int tokens, int hidden, uint64_t seed,
                       double epsilon) {
    long long token = rows::row();
    if (token >= tokens) {
        return;
    }
    Counter counter = {seed, static_cast<uint32_t>(token), step == nullptr ? 0u : static_cast<uint32_t>(*step)};
    jitter_row<X>(x + token * hidden, y + token * hidden, hidden, counter, epsilon);
}

}  // namespace

#define JITTER(name, X)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(rows::kThreads)                                                          \
        name(const X::Bits* __restrict__ x, const int* __restrict__ step, float* __restrict__ y, int tokens, int hidden,  \
             uint64_t seed, double epsilon) {                                                                             \
        jitter<X>(x, step, y, tokens, hidden, seed, epsilon);                                                             \
    }                                                                                                                     \
    JMOE_EXPORT(name, rows::kThreads, rows::kRows, 0)

JITTER(jitter_f32_f32, F32);
JITTER(jitter_f16_f32, F16);
JITTER(jitter_bf16_f32, BF16);
