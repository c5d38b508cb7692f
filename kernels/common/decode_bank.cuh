// What the kernels of the decode path are given, as the host passes it, and how a product is cut for them.
#pragma once

#include "activation.cuh"

// The experts that a kernel multiplies by: the routed ones, or a shared expert as one group whose row r is token r. 104 bytes.
struct DecodeBank {
    const void* weight;         // [groups, columns, inputs]; columns are outputs, or gates and then ups
    const float* bias;          // [groups, columns] or null
    const int* expert_offsets;  // [groups + 1]
    const int* row_to_slot;     // gate_up: or null where row r is token r; down ignores it
    const float* slot_weights;  // gate_up: a factor of x by slot, null for 1
    const void* x;              // gate_up: [tokens, inputs]; down: hidden [rows, inputs]
    void* y;                    // gate_up: hidden [rows, outputs]
    float* parts;               // [slices, or 1 where nothing is split, rows, column tiles * 64]
    unsigned* arrivals;         // gate_up: [rows, column tiles], all 0 before and after
    int rows;                   // most there can be
    int groups;                 // 0 for no bank
    int outputs;
    int inputs;
    int top_k;
    int slices_per_unit;
    int kind;  // Activation.Kind, -1 for none
    float limit;
};

// How rows become tokens in the down kernel; as in unpermute.cu. 96 bytes.
struct DecodeCombine {
    const int* slot_to_row;
    const int* topk_ids;
    const float* weights;         // [tokens, top_k] or null for 1
    const float* shared_weights;  // of the shared expert's rows, [tokens] or null for 1
    const void* addend;
    const void* identity;
    void* y;
    unsigned* arrivals;  // [column tiles], all 0 before and after
    int tokens;
    int top_k;
    int addend_dtype;
    int addend_rows;
    int identity_dtype;
    int first_identity;
    int y_dtype;
    float factor;
};

// The weight that the next kernel streams, which gate_up brings into L2 when it has nothing else to fetch. 24 bytes.
struct DecodePrefetch {
    const void* weight;  // [groups, columns, inputs]
    int columns;
    int inputs;
    int tiles;  // of 64 columns, for each block; 0 for none
    int unused;
};

static_assert(sizeof(DecodeBank) == 104 && sizeof(DecodeCombine) == 96 && sizeof(DecodePrefetch) == 24, "the host writes these bytes");

namespace decode {

constexpr int kThreads = 128;   // that multiply
constexpr int kRows = 64;       // of x, in a row tile
constexpr int kColumns = 64;    // rows of the weight, in a column tile
constexpr int kDepth = 64;      // inputs of a stage
constexpr int kSliceStages = 8;  // most stages of a slice
constexpr int kRowBytes = kDepth * 2;
constexpr int kChunk = 8;  // elements that cp.async copies at once
constexpr int kChunks = kDepth / kChunk;

// Most routed rows, and with them row tiles.
constexpr int kMaxRows = 1024;

__device__ __forceinline__ bool gated(const DecodeBank& bank) { return activation::gated(bank.kind); }

// Outputs of a column tile: gates and ups are 32 each.
__device__ __forceinline__ int tile_outputs(const DecodeBank& bank) { return gated(bank) ? kColumns / 2 : kColumns; }

__device__ __forceinline__ int column_tiles(const DecodeBank& bank) {
    return (bank.outputs + tile_outputs(bank) - 1) / tile_outputs(bank);
}

// The inputs are added slice by slice, each slice by itself, so that a token has the same bits however slices are dealt to blocks:
// how many there are depends on nothing but the inputs.
struct Slices {
    int stages;
    int count;
    int stages_each;

    __device__ __forceinline__ explicit Slices(int inputs)
        : stages(inputs / kDepth + (inputs % kDepth != 0)),
          count((stages + kSliceStages - 1) / kSliceStages),
          stages_each((stages + count - 1) / max(count, 1)) {}

    __device__ __forceinline__ int first_stage(int slice) const { return min(slice * stages_each, stages); }
};

__device__ __forceinline__ int units_per_tile(const DecodeBank& bank) {
    int slices = Slices(bank.inputs).count;
    return (slices + bank.slices_per_unit - 1) / bank.slices_per_unit;
}

// What a block does at once: a column tile of one row tile's products, in some slices.
struct Unit {
    bool shared;  // bank
    int group;
    int row;  // first
    int rows;
    int column_tile;
    int first_slice;
    int slices;
    bool split;  // whether other units have the other slices
};

// Byte of a chunk within the rows of a stage, as the 128-byte swizzle has it.
__device__ __forceinline__ int swizzled(int row, int chunk) { return row * kRowBytes + (chunk ^ row % kChunks) * 16; }

}  // namespace decode
