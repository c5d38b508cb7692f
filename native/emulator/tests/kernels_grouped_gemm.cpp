// The grouped product for every size and type, against plain loops.
#include "kernels_host.h"

namespace {

using host::Array;
using host::Floats;
using host::Type;
using std::to_string;

struct Problem {
    std::vector<int> counts;  // rows of each group
    int outputs;
    int inputs;
    int misaligned;
    bool biased;
    int spare_rows;  // behind the last offset

    int groups() const { return static_cast<int>(counts.size()); }

    std::vector<int> offsets() const {
        std::vector<int> all = {0};
        for (int count : counts) {
            all.push_back(all.back() + count);
        }
        return all;
    }

    std::string name() const {
        return "groups " + to_string(groups()) + " rows " + to_string(offsets().back()) + " N=" + to_string(outputs) +
               " K=" + to_string(inputs) + " offset " + to_string(misaligned);
    }
};

std::string run(const std::string& kernel, const Problem& problem, const Floats& x, const Floats& weight,
                const Array<float>& bias, const Floats& y) {
    Array<int> offsets(problem.offsets());
    int rows = problem.offsets().back() + problem.spare_rows;
    int groups = problem.groups();
    int tile = host::launch_info(kernel).items_per_block;
    unsigned tiles = static_cast<unsigned>(std::min(rows, rows / tile + groups));
    return host::launch(kernel, {tiles, host::blocks(kernel, problem.outputs)}, x.data(), weight.data(),
                        problem.biased ? bias.data() : nullptr, offsets.data(), y.data(), rows, groups, problem.outputs,
                        problem.inputs, static_cast<int>(y.type()));
}

std::vector<double> multiply(const Problem& problem, const Floats& x, const Floats& weight, const Array<float>& bias) {
    std::vector<double> y;
    std::vector<int> offsets = problem.offsets();
    size_t inputs = problem.inputs;
    for (int group = 0; group < problem.groups(); group++) {
        for (int row = offsets[group]; row < offsets[group + 1]; row++) {
            for (int output = 0; output < problem.outputs; output++) {
                size_t column = static_cast<size_t>(group) * problem.outputs + output;
                double sum = problem.biased ? bias.at(column) : 0;
                for (size_t k = 0; k < inputs; k++) {
                    sum += x.at(row * inputs + k) * weight.at(column * inputs + k);
                }
                y.push_back(sum);
            }
        }
    }
    return y;
}

void check_product(const Problem& problem, Type x_type, Type weight_type, Type y_type) {
    host::Numbers numbers(problem.inputs * 1000 + problem.outputs);
    int rows = problem.offsets().back() + problem.spare_rows;
    size_t weights = static_cast<size_t>(problem.groups()) * problem.outputs * problem.inputs;
    std::vector<double> x_values = numbers.normals(static_cast<size_t>(rows) * problem.inputs);
    // What lies behind the last offset belongs to nobody.
    std::fill(x_values.begin() + static_cast<long>(problem.offsets().back()) * problem.inputs, x_values.end(), NAN);
    Floats x(x_type, x_values, problem.misaligned);
    Floats weight(weight_type, numbers.normals(weights), problem.misaligned);
    std::vector<float> bias_values(problem.groups() * problem.outputs);
    for (float& value : bias_values) {
        value = static_cast<float>(numbers.normal());
    }
    Array<float> bias(bias_values);
    Floats y(y_type, static_cast<size_t>(rows) * problem.outputs);
    std::string kernel = std::string("grouped_gemm_") + host::name_of(x_type) + "_" + host::name_of(weight_type);
    std::string why = run(kernel, problem, x, weight, bias, y);
    std::vector<double> want = multiply(problem, x, weight, bias);
    why = why.empty() ? host::compare(y, want, problem.inputs + 1) : why;
    if (why.empty() && !y.untouched_from(want.size())) {
        why = "wrote behind the last offset";
    }
    host::report(kernel + " to " + host::name_of(y_type) + " " + problem.name(), why);
}

// A row alone and among others gives the same bits, wherever its tile begins.
void check_rows_alone() {
    Problem many = {{3, 0, 70}, 37, 133, 0, true, 0};
    host::Numbers numbers(5);
    std::vector<double> x_values = numbers.normals(73 * 133);
    std::vector<double> weight_values = numbers.normals(3 * 37 * 133);
    Floats weight(host::kBF16, weight_values);
    Array<float> bias(std::vector<float>(3 * 37, 0.25f));
    Floats y(host::kF32, 73 * 37);
    Floats x(host::kBF16, x_values);
    std::string why = run("grouped_gemm_bf16_bf16", many, x, weight, bias, y);
    for (int row = 3; why.empty() && row < 73; row += 23) {
        Problem one = {{0, 0, 1}, 37, 133, 0, true, 0};
        Floats own(host::kBF16, {x_values.begin() + row * 133, x_values.begin() + (row + 1) * 133});
        Floats alone(host::kF32, 37);
        why = run("grouped_gemm_bf16_bf16", one, own, weight, bias, alone);
        if (why.empty() && std::memcmp(alone.data(), static_cast<float*>(y.data()) + row * 37, 37 * 4) != 0) {
            why = "row " + to_string(row) + " has other bits alone";
        }
    }
    host::report("rows alone and among others", why);
}

}  // namespace

int main() {
    std::vector<Problem> problems = {
        {{1}, 1, 1, 0, false, 0},          {{}, 4, 4, 0, false, 3},           {{0, 0}, 5, 4, 0, true, 2},
        {{2, 0, 3}, 5, 9, 0, true, 1},     {{64, 1, 63}, 64, 16, 0, false, 0}, {{65, 0, 0, 130}, 70, 40, 0, true, 5},
        {{4, 4}, 6, 0, 0, true, 0},        {{7, 9}, 33, 17, 1, true, 1},      {{7, 9}, 33, 20, 1, false, 1},
        {std::vector<int>(300, 1), 3, 12, 0, true, 0},
    };
    for (int inputs = 1; inputs <= 34; inputs += 3) {
        problems.push_back({{inputs, 1}, 35 - inputs, inputs, inputs % 2, inputs % 3 == 0, inputs % 4});
    }
    int round = 0;
    for (const Problem& problem : problems) {
        for (Type x : host::kTypes) {
            Type weight = host::kTypes[(round + x) % 3];
            check_product(problem, x, weight, host::kTypes[(round / 3 + x) % 3]);
        }
        round++;
    }
    for (Type x : host::kTypes) {
        for (Type weight : host::kTypes) {
            for (Type y : host::kTypes) {
                check_product({{5, 2}, 11, 37, 0, true, 1}, x, weight, y);
            }
        }
    }
    check_rows_alone();
    return check::result();
}
