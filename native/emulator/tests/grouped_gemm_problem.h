// Grouped products with gathered rows, slot weights, bias and activation, as the check programs of their kernels pose them, and what
// plain loops make of them.
#pragma once

#include "activation_definition.h"
#include "kernels_host.h"

namespace grouped_gemm {

using host::Array;
using host::Floats;
using host::Type;
using std::to_string;

using namespace activation_definition;

constexpr float kLimit = 0.75f;
constexpr Type kHalfTypes[] = {host::kF16, host::kBF16};

struct Problem {
    std::vector<int> counts;  // rows of each group
    int outputs;
    int inputs;
    Kind kind = kNone;
    bool biased = false;  // and weighted, if gathered
    int top_k = 0;       // 0 if rows are not gathered
    int misaligned = 0;  // elements
    int spare_rows = 0;  // behind the last offset
    unsigned blocks = 5;
    bool transposed = false;

    bool weighted() const { return biased && top_k > 0; }
    int groups() const { return static_cast<int>(counts.size()); }
    int parts() const { return is_gated(kind) ? 2 : 1; }

    std::vector<int> offsets() const {
        std::vector<int> all = {0};
        for (int count : counts) {
            all.push_back(all.back() + count);
        }
        return all;
    }

    std::string name() const {
        return "groups " + to_string(groups()) + " rows " + to_string(offsets().back()) + " N=" + to_string(outputs) +
               " K=" + to_string(inputs) + " kind " + to_string(kind) + " top_k " + to_string(top_k) + " offset " +
               to_string(misaligned) + " blocks " + to_string(blocks) + (transposed ? " transposed" : "");
    }
};

struct Inputs {
    Array<int> offsets;
    Array<int> row_to_slot;
    Array<float> slot_weights;
    Floats x;
    Floats weight;
    Array<float> bias;

    Inputs(const Problem& problem, Type type, host::Numbers numbers)
        : offsets(problem.offsets()),
          row_to_slot(slots(problem, numbers)),
          slot_weights(floats(problem.offsets().back(), numbers)),
          x(type, x_values(problem, numbers), problem.misaligned),
          weight(type, numbers.normals(static_cast<size_t>(problem.groups()) * columns(problem) * problem.inputs),
                 problem.misaligned),
          bias(floats(problem.groups() * columns(problem), numbers)) {}

    static int columns(const Problem& problem) { return problem.parts() * problem.outputs; }

    // Some order of the slots; those behind the last offset are no slots at all.
    static std::vector<int> slots(const Problem& problem, host::Numbers& numbers) {
        int rows = problem.offsets().back();
        std::vector<int> all(rows + problem.spare_rows, -1000000);
        for (int row = 0; row < rows; row++) {
            all[row] = row;
            std::swap(all[row], all[numbers.below(row + 1)]);
        }
        return all;
    }

    // What lies behind the last offset belongs to nobody.
    static std::vector<double> x_values(const Problem& problem, host::Numbers& numbers) {
        int rows = problem.offsets().back();
        size_t used = problem.top_k == 0 ? rows : (rows + problem.top_k - 1) / problem.top_k;
        std::vector<double> values = numbers.normals(used * problem.inputs);
        values.resize(values.size() + static_cast<size_t>(problem.spare_rows) * problem.inputs, NAN);
        return values;
    }

    static std::vector<float> floats(int count, host::Numbers& numbers) {
        std::vector<float> values(count);
        for (float& value : values) {
            value = static_cast<float>(numbers.normal());
        }
        return values;
    }
};

inline double product(const Problem& problem, const Inputs& in, int row, size_t column) {
    int slot = problem.top_k == 0 ? row : in.row_to_slot.at(row);
    size_t x_row = slot / std::max(1, problem.top_k);
    double sum = 0;
    for (int k = 0; k < problem.inputs; k++) {
        size_t element = column * problem.inputs + k;
        if (problem.transposed) {
            size_t group = column / problem.outputs;
            element = (group * problem.inputs + k) * problem.outputs + column % problem.outputs;
        }
        sum += in.x.at(x_row * problem.inputs + k) * in.weight.at(element);
    }
    double weighted = problem.weighted() ? in.slot_weights.at(slot) * sum : sum;
    return problem.biased ? weighted + in.bias.at(column) : weighted;
}

inline std::vector<double> expected(const Problem& problem, const Inputs& in) {
    std::vector<double> y;
    std::vector<int> offsets = problem.offsets();
    for (int group = 0; group < problem.groups(); group++) {
        for (int row = offsets[group]; row < offsets[group + 1]; row++) {
            for (int output = 0; output < problem.outputs; output++) {
                size_t first = static_cast<size_t>(group) * problem.parts() * problem.outputs + output;
                double gate = product(problem, in, row, first);
                double up = problem.parts() == 2 ? product(problem, in, row, first + problem.outputs) : gate;
                y.push_back(activate(problem.kind, kLimit, gate, up));
            }
        }
    }
    return y;
}

// An activation adds errors of a few units, which the clamped product squares.
inline double reduction(const Problem& problem) {
    return problem.kind == kNone ? problem.inputs + 1 : 4.0 * problem.inputs + 16;
}

}  // namespace grouped_gemm
