// The experts of the decode path behind their router, as its check programs pose them, what plain loops make of them, and how both
// are compared.
#pragma once

#include <memory>

#include "common/decode_bank.cuh"
#include "grouped_gemm_problem.h"
#include "ptx_tensor_map.h"

namespace decode_layer {

using namespace activation_definition;
using grouped_gemm::kLimit;
using host::Array;
using host::Floats;
using host::Type;
using std::to_string;

constexpr int kUnsplit = 1 << 20;

// A layer behind its router. Every token chooses top_k of the experts at random, some nothing.
struct Layer {
    int tokens;
    int experts;
    int top_k;
    int hidden;
    int intermediate;
    Kind kind = kSwiglu;
    int shared = 0;             // intermediate of the shared expert, 0 for none
    bool biased = false;
    bool weight_on_input = false;
    int identities = 0;         // experts behind the others
    int crowd = 0;              // tokens that choose the first experts
    int missing = 0;            // of each hundred slots
    int misaligned = 0;         // elements, of the weights
    bool addend = false;
    bool shared_weights = false;
    Type y_type = host::kF32;

    bool gated() const { return is_gated(kind); }
    int parts() const { return gated() ? 2 : 1; }
    int slots() const { return tokens * top_k; }

    std::string name() const {
        return "T=" + to_string(tokens) + " E=" + to_string(experts) + "+" + to_string(identities) + " k=" + to_string(top_k) +
               " H=" + to_string(hidden) + " I=" + to_string(intermediate) + " shared " + to_string(shared) + " kind " +
               to_string(kind) + " offset " + to_string(misaligned);
    }
};

// How it is dealt to blocks.
struct Deal {
    unsigned blocks;
    int slices_per_unit;

    std::string name() const { return to_string(blocks) + " blocks, slices by " + to_string(slices_per_unit); }
};

inline std::vector<int> choose(const Layer& layer, host::Numbers& numbers) {
    int experts = layer.experts + layer.identities;
    std::vector<int> ids;
    for (int token = 0; token < layer.tokens; token++) {
        std::vector<int> all(experts);
        for (int expert = 0; expert < experts; expert++) {
            all[expert] = expert;
            std::swap(all[expert], all[token < layer.crowd ? expert : numbers.below(expert + 1)]);
        }
        for (int k = 0; k < layer.top_k; k++) {
            ids.push_back(numbers.below(100) < layer.missing ? -1 : all[k]);
        }
    }
    return ids;
}

// Slots in the order of experts.
struct Sorted {
    std::vector<int> offsets = {0};
    std::vector<int> row_to_slot;
    std::vector<int> slot_to_row;

    Sorted(const std::vector<int>& ids, int experts) : slot_to_row(ids.size(), -1) {
        for (int expert = 0; expert < experts; expert++) {
            for (size_t slot = 0; slot < ids.size(); slot++) {
                if (ids[slot] == expert) {
                    slot_to_row[slot] = static_cast<int>(row_to_slot.size());
                    row_to_slot.push_back(static_cast<int>(slot));
                }
            }
            offsets.push_back(static_cast<int>(row_to_slot.size()));
        }
    }
};

inline std::vector<float> floats(int count, host::Numbers& numbers) {
    std::vector<float> values(count);
    for (float& value : values) {
        value = static_cast<float>(numbers.normal());
    }
    return values;
}

struct Weights {
    Floats gate_up;
    Floats down;
    Array<float> gate_up_bias;
    Array<float> down_bias;

    Weights(const Layer& layer, int experts, int intermediate, Type type, host::Numbers& numbers)
        : gate_up(type, numbers.normals(size_t(experts) * layer.parts() * intermediate * layer.hidden), layer.misaligned),
          down(type, numbers.normals(size_t(experts) * layer.hidden * intermediate), layer.misaligned),
          gate_up_bias(floats(experts * layer.parts() * intermediate, numbers)),
          down_bias(floats(experts * layer.hidden, numbers)) {}
};

// What both kernels work on.
struct Pass {
    const Layer& layer;
    Type type;
    host::Numbers numbers;
    std::vector<int> ids;
    Sorted sorted;
    Floats x;
    Weights routed;
    Weights shared;
    Array<int> topk_ids;
    Array<int> tokens_per_expert;
    Array<int> offsets;
    Array<int> row_to_slot;
    Array<int> slot_to_row;
    Array<int> shared_offsets;
    Array<float> weights;
    Array<float> shared_weights;
    Floats addend;
    Floats identity;

    Pass(const Layer& layer, Type type)
        : layer(layer),
          type(type),
          numbers(layer.hidden * 1000 + layer.intermediate),
          ids(choose(layer, numbers)),
          sorted(ids, layer.experts + layer.identities),
          x(type, numbers.normals(size_t(layer.tokens) * layer.hidden)),
          routed(layer, layer.experts, layer.intermediate, type, numbers),
          shared(layer, 1, std::max(1, layer.shared), type, numbers),
          topk_ids(ids),
          tokens_per_expert(layer.experts + layer.identities),
          offsets(sorted.offsets.size()),
          row_to_slot(layer.slots()),
          slot_to_row(layer.slots()),
          shared_offsets(std::vector<int>{0, layer.tokens}),
          weights(floats(layer.slots(), numbers)),
          shared_weights(floats(layer.tokens, numbers)),
          addend(host::kBF16, numbers.normals(size_t(layer.hidden) * layer.tokens)),
          identity(host::kF32, numbers.normals(size_t(layer.hidden) * layer.tokens)) {}

    int routed_rows() const { return sorted.offsets[layer.experts]; }
};

// Memory that the host of the kernels has to have ready.
struct Scratch {
    std::vector<std::unique_ptr<Array<float>>> parts;
    std::vector<std::unique_ptr<Array<unsigned>>> arrivals;

    float* parts_of(size_t count) {
        parts.push_back(std::make_unique<Array<float>>(count));
        return parts.back()->data();
    }

    unsigned* arrivals_of(size_t count) {
        arrivals.push_back(std::make_unique<Array<unsigned>>(std::vector<unsigned>(count, 0)));
        return arrivals.back()->data();
    }

    bool all_zero() const {
        for (const auto& counters : arrivals) {
            for (unsigned counter : counters->values()) {
                if (counter != 0) {
                    return false;
                }
            }
        }
        return true;
    }
};

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

inline int slices_of(int inputs) { return ceil_div(ceil_div(inputs, 64), 8); }

inline DecodeBank bank_of(const Pass& pass, const Deal& deal, Scratch& scratch, const Floats& hidden, bool shared, bool down) {
    const Layer& layer = pass.layer;
    const Weights& weights = shared ? pass.shared : pass.routed;
    int intermediate = shared ? layer.shared : layer.intermediate;
    DecodeBank bank = {};
    if (intermediate == 0) {
        return bank;
    }
    bank.weight = (down ? weights.down : weights.gate_up).data();
    bank.bias = layer.biased ? (down ? weights.down_bias : weights.gate_up_bias).data() : nullptr;
    bank.expert_offsets = (shared ? pass.shared_offsets : pass.offsets).data();
    bank.row_to_slot = shared || down ? nullptr : pass.row_to_slot.data();
    bank.slot_weights = !shared && !down && layer.weight_on_input ? pass.weights.data() : nullptr;
    bank.x = down ? hidden.data() : pass.x.data();
    bank.y = down ? nullptr : hidden.data();
    bank.rows = shared ? layer.tokens : layer.slots();
    bank.groups = shared ? 1 : layer.experts;
    bank.outputs = down ? layer.hidden : intermediate;
    bank.inputs = down ? intermediate : layer.hidden;
    bank.top_k = layer.top_k;
    int slices = slices_of(bank.inputs);
    bank.slices_per_unit = std::min(deal.slices_per_unit, slices);
    bank.kind = down ? kNone : static_cast<int>(layer.kind);
    bank.limit = kLimit;
    bool split = bank.slices_per_unit < slices;
    int tiles = ceil_div(bank.outputs, !down && layer.gated() ? 32 : 64);
    if (split || down) {
        bank.parts = scratch.parts_of(size_t(split ? slices : 1) * bank.rows * tiles * 64);
    }
    if (split && !down) {
        bank.arrivals = scratch.arrivals_of(size_t(bank.rows) * tiles);
    }
    return bank;
}

inline ptx::TensorMap map_of(const DecodeBank& bank, Type type) {
    uint64_t inputs = static_cast<uint64_t>(bank.inputs);
    uint64_t outputs = static_cast<uint64_t>(bank.outputs);
    uint64_t groups = static_cast<uint64_t>(bank.groups);
    bool gated = is_gated(bank.kind);
    uint64_t gated_dims[] = {inputs, 8, 2, outputs / 8, groups};
    uint64_t gated_strides[] = {2 * inputs, 2 * outputs * inputs, 16 * inputs, 4 * outputs * inputs};
    uint32_t gated_box[] = {64, 8, 2, 4, 1};
    uint64_t dims[] = {inputs, outputs, groups};
    uint64_t strides[] = {2 * inputs, 2 * outputs * inputs};
    uint32_t box[] = {64, 64, 1};
    uint32_t element_strides[] = {1, 1, 1, 1, 1};
    emulator::TensorMapRequest request;
    request.type = type == host::kF16 ? 6 : 9;
    request.rank = gated ? 5 : 3;
    request.address = const_cast<void*>(bank.weight);
    request.dims = gated ? gated_dims : dims;
    request.strides = gated ? gated_strides : strides;
    request.box = gated ? gated_box : box;
    request.element_strides = element_strides;
    request.swizzle = 3;
    ptx::TensorMap map;
    std::string refusal = emulator::encode_tensor_map(&map, request);
    if (!refusal.empty()) {
        check::report("tensor map", false, refusal);
    }
    return map;
}

inline std::string kernel_name(const char* step, bool sm90, Type type) {
    return std::string("decode_") + step + (sm90 ? "_sm90_" : "_mma_") + host::name_of(type);
}

// What a router does last.
inline std::string run_sort(const Pass& pass, host::Stream& stream) {
    return stream.run("sort_by_expert_small", {1}, pass.topk_ids.input(), pass.tokens_per_expert.data(), pass.offsets.data(),
                      pass.row_to_slot.data(), pass.slot_to_row.data(), pass.layer.slots(),
                      pass.layer.experts + pass.layer.identities);
}

inline std::string run_gate_up(const Pass& pass, host::Stream& stream, bool sm90, const Deal& deal, Scratch& scratch, const Floats& hidden, const Floats& shared_hidden) {
    DecodeBank routed = bank_of(pass, deal, scratch, hidden, false, false);
    DecodeBank shared = bank_of(pass, deal, scratch, shared_hidden, true, false);
    std::string kernel = kernel_name("gate_up", sm90, pass.type);
    if (!sm90) {
        return stream.run(kernel, {deal.blocks}, routed, shared);
    }
    ptx::TensorMap routed_map = map_of(routed, pass.type);
    ptx::TensorMap shared_map = shared.groups > 0 ? map_of(shared, pass.type) : routed_map;
    DecodePrefetch next = {pass.routed.down.data(), pass.layer.hidden, pass.layer.intermediate, 2, 0};
    return stream.run(kernel, {deal.blocks}, routed_map, shared_map, routed, shared, next);
}

inline std::string run_down(const Pass& pass, host::Stream& stream, bool sm90, const Deal& deal, Scratch& scratch, const Floats& hidden, const Floats& shared_hidden,
                     const Floats& y) {
    const Layer& layer = pass.layer;
    DecodeBank routed = bank_of(pass, deal, scratch, hidden, false, true);
    DecodeBank shared = bank_of(pass, deal, scratch, shared_hidden, true, true);
    DecodeCombine combine = {};
    combine.slot_to_row = pass.slot_to_row.data();
    combine.topk_ids = pass.topk_ids.data();
    combine.weights = layer.weight_on_input ? nullptr : pass.weights.data();
    combine.shared_weights = layer.shared_weights ? pass.shared_weights.data() : nullptr;
    combine.addend = layer.addend ? pass.addend.data() : nullptr;
    combine.identity = layer.identities > 0 ? pass.identity.data() : nullptr;
    combine.y = y.data();
    combine.arrivals = scratch.arrivals_of(ceil_div(layer.hidden, 64));
    combine.tokens = layer.tokens;
    combine.top_k = layer.top_k;
    combine.addend_dtype = pass.addend.type();
    combine.addend_rows = layer.tokens % 2 == 0 ? 1 : layer.tokens;
    combine.identity_dtype = pass.identity.type();
    combine.first_identity = layer.experts;
    combine.y_dtype = y.type();
    combine.factor = 1.5f;
    std::string kernel = kernel_name("down", sm90, pass.type);
    if (!sm90) {
        return stream.run(kernel, {deal.blocks}, routed, shared, combine);
    }
    ptx::TensorMap routed_map = map_of(routed, pass.type);
    ptx::TensorMap shared_map = shared.groups > 0 ? map_of(shared, pass.type) : routed_map;
    return stream.run(kernel, {deal.blocks}, routed_map, shared_map, routed, shared, combine);
}

inline double dot(const Floats& x, size_t x_row, const Floats& weight, size_t weight_row, int inputs) {
    double sum = 0;
    for (int i = 0; i < inputs; i++) {
        sum += x.at(x_row * inputs + i) * weight.at(weight_row * inputs + i);
    }
    return sum;
}

// hidden of one bank: [rows, intermediate].
inline std::vector<double> expected_hidden(const Pass& pass, bool shared) {
    const Layer& layer = pass.layer;
    const Weights& weights = shared ? pass.shared : pass.routed;
    int outputs = shared ? layer.shared : layer.intermediate;
    int rows = shared ? layer.tokens : pass.routed_rows();
    std::vector<double> hidden;
    for (int row = 0; row < rows; row++) {
        int slot = shared ? row : pass.sorted.row_to_slot[row];
        size_t token = shared ? row : slot / layer.top_k;
        size_t expert = shared ? 0 : pass.ids[slot];
        double weight = shared || !layer.weight_on_input ? 1 : pass.weights.at(slot);
        for (int output = 0; output < outputs; output++) {
            double values[2];
            for (int part = 0; part < 2; part++) {
                size_t weight_row = (expert * layer.parts() + part % layer.parts()) * outputs + output;
                values[part] = weight * dot(pass.x, token, weights.gate_up, weight_row, layer.hidden);
                values[part] += layer.biased ? weights.gate_up_bias.at(weight_row) : 0;
            }
            hidden.push_back(activate(layer.kind, kLimit, values[0], values[1]));
        }
    }
    return hidden;
}

inline std::vector<double> expected_y(const Pass& pass, const Floats& hidden, const Floats& shared_hidden) {
    const Layer& layer = pass.layer;
    std::vector<double> y;
    for (int token = 0; token < layer.tokens; token++) {
        for (int column = 0; column < layer.hidden; column++) {
            double sum = 0;
            for (int k = 0; k < layer.top_k; k++) {
                int slot = token * layer.top_k + k;
                int id = pass.ids[slot];
                double weight = layer.weight_on_input ? 1 : pass.weights.at(slot);
                if (id >= layer.experts) {
                    sum += weight * pass.identity.at(size_t(token) * layer.hidden + column);
                } else if (id >= 0) {
                    size_t weight_row = size_t(id) * layer.hidden + column;
                    double value = dot(hidden, pass.sorted.slot_to_row[slot], pass.routed.down, weight_row, layer.intermediate);
                    sum += weight * (value + (layer.biased ? pass.routed.down_bias.at(weight_row) : 0));
                }
            }
            double added = 0;
            if (layer.addend) {
                added += pass.addend.at(size_t(layer.tokens % 2 == 0 ? 0 : token) * layer.hidden + column);
            }
            if (layer.shared > 0) {
                double value = dot(shared_hidden, token, pass.shared.down, column, layer.shared);
                value += layer.biased ? pass.shared.down_bias.at(column) : 0;
                added += (layer.shared_weights ? pass.shared_weights.at(token) : 1) * value;
            }
            y.push_back(added + 1.5 * sum);
        }
    }
    return y;
}

inline std::vector<unsigned char> bytes_of(const Floats& values, size_t count) {
    const unsigned char* bytes = static_cast<const unsigned char*>(values.data());
    return {bytes, bytes + count * host::bytes_of(values.type())};
}

// Every way of dealing gives the same bits; the first is compared with the plain loops, and run twice on the same counters.
inline void check_family(const Pass& pass, bool sm90, const std::vector<Deal>& deals) {
    const Layer& layer = pass.layer;
    std::vector<unsigned char> hidden_bits;
    std::vector<unsigned char> y_bits;
    for (const Deal& deal : deals) {
        std::string name = std::string(sm90 ? "sm90 " : "mma ") + host::name_of(pass.type) + " " + layer.name() + " " + deal.name();
        Floats hidden(pass.type, size_t(layer.slots()) * layer.intermediate);
        Floats shared_hidden(pass.type, size_t(layer.tokens) * std::max(1, layer.shared));
        Floats y(layer.y_type, size_t(layer.tokens) * layer.hidden);
        Scratch scratch;
        std::vector<double> want = expected_hidden(pass, false);
        host::Stream stream;
        std::string why = run_sort(pass, stream);
        why = why.empty() ? run_gate_up(pass, stream, sm90, deal, scratch, hidden, shared_hidden) : why;
        why = why.empty() ? host::compare(hidden, want, 4.0 * layer.hidden + 16) : why;
        if (why.empty() && layer.shared > 0) {
            why = host::compare(shared_hidden, expected_hidden(pass, true), 4.0 * layer.hidden + 16);
        }
        if (why.empty() && !hidden.untouched_from(want.size())) {
            why = "wrote behind the last row";
        }
        if (why.empty() && !scratch.all_zero()) {
            why = "left counters that are not 0";
        }
        host::report("gate_up " + name, why);
        std::vector<unsigned char> bits = bytes_of(hidden, want.size());
        hidden_bits = hidden_bits.empty() ? bits : hidden_bits;
        host::report("bits of gate_up " + name, bits == hidden_bits ? "" : "others than before");
        why = run_down(pass, stream, sm90, deal, scratch, hidden, shared_hidden, y);
        why = why.empty() ? host::compare(y, expected_y(pass, hidden, shared_hidden), layer.top_k * layer.intermediate + layer.shared + 1) : why;
        if (why.empty() && !scratch.all_zero()) {
            why = "left counters that are not 0";
        }
        host::report("down " + name, why);
        bits = bytes_of(y, y.size());
        y_bits = y_bits.empty() ? bits : y_bits;
        host::report("bits of down " + name, bits == y_bits ? "" : "others than before");
    }
}

inline void check_layers(bool sm90, const std::vector<Layer>& layers) {
    int round = 0;
    for (const Layer& layer : layers) {
        Pass pass(layer, grouped_gemm::kHalfTypes[round++ % 2]);
        check_family(pass, sm90, {{5, kUnsplit}, {3, 1}, {40, 2}});
    }
}

// What both families take.
inline std::vector<Layer> common_layers() {
    return {
        {.tokens = 1, .experts = 8, .top_k = 2, .hidden = 64, .intermediate = 32},
        {.tokens = 1, .experts = 12, .top_k = 3, .hidden = 520, .intermediate = 520, .shared = 64, .y_type = host::kBF16},
        {.tokens = 2, .experts = 4, .top_k = 1, .hidden = 1032, .intermediate = 16, .biased = true},
        // Nobody chooses anything.
        {.tokens = 3, .experts = 4, .top_k = 1, .hidden = 136, .intermediate = 40, .missing = 100, .addend = true},
        // Row tiles of every width, several of one expert, and more groups than a block has threads.
        {.tokens = 9, .experts = 3, .top_k = 2, .hidden = 600, .intermediate = 72, .kind = kClampedSwiglu, .biased = true, .crowd = 9},
        {.tokens = 20, .experts = 3, .top_k = 1, .hidden = 72, .intermediate = 520, .biased = true, .weight_on_input = true, .crowd = 17},
        {.tokens = 70, .experts = 4, .top_k = 2, .hidden = 80, .intermediate = 48, .crowd = 67, .missing = 10, .y_type = host::kF16},
        {.tokens = 33, .experts = 300, .top_k = 4, .hidden = 72, .intermediate = 24, .shared = 40, .biased = true, .shared_weights = true},
        // Other activations, identity experts, the addend's forms.
        {.tokens = 4, .experts = 5, .top_k = 3, .hidden = 200, .intermediate = 104, .kind = kSilu, .identities = 3, .addend = true},
        {.tokens = 5, .experts = 5, .top_k = 3, .hidden = 136, .intermediate = 136, .kind = kRelu, .shared = 72, .biased = true, .identities = 2, .addend = true},
        {.tokens = 2, .experts = 6, .top_k = 6, .hidden = 64, .intermediate = 64, .kind = kSquaredRelu, .missing = 30},
        {.tokens = 3, .experts = 4, .top_k = 2, .hidden = 72, .intermediate = 40, .kind = kGelu, .biased = true},
        {.tokens = 2, .experts = 4, .top_k = 2, .hidden = 64, .intermediate = 48, .kind = kGeglu, .shared = 40},
        {.tokens = 5, .experts = 3, .top_k = 2, .hidden = 64, .intermediate = 40, .kind = kGegluTanh, .biased = true},
        {.tokens = 1, .experts = 3, .top_k = 1, .hidden = 64, .intermediate = 32, .kind = kGlu},
        {.tokens = 3, .experts = 6, .top_k = 2, .hidden = 64, .intermediate = 64, .kind = kNone},
    };
}

}  // namespace decode_layer
