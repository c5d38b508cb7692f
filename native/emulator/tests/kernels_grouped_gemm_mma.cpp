// The grouped product on matrix units, with gathered rows and activation, against plain loops.
#include "kernels_host.h"

namespace {

using host::Array;
using host::Floats;
using host::Type;
using std::to_string;

// Ordinals of Activation.Kind, and none.
enum Kind { kNone = -1, kSwiglu, kClampedSwiglu, kSilu, kRelu, kSquaredRelu };

constexpr float kLimit = 0.75f;
const std::vector<std::string> kTiles = {"_16", "_64", "_128"};
const std::vector<std::string> kTransposedTiles = {"_64_transposed", "_128_transposed"};
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
    int parts() const { return kind == kSwiglu || kind == kClampedSwiglu ? 2 : 1; }

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

std::string run(const std::string& kernel, const Problem& problem, const Inputs& in, const Floats& y) {
    int rows = problem.offsets().back() + problem.spare_rows;
    return host::launch(kernel, {problem.blocks}, in.x.data(), problem.top_k == 0 ? nullptr : in.row_to_slot.input(),
                        problem.weighted() ? in.slot_weights.data() : nullptr, in.weight.data(), problem.biased ? in.bias.data() : nullptr, in.offsets.data(), y.data(), rows,
                        problem.groups(), problem.outputs, problem.inputs, std::max(1, problem.top_k),
                        static_cast<int>(y.type()), static_cast<int>(problem.kind), kLimit);
}

double sigmoid_product(double x, double slope) { return x / (1 + std::exp(-slope * x)); }

double activate(Kind kind, double gate, double up) {
    switch (kind) {
        case kSwiglu:
            return sigmoid_product(gate, 1) * up;
        case kClampedSwiglu:
            return sigmoid_product(std::min<double>(gate, kLimit), 1.702) * (std::clamp<double>(up, -kLimit, kLimit) + 1);
        case kSilu:
            return sigmoid_product(up, 1);
        case kRelu:
            return std::max(up, 0.0);
        case kSquaredRelu:
            return std::max(up, 0.0) * std::max(up, 0.0);
        default:
            return up;
    }
}

double product(const Problem& problem, const Inputs& in, int row, size_t column) {
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

std::vector<double> expected(const Problem& problem, const Inputs& in) {
    std::vector<double> y;
    std::vector<int> offsets = problem.offsets();
    for (int group = 0; group < problem.groups(); group++) {
        for (int row = offsets[group]; row < offsets[group + 1]; row++) {
            for (int output = 0; output < problem.outputs; output++) {
                size_t first = static_cast<size_t>(group) * problem.parts() * problem.outputs + output;
                double gate = product(problem, in, row, first);
                double up = problem.parts() == 2 ? product(problem, in, row, first + problem.outputs) : gate;
                y.push_back(activate(problem.kind, gate, up));
            }
        }
    }
    return y;
}

// Every size of tiles, and that they agree bit by bit.
void check_product(const Problem& problem, Type type, Type y_type) {
    Inputs in(problem, type, host::Numbers(problem.inputs * 1000 + problem.outputs));
    std::vector<double> want = expected(problem, in);
    size_t size = want.size() + static_cast<size_t>(problem.spare_rows) * problem.outputs;
    std::vector<Floats*> results;
    for (const std::string& tile : problem.transposed ? kTransposedTiles : kTiles) {
        std::string kernel = std::string("grouped_gemm_mma_") + host::name_of(type) + tile;
        Floats* y = new Floats(y_type, size, problem.misaligned);
        results.push_back(y);
        std::string why = run(kernel, problem, in, *y);
        // An activation adds errors of a few units, which the clamped product squares.
        double reduction = problem.kind == kNone ? problem.inputs + 1 : 4.0 * problem.inputs + 16;
        why = why.empty() ? host::compare(*y, want, reduction) : why;
        if (why.empty() && !y->untouched_from(want.size())) {
            why = "wrote behind the last offset";
        }
        if (why.empty() && std::memcmp(results[0]->data(), y->data(), want.size() * host::bytes_of(y_type)) != 0) {
            why = "has other bits than the smallest tiles";
        }
        host::report(kernel + " to " + host::name_of(y_type) + " " + problem.name(), why);
    }
    for (Floats* y : results) {
        delete y;
    }
}

// A row alone and among others gives the same bits, wherever its tile begins.
void check_rows_alone() {
    Problem many = {{3, 0, 70}, 40, 136, kSwiglu, true};
    host::Numbers numbers(5);
    std::vector<double> x_values = numbers.normals(73 * 136);
    Inputs in(many, host::kBF16, host::Numbers(6));
    Floats y(host::kF32, 73 * 40);
    std::string why = run("grouped_gemm_mma_bf16_128", many, in, y);
    for (int row = 3; why.empty() && row < 73; row += 23) {
        Problem one = many;
        one.counts = {0, 0, 1};
        Inputs own(one, host::kBF16, host::Numbers(6));
        size_t bytes = 136 * 2;
        std::memcpy(own.x.data(), static_cast<char*>(in.x.data()) + row * bytes, bytes);
        std::memcpy(own.weight.data(), in.weight.data(), in.weight.size() * 2);
        std::memcpy(own.bias.data(), in.bias.data(), in.bias.size() * 4);
        Floats alone(host::kF32, 40);
        why = run("grouped_gemm_mma_bf16_16", one, own, alone);
        if (why.empty() && std::memcmp(alone.data(), static_cast<float*>(y.data()) + row * 40, 40 * 4) != 0) {
            why = "row " + to_string(row) + " has other bits alone";
        }
    }
    host::report("rows alone and among others", why);
}

}  // namespace

int main() {
    std::vector<Problem> problems = {
        {{1}, 1, 1},
        {{}, 4, 4, kNone, false, 0, 0, 3},
        {{0, 0}, 5, 8, kNone, true, 0, 0, 2},
        {{2, 0, 3}, 5, 9, kNone, true, 0, 0, 1},
        {{64, 1, 63}, 128, 64},
        {{129, 0, 0, 17}, 136, 72, kNone, true, 0, 0, 5},
        {{4, 4}, 6, 0, kSwiglu, true},
        {{7, 9}, 33, 17, kSwiglu, true, 2, 1, 1},
        {{7, 9}, 64, 200, kSwiglu, false, 8},
        {{20, 0, 33}, 72, 136, kClampedSwiglu, true, 3, 0, 4},
        {{5, 18}, 130, 40, kSilu, true, 2},
        {{5, 18}, 24, 264, kRelu, false, 0},
        {{5, 18}, 24, 328, kSquaredRelu, true, 1},
        {std::vector<int>(300, 1), 3, 16, kNone, true, 4},
        {{1000}, 8, 16, kNone, false, 8, 0, 0, 3},
        {{40, 1}, 300, 24, kNone, false, 2, 0, 0, 64},
    };
    for (int inputs = 1; inputs <= 80; inputs += 11) {
        problems.push_back({{inputs % 19, 2}, 90 - inputs, inputs, inputs % 2 ? kSwiglu : kNone, inputs % 3 == 0, inputs % 4,
                            inputs % 2, inputs % 4});
    }
    // Without a gate, which has no transposed product.
    for (size_t i = 0, count = problems.size(); i < count; i++) {
        if (problems[i].parts() == 1) {
            problems.push_back(problems[i]);
            problems.back().transposed = true;
        }
    }
    int round = 0;
    for (const Problem& problem : problems) {
        for (Type type : kHalfTypes) {
            check_product(problem, type, host::kTypes[round++ % 3]);
        }
    }
    check_rows_alone();
    return check::result();
}
