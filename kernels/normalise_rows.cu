// y[r] = factor x[r] / (|x[r]| + epsilon), with |x[r]| = sqrt(sum x[r,i]^2)
//
// Shapes    x, y [rows, columns].
// Grid      ceil(rows / items_per_block), a warp per row.
// Numerics  F32; each lane sums its share of the squares in order, then the lanes pairwise.
// Requires  nothing of alignment.
// Adjoint   normaliseRowsBackward.
#include "common/dtypes.cuh"
#include "common/rank.cuh"

namespace {

using dtypes::BF16;
using dtypes::F16;
using dtypes::F32;
using dtypes::Values;

constexpr int kThreads = 256;
constexpr int kRows = kThreads / 32;

template <class X, class Y, int count>
__device__ __forceinline__ void normalise_row(const typename X::Bits* x, typename Y::Bits* y, int columns, float factor,
                                              float epsilon) {
    int lane = threadIdx.x % 32;
    float squares = 0.0f;
#pragma unroll 2
    for (long long i = lane * count; i < columns; i += 32 * count) {
        Values<count> values = dtypes::load<X, count>(x + i);
#pragma unroll
        for (int j = 0; j < count; j++) {
            squares = fmaf(values.at[j], values.at[j], squares);
        }
    }
    float multiplier = factor / (sqrtf(rank::sum_of_warp(squares)) + epsilon);
#pragma unroll 2
    for (long long i = lane * count; i < columns; i += 32 * count) {
        Values<count> values = dtypes::load<X, count>(x + i);
#pragma unroll
        for (int j = 0; j < count; j++) {
            values.at[j] *= multiplier;
        }
        dtypes::store<Y, count>(y + i, values);
    }
}

template <class X, class Y>
__device__ void normalise_rows(const typename X::Bits* x, typename Y::Bits* y, int rows, int columns, float factor,
                               float epsilon) {
    long long row = static_cast<long long>(blockIdx.x) * kRows + threadIdx.x / 32;
    if (row >= rows) {
        return;
    }
    const typename X::Bits* from = x + row * columns;
    typename Y::Bits* to = y + row * columns;
    if (dtypes::vectors_fit(columns, x, y)) {
        normalise_row<X, Y, dtypes::kVector>(from, to, columns, factor, epsilon);
    } else {
        normalise_row<X, Y, 1>(from, to, columns, factor, epsilon);
    }
}

}  // namespace

#define NORMALISE_ROWS(name, X, Y)                                                                                        \
    extern "C" __global__ void __launch_bounds__(kThreads)                                                                \
        name(const X::Bits* __restrict__ x, Y::Bits* __restrict__ y, int rows, int columns, float factor, float epsilon) { \
        normalise_rows<X, Y>(x, y, rows, columns, factor, epsilon);                                                       \
    }                                                                                                                     \
    JMOE_EXPORT(name, kThreads, kRows, 0)

NORMALISE_ROWS(normalise_rows_f32_f32, F32, F32);
NORMALISE_ROWS(normalise_rows_f32_f16, F32, F16);
NORMALISE_ROWS(normalise_rows_f32_bf16, F32, BF16);
NORMALISE_ROWS(normalise_rows_f16_f32, F16, F32);
NORMALISE_ROWS(normalise_rows_f16_f16, F16, F16);
NORMALISE_ROWS(normalise_rows_f16_bf16, F16, BF16);
NORMALISE_ROWS(normalise_rows_bf16_f32, BF16, F32);
NORMALISE_ROWS(normalise_rows_bf16_f16, BF16, F16);
NORMALISE_ROWS(normalise_rows_bf16_bf16, BF16, BF16);
