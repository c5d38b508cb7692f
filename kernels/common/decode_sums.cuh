// What four warps of the decode path do with the sums of a unit. Thread t of them holds in sums[4 j + 2 h + e] row 16 (t / 32) +
// t % 32 / 4 + 8 h of the column tile's weight and row 8 j + 2 (t % 4) + e of the row tile, after wgmma as after mma.sync. With a
// gated activation the weight's rows lie there as 8 gates and their 8 ups in turn, so that a thread holds both of an output.
#pragma once

#include "decode_bank.cuh"
#include "dtypes.cuh"

namespace decode {

using dtypes::Values;

// A thread's place in the column tile; h adds 8.
__device__ __forceinline__ int weight_row() { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; }

// A thread's place in the row tile.
__device__ __forceinline__ int tile_row(int block, int e) { return block * 8 + threadIdx.x % 4 * 2 + e; }

// Where a slice's part of a row begins.
__device__ __forceinline__ float* part_row(const DecodeBank& bank, int slice, int row, int column_tile) {
    long long width = static_cast<long long>(column_tiles(bank)) * kColumns;
    return bank.parts + (static_cast<long long>(slice) * bank.rows + row) * width + column_tile * kColumns;
}

template <int count>
__device__ __forceinline__ void store_part(const DecodeBank& bank, const Unit& unit, int slice, const float (&sums)[count]) {
#pragma unroll
    for (int block = 0; block < count / 4; block++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int row = tile_row(block, e);
            if (row < unit.rows) {
                float* part = part_row(bank, slice, unit.row + row, unit.column_tile) + weight_row();
                part[0] = sums[block * 4 + e];
                part[8] = sums[block * 4 + 2 + e];
            }
        }
    }
}

// Adds the parts of all slices, which other blocks may have stored, in their order.
template <int count>
__device__ __forceinline__ void add_parts(const DecodeBank& bank, const Unit& unit, float (&sums)[count]) {
    int slices = Slices(bank.inputs).count;
#pragma unroll
    for (int i = 0; i < count; i++) {
        sums[i] = 0.0f;
    }
    // Few rows leave few loads in each slice, so that several slices have to be on their way.
#pragma unroll(count <= 8 ? 4 : 1)
    for (int slice = 0; slice < slices; slice++) {
#pragma unroll
        for (int block = 0; block < count / 4; block++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int row = tile_row(block, e);
                if (row < unit.rows) {
                    const float* part = part_row(bank, slice, unit.row + row, unit.column_tile) + weight_row();
                    sums[block * 4 + e] += part[0];
                    sums[block * 4 + 2 + e] += part[8];
                }
            }
        }
    }
}

// Weighs the sums of x by slot.
template <int count>
__device__ __forceinline__ void weigh(const DecodeBank& bank, const Unit& unit, float (&sums)[count]) {
    if (bank.slot_weights == nullptr) {
        return;
    }
#pragma unroll
    for (int block = 0; block < count / 4; block++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int row = tile_row(block, e);
            if (row < unit.rows) {
                row += unit.row;
                float weight = bank.slot_weights[bank.row_to_slot == nullptr ? row : bank.row_to_slot[row]];
                sums[block * 4 + e] *= weight;
                sums[block * 4 + 2 + e] *= weight;
            }
        }
    }
}

// The sums of one of a thread's two weight rows, with its bias.
template <int count>
__device__ __forceinline__ Values<count / 2> biased(const float (&sums)[count], int h, float bias) {
    Values<count / 2> values;
#pragma unroll
    for (int i = 0; i < count / 2; i++) {
        values.at[i] = sums[i / 2 * 4 + h * 2 + i % 2] + bias;
    }
    return values;
}

template <class T, int count>
__device__ __forceinline__ void store_output(const DecodeBank& bank, const Unit& unit, int output, const Values<count>& values) {
    if (output >= bank.outputs) {
        return;
    }
    typename T::Bits* y = static_cast<typename T::Bits*>(bank.y);
#pragma unroll
    for (int i = 0; i < count; i++) {
        int row = tile_row(i / 2, i % 2);
        if (row < unit.rows) {
            y[static_cast<long long>(unit.row + row) * bank.outputs + output] = T::encode(values.at[i]);
        }
    }
}

// Bias, activation, and the outputs into hidden. Their bytes are so few beside the weight's that single elements do.
template <class T, int count>
__device__ __forceinline__ void store_hidden(const DecodeBank& bank, const Unit& unit, float (&sums)[count]) {
    weigh(bank, unit, sums);
    int first = unit.column_tile * tile_outputs(bank);
    const float* bias = bank.bias;
    if (gated(bank)) {
        int output = first + threadIdx.x / 32 * 8 + threadIdx.x % 32 / 4;
        bool exists = output < bank.outputs;
        long long gate_row = static_cast<long long>(unit.group) * 2 * bank.outputs + output;
        Values<count / 2> gate = biased(sums, 0, bias != nullptr && exists ? bias[gate_row] : 0.0f);
        Values<count / 2> up = biased(sums, 1, bias != nullptr && exists ? bias[gate_row + bank.outputs] : 0.0f);
        activation::activate_16_bits(bank.kind, bank.limit, gate, up);
        store_output<T>(bank, unit, output, up);
        return;
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int output = first + weight_row() + h * 8;
        bool exists = output < bank.outputs;
        long long row = static_cast<long long>(unit.group) * bank.outputs + output;
        Values<count / 2> values = biased(sums, h, bias != nullptr && exists ? bias[row] : 0.0f);
        if (bank.kind >= 0) {
            activation::activate<count / 2>(bank.kind, bank.limit, values, values);
        }
        store_output<T>(bank, unit, output, values);
    }
}

}  // namespace decode
