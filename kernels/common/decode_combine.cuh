// The last step of the decode path: y[t] = addend[t] + shared[t] + factor * sum_k w[t,k] v[t,k] for the columns of a tile, where v
// are the rows whose parts the down kernel has stored. As in unpermute.cu, but rows are not rounded before they are summed.
#pragma once

#include "decode_bank.cuh"
#include "dtypes.cuh"

namespace decode {

// What a slot adds, kept in shared memory: 6 bytes for each of kMaxRows.
struct Slots {
    static constexpr int kNone = -1;      // nothing
    static constexpr int kIdentity = -2;  // the token's own
    static constexpr int kBytes = kMaxRows * 6;

    float* weights;
    int16_t* rows;

    __device__ __forceinline__ explicit Slots(unsigned char* shared)
        : weights(reinterpret_cast<float*>(shared)), rows(reinterpret_cast<int16_t*>(shared + kMaxRows * 4)) {}

    // By kThreads threads; a barrier of theirs comes after it.
    __device__ __forceinline__ void load(const DecodeCombine& on) const {
        constexpr int batch = 4;
        int count = on.tokens * on.top_k;
        for (int first = static_cast<int>(threadIdx.x); first < count; first += batch * kThreads) {
            float weight[batch];
            int row[batch];
#pragma unroll
            for (int i = 0; i < batch; i++) {
                int slot = first + i * kThreads;
                weight[i] = slot < count && on.weights != nullptr ? on.weights[slot] : 1.0f;
                row[i] = slot < count ? on.slot_to_row[slot] : kNone;
                if (on.identity != nullptr && row[i] >= 0 && on.topk_ids[slot] >= on.first_identity) {
                    row[i] = kIdentity;
                }
            }
#pragma unroll
            for (int i = 0; i < batch; i++) {
                int slot = first + i * kThreads;
                if (slot < count) {
                    weights[slot] = weight[i];
                    rows[slot] = static_cast<int16_t>(weight[i] == 0.0f ? kNone : row[i]);
                }
            }
        }
    }
};

constexpr int kQuad = 4;  // columns of a thread

__device__ __forceinline__ float4 load_part(const DecodeBank& bank, int part, int row, long long width, int column) {
    long long element = (static_cast<long long>(part) * bank.rows + row) * width + column;
    return *reinterpret_cast<const float4*>(bank.parts + element);
}

__device__ __forceinline__ void add(dtypes::Values<kQuad>& sum, const float4& term) {
    sum.at[0] += term.x;
    sum.at[1] += term.y;
    sum.at[2] += term.z;
    sum.at[3] += term.w;
}

// One token's four columns.
class Combine {
public:
    __device__ __forceinline__ Combine(const DecodeCombine& on, const DecodeBank& routed, const DecodeBank& shared, const Slots& slots,
                                       int column)
        : on_(on), routed_(routed), shared_(shared), slots_(slots), column_(column), width_((routed.outputs + kColumns - 1) / kColumns * kColumns) {}

    __device__ __forceinline__ void store(int token) const {
        dtypes::Values<kQuad> sum = routed_sum(token);
        dtypes::Values<kQuad> added = addend(token);
#pragma unroll
        for (int i = 0; i < kQuad; i++) {
            if (column_ + i < routed_.outputs) {
                float y = fmaf(on_.factor, sum.at[i], added.at[i]);
                dtypes::store(on_.y_dtype, on_.y, static_cast<long long>(token) * routed_.outputs + column_ + i, y);
            }
        }
    }

private:
    // Parts on their way together: a token's eight rows in two slices.
    static constexpr int kBatch = 16;

    // A part of one of the token's slots.
    struct Term {
        int slot;
        int part;

        __device__ __forceinline__ void advance(int parts) {
            part++;
            if (part == parts) {
                part = 0;
                slot++;
            }
        }
    };

    __device__ __forceinline__ dtypes::Values<kQuad> routed_sum(int token) const {
        dtypes::Values<kQuad> sum = {};
        dtypes::Values<kQuad> row_sum = {};
        int parts = parts_of(routed_);
        int end = (token + 1) * on_.top_k;
        Term loaded = {token * on_.top_k, 0};
        Term term = loaded;
        while (loaded.slot < end) {
            float4 batch[kBatch];
#pragma unroll
            for (int i = 0; i < kBatch; i++) {
                int row = loaded.slot < end ? slots_.rows[loaded.slot] : Slots::kNone;
                if (row >= 0) {
                    batch[i] = load_part(routed_, loaded.part, row, width_, column_);
                }
                loaded.advance(parts);
            }
#pragma unroll
            for (int i = 0; i < kBatch; i++) {
                int row = term.slot < end ? slots_.rows[term.slot] : Slots::kNone;
                if (row >= 0) {
                    add(row_sum, batch[i]);
                }
                if (row != Slots::kNone && term.part == parts - 1) {
                    add_row(sum, row_sum, token, term.slot, row == Slots::kIdentity);
                    row_sum = {};
                }
                term.advance(parts);
            }
        }
        return sum;
    }

    // A slot's row is complete.
    __device__ __forceinline__ void add_row(dtypes::Values<kQuad>& sum, const dtypes::Values<kQuad>& row_sum, int token, int slot,
                                            bool identity) const {
        long long bias_row = routed_.bias == nullptr || identity ? 0 : static_cast<long long>(on_.topk_ids[slot]) * routed_.outputs;
#pragma unroll
        for (int i = 0; i < kQuad; i++) {
            if (column_ + i < routed_.outputs) {
                float value = row_sum.at[i];
                if (identity) {
                    value = element(on_.identity_dtype, on_.identity, token, i);
                } else if (routed_.bias != nullptr) {
                    value += routed_.bias[bias_row + column_ + i];
                }
                sum.at[i] = fmaf(slots_.weights[slot], value, sum.at[i]);
            }
        }
    }

    // The addend and the shared expert's row.
    __device__ __forceinline__ dtypes::Values<kQuad> addend(int token) const {
        dtypes::Values<kQuad> sum = {};
        if (on_.addend != nullptr) {
#pragma unroll
            for (int i = 0; i < kQuad; i++) {
                sum.at[i] = column_ + i < routed_.outputs ? element(on_.addend_dtype, on_.addend, on_.addend_rows == 1 ? 0 : token, i) : 0.0f;
            }
        }
        if (shared_.groups == 0 || token >= shared_.expert_offsets[1]) {
            return sum;
        }
        float weight = on_.shared_weights == nullptr ? 1.0f : on_.shared_weights[token];
        dtypes::Values<kQuad> row = {};
#pragma unroll 4
        for (int part = 0; part < parts_of(shared_); part++) {
            add(row, load_part(shared_, part, token, width_, column_));
        }
#pragma unroll
        for (int i = 0; i < kQuad; i++) {
            if (column_ + i < routed_.outputs) {
                float value = row.at[i] + (shared_.bias == nullptr ? 0.0f : shared_.bias[column_ + i]);
                sum.at[i] = weight == 0.0f ? sum.at[i] : fmaf(weight, value, sum.at[i]);
            }
        }
        return sum;
    }

    __device__ __forceinline__ float element(int dtype, const void* rows, int row, int i) const {
        return dtypes::load<1>(dtype, rows, static_cast<long long>(row) * routed_.outputs + column_ + i).at[0];
    }

    static __device__ __forceinline__ int parts_of(const DecodeBank& bank) {
        return units_per_tile(bank) > 1 ? Slices(bank.inputs).count : 1;
    }

    const DecodeCombine& on_;
    const DecodeBank& routed_;
    const DecodeBank& shared_;
    const Slots& slots_;
    int column_;
    long long width_;
};

// All tokens' columns of a tile, by kThreads threads.
__device__ __forceinline__ void combine(const DecodeCombine& on, const DecodeBank& routed, const DecodeBank& shared, const Slots& slots,
                                        int column_tile) {
    constexpr int kQuads = kColumns / kQuad;
    int column = column_tile * kColumns + static_cast<int>(threadIdx.x) % kQuads * kQuad;
    if (column >= routed.outputs) {
        return;
    }
    Combine columns(on, routed, shared, slots, column);
    for (int token = static_cast<int>(threadIdx.x) / kQuads; token < on.tokens; token += kThreads / kQuads) {
        columns.store(token);
    }
}

}  // namespace decode
