// From the accumulators of a warpgroup to y (sm_90a): slot weight, bias and activation in registers, then 64 columns at a time
// through shared memory, from where TMA takes whole boxes and the threads themselves the ragged ends of groups.
#pragma once

#include "activation.cuh"
#include "dtypes.cuh"

namespace wgmma_store {

using dtypes::Values;

constexpr int kRows = 64;                            // of a warpgroup
constexpr int kColumns = 64;                         // of a chunk
constexpr int kChunkBytes = kRows * kColumns * 2;
constexpr int kNone = -1;                            // no activation

// How accumulators become outputs. Each has its own straight code; what costs next to nothing shares PLAIN or GATED. The gelus are
// not among them: beside the accumulators of the smallest tile they have too few registers.
enum class Form { PLAIN, SILU, SWIGLU, CLAMPED_SWIGLU, GATED };

__device__ __forceinline__ constexpr bool gated(Form form) { return form >= Form::SWIGLU; }

// The whole result.
struct Target {
    const ptx::TensorMap* map;  // boxes of kRows by kColumns
    void* y;
    int outputs;
    int y_dtype;
    int kind;
    float limit;

    // Whether map may be used, and vectors.
    __device__ __forceinline__ bool vectors_fit() const { return dtypes::vectors_fit(outputs, y, nullptr); }
};

// A warpgroup's part of it.
struct Part {
    int row;  // first
    int rows;
    int output;         // first
    const float* bias;  // of output; the ups' lie Target.outputs further on. Or null
    float slot_weights[2];  // of a thread's two rows
};

// A warpgroup's chunks in shared memory, used in turn.
template <int kBuffers>
struct Chunks {
    unsigned char* bytes;
    int barrier;  // named, of the warpgroup
    int next = 0;

    __device__ __forceinline__ unsigned char* current() const { return bytes + next * kChunkBytes; }
    __device__ __forceinline__ void advance() { next = next == kBuffers - 1 ? 0 : next + 1; }
};

__device__ __forceinline__ bool leads_warpgroup() { return threadIdx.x % 128 == 0; }

// Eight values of a thread: two rows by two columns of two blocks of 8 columns that lie side by side, the first being `block`.
__device__ __forceinline__ Values<8> weigh(const float* sums, const Part& part, const float* bias, int block, int exist) {
    Values<8> values;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        values.at[i] = part.slot_weights[i % 4 / 2] * sums[i];
    }
    if (bias != nullptr) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int column = block * 8 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
            values.at[i] += column < exist ? bias[column] : 0.0f;
        }
    }
    return values;
}

// From gate and up, of one part both the same; kinds that share a form are told apart here.
template <Form form>
__device__ __forceinline__ void finish(const Target& target, const Values<8>& gate, Values<8>& up) {
    using namespace activation;
    if constexpr (form == Form::SWIGLU) {
        activate_16_bits<kSwiglu>(target.limit, gate, up);
    } else if constexpr (form == Form::CLAMPED_SWIGLU) {
        activate_16_bits<kClampedSwiglu>(target.limit, gate, up);
    } else if constexpr (form == Form::SILU) {
        activate<kSilu>(target.limit, gate, up);
    } else if constexpr (form == Form::GATED) {
        if (target.kind == kReglu) {
            activate<kReglu>(target.limit, gate, up);
        } else if (target.kind == kGlu) {
            activate_16_bits<kGlu>(target.limit, gate, up);
        } else {
            activate<kBilinear>(target.limit, gate, up);
        }
    } else if (target.kind == kRelu) {
        activate<kRelu>(target.limit, gate, up);
    } else if (target.kind == kSquaredRelu) {
        activate<kSquaredRelu>(target.limit, gate, up);
    }
}

template <Form form, int kAccumulators>
__device__ __forceinline__ Values<8> values(const Target& target, const Part& part, const float (&sums)[kAccumulators],
                                            int block) {
    int exist = target.outputs - part.output;
    Values<8> result = weigh(sums + block * 4, part, part.bias, block, exist);
    if constexpr (gated(form)) {
        const float* bias = part.bias == nullptr ? nullptr : part.bias + target.outputs;
        Values<8> up = weigh(sums + kAccumulators / 2 + block * 4, part, bias, block, exist);
        finish<form>(target, result, up);
        return up;
    } else {
        finish<form>(target, result, result);
        return result;
    }
}

__device__ __forceinline__ uint32_t pair(int y_dtype, float low, float high) {
    return y_dtype == dtypes::kF16 ? ptx::f32_to_f16x2(low, high) : ptx::f32_to_bf16x2(low, high);
}

// Byte of 8 columns within the rows of a chunk, as the 128-byte swizzle of TMA wants it.
__device__ __forceinline__ int swizzled(int row, int block) { return row * kColumns * 2 + (block ^ row % 8) * 16; }

// Both blocks of 8 columns, into the chunk.
__device__ __forceinline__ void stage_values(const Values<8>& values, int y_dtype, unsigned char* chunk, int block) {
    int lane = threadIdx.x % 32;
    int row = threadIdx.x / 32 % 4 * 16 + lane % 16;
    const float* at = values.at;
    uint32_t words[4] = {pair(y_dtype, at[0], at[1]), pair(y_dtype, at[2], at[3]), pair(y_dtype, at[4], at[5]),
                         pair(y_dtype, at[6], at[7])};
    ptx::stmatrix_x4(ptx::shared_address(chunk) + swizzled(row, block + lane / 16), words);
}

// The rows that exist, 16 bytes at a time. rows may end within the chunk, columns too.
__device__ __forceinline__ void copy_rows(const Target& target, const Part& part, const unsigned char* chunk, int output) {
    uint16_t* y = static_cast<uint16_t*>(target.y);
    bool vectors = target.vectors_fit();
#pragma unroll 1
    for (int i = 0; i < kRows * 8 / 128; i++) {
        int index = i * 128 + static_cast<int>(threadIdx.x % 128);
        int row = index / 8;
        int block = index % 8;
        int exist = target.outputs - (output + block * 8);
        if (row >= part.rows || exist <= 0) {
            continue;
        }
        uint4 words = *reinterpret_cast<const uint4*>(chunk + swizzled(row, block));
        uint16_t* to = y + static_cast<long long>(part.row + row) * target.outputs + output + block * 8;
        if (vectors) {
            *reinterpret_cast<uint4*>(to) = words;
            continue;
        }
        uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int e = 0; e < 8; e++) {
            if (e < exist) {
                to[e] = static_cast<uint16_t>(word[e / 2] >> e % 2 * 16);
            }
        }
    }
}

// A chunk of 16-bit outputs is complete in shared memory; on to y with it.
template <int kBuffers>
__device__ __forceinline__ void send_chunk(const Target& target, const Part& part, Chunks<kBuffers>& chunks, int output,
                                           bool whole) {
    if (whole) {
        ptx::fence_proxy_async();
    }
    ptx::named_barrier_sync(chunks.barrier, 128);
    if (!whole) {
        copy_rows(target, part, chunks.current(), output);
    } else if (leads_warpgroup()) {
        ptx::tma_store_2d(target.map, ptx::shared_address(chunks.current()), output, part.row);
        ptx::bulk_commit_group();
    }
    chunks.advance();
}

// F32 outputs, which have no activation, from the registers: four lanes fill a sector.
template <int kAccumulators>
__device__ __forceinline__ void store_floats(const Target& target, const Part& part, const float (&sums)[kAccumulators]) {
    int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    int column = threadIdx.x % 4 * 2;
    int exist = target.outputs - part.output;
    float* to = static_cast<float*>(target.y) + static_cast<long long>(part.row + row) * target.outputs + part.output + column;
#pragma unroll
    for (int block = 0; block < kAccumulators / 4; block += 2) {
        Values<8> ready = weigh(sums + block * 4, part, part.bias, block, exist);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int across = (block + i / 4) * 8 + i % 2;
            if (row + i % 4 / 2 * 8 < part.rows && column + across < exist) {
                to[i % 4 / 2 * 8 * static_cast<long long>(target.outputs) + across] = ready.at[i];
            }
        }
    }
}

// All of a warpgroup's accumulators, as 16-bit outputs: 64 rows by the outputs of a tile.
template <Form form, int kAccumulators, int kBuffers>
__device__ __forceinline__ void store_chunks(const Target& target, const Part& part, const float (&sums)[kAccumulators],
                                             Chunks<kBuffers>& chunks) {
    constexpr int kBlocks = kAccumulators / 4 / (gated(form) ? 2 : 1);
    bool whole = part.rows >= kRows && target.vectors_fit();
#pragma unroll
    for (int first = 0; first < kBlocks; first += 8) {
        int output = part.output + first * 8;
        if (output >= target.outputs) {
            continue;
        }
        // What TMA took before from this chunk has been read. The ragged way commits no groups, so none may be left there.
        if (leads_warpgroup()) {
            if (whole) {
                ptx::bulk_wait_group_read<kBuffers - 1>();
            } else {
                ptx::bulk_wait_group_read<0>();
            }
        }
        ptx::named_barrier_sync(chunks.barrier, 128);
#pragma unroll
        for (int block = first; block < first + 8; block += 2) {
            stage_values(values<form>(target, part, sums, block), target.y_dtype, chunks.current(), block - first);
        }
        send_chunk(target, part, chunks, output, whole);
    }
}

// All of a warpgroup's accumulators. F32 outputs with an activation are not among what kernels here compute.
template <int kAccumulators, int kBuffers>
__device__ __forceinline__ void store(const Target& target, const Part& part, const float (&sums)[kAccumulators],
                                      Chunks<kBuffers>& chunks) {
    if (target.y_dtype == dtypes::kF32) {
        store_floats(target, part, sums);
        return;
    }
    switch (target.kind) {
        case activation::kSwiglu:
            store_chunks<Form::SWIGLU>(target, part, sums, chunks);
            break;
        case activation::kClampedSwiglu:
            store_chunks<Form::CLAMPED_SWIGLU>(target, part, sums, chunks);
            break;
        case activation::kSilu:
            store_chunks<Form::SILU>(target, part, sums, chunks);
            break;
        case activation::kReglu:
        case activation::kGlu:
        case activation::kBilinear:
            store_chunks<Form::GATED>(target, part, sums, chunks);
            break;
        default:
            store_chunks<Form::PLAIN>(target, part, sums, chunks);
    }
}

}  // namespace wgmma_store
