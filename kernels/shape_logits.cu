// logits[t] = f_n(.. f_1(logits[t]))
//
// Shapes    logits F32 [tokens, num_experts], token_types [tokens] or null, noise_logits F32 [tokens, num_experts] or null
//           where no transform asks for it, step [1] or null for 0. Tokens of other types than the transforms name, and of
//           negative ones, are not touched.
// Grid      ceil(tokens / items_per_block), a warp per token.
// Numerics  F64, rounded once; each operation is that of jmoe.ops.LogitShaping, so that the bits are.
// Requires  nothing of sizes: what stands before a mean is computed again for each pass over the experts.
// Adjoint   none yet.
#include "common/noise.cuh"
#include "common/rank.cuh"

// The transforms as the host passes them; 200 bytes.
struct LogitTransforms {
    struct Transform {
        double number;  // what the transform is given besides the seed
        uint64_t seed;
        int kind;
    };

    int count;
    int token_type;  // -1 for all
    Transform at[8];
};

static_assert(sizeof(LogitTransforms) == 200, "the host writes these bytes");

namespace {

using portable::Real;

constexpr int kThreads = 128;
constexpr int kTokens = kThreads / 32;
constexpr int kPlaces = 8;

constexpr int kTemperature = 0;
constexpr int kStandardise = 1;
constexpr int kCap = 2;
constexpr int kFixedNoise = 3;
constexpr int kLearnedNoise = 4;

// Of the logits in front of one transform: the first, the mean relative to it, and the deviation.
struct Moments {
    double first;
    double mean;
    double deviation;
};

struct Token {
    const LogitTransforms& transforms;
    const float* logits;
    const float* noise_logits;
    const Moments* moments;  // by place
    uint32_t index;
    uint32_t step;
};

__device__ Real standardised(Real z, double lambda, const Moments& moments) {
    if (moments.deviation == 0.0) {
        return 0.0;
    }
    return Real(lambda) * (((z - moments.first) - moments.mean) / moments.deviation);
}

__device__ Real noise_of(const LogitTransforms::Transform& transform, int place, int expert, const Token& token) {
    Real u = noise::uniform(transform.seed, token.index, expert, token.step, place);
    if (transform.kind == kLearnedNoise) {
        return noise::deviation(static_cast<double>(token.noise_logits[expert])) * noise::normal(u);
    }
    return Real(transform.number) * (transform.kind == kFixedNoise ? noise::normal(u) : noise::gumbel(u));
}

// The logit of an expert behind the first transforms.
__device__ Real shaped(int expert, int count, const Token& token) {
    Real z = static_cast<double>(token.logits[expert]);
#pragma unroll 1
    for (int place = 0; place < count; place++) {
        const LogitTransforms::Transform& transform = token.transforms.at[place];
        if (transform.kind == kTemperature) {
            z = z / transform.number;
        } else if (transform.kind == kStandardise) {
            z = standardised(z, transform.number, token.moments[place]);
        } else if (transform.kind == kCap) {
            z = Real(transform.number) * portable::tanh(z / transform.number);
        } else {
            z = z + noise_of(transform, place, expert, token);
        }
    }
    return z;
}

// Relative to the first logit, so that equal ones differ from their mean by exactly 0. Every lane sums up every 32nd.
__device__ Moments moments_of(int place, int experts, const Token& token, int lane) {
    Real first = shaped(0, place, token);
    Real mean = 0.0;
    Real squares = 0.0;
#pragma unroll 1
    for (int pass = 0; pass < 2; pass++) {
        Real sum = 0.0;
#pragma unroll 1
        for (int expert = lane; expert < experts; expert += 32) {
            Real distance = (shaped(expert, place, token) - first) - mean;
            sum = sum + (pass == 0 ? distance : distance * distance);
        }
        Real average = Real(rank::sum_of_warp(sum.value)) / static_cast<double>(experts);
        (pass == 0 ? mean : squares) = average;
    }
    return {first.value, mean.value, portable::root(squares).value};
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    shape_logits(float* logits, const int* __restrict__ token_types, const float* __restrict__ noise_logits,
                 const int* __restrict__ step, int tokens, int num_experts,
                 const __grid_constant__ LogitTransforms transforms) {
    JMOE_SHARED(Moments, moments_of_warps, [kTokens][kPlaces]);
    int lane = static_cast<int>(threadIdx.x % 32);
    long long index = static_cast<long long>(blockIdx.x) * kTokens + threadIdx.x / 32;
    if (index >= tokens) {
        return;
    }
    int type = token_types == nullptr ? 0 : token_types[index];
    if (type < 0 || (token_types != nullptr && transforms.token_type >= 0 && type != transforms.token_type)) {
        return;
    }
    Moments* moments = moments_of_warps[threadIdx.x / 32];
    float* row = logits + index * num_experts;
    Token token = {transforms,
                   row,
                   noise_logits == nullptr ? nullptr : noise_logits + index * num_experts,
                   moments,
                   static_cast<uint32_t>(index),
                   step == nullptr ? 0u : static_cast<uint32_t>(*step)};
#pragma unroll 1
    for (int place = 0; place < transforms.count; place++) {
        if (transforms.at[place].kind == kStandardise) {
            Moments own = moments_of(place, num_experts, token, lane);
            if (lane == 0) {
                moments[place] = own;
            }
            // Also: no lane writes the first logit before all have read it.
            __syncwarp();
        }
    }
#pragma unroll 1
    for (int expert = lane; expert < num_experts; expert += 32) {
        double z = shaped(expert, transforms.count, token).value;
        row[expert] = z != z ? special::nan() : __double2float_rn(z);
    }
}
JMOE_EXPORT(shape_logits, kThreads, kTokens, 0);
