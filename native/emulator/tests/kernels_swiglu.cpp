// The activations against their formulas in double, at ordinary and at extreme arguments.
#include "activation_definition.h"
#include "kernels_host.h"

namespace {

using host::Array;
using host::Floats;
using host::Type;
using std::to_string;

using namespace activation_definition;

constexpr float kLimit = 7;

// Activates rows of one row's width more than is asked for; empty, or what is wrong.
std::string run(Type from, Type to, int kind, int rows, int width, const std::vector<double>& values, int misaligned,
                unsigned grid_y) {
    int columns = is_gated(kind) ? 2 * width : width;
    Floats gate_up(from, values, misaligned);
    Floats hidden(to, static_cast<size_t>(rows + 1) * width, misaligned);
    int first_row = rows / 3;
    Array<int> offsets(std::vector<int>{first_row, rows / 2, rows});
    std::string kernel = std::string("swiglu_") + host::name_of(from) + "_" + host::name_of(to);
    std::string why = host::launch(kernel, {host::blocks(kernel, rows + 1), grid_y}, gate_up.data(), offsets.data(), 2,
                                   hidden.data(), rows + 1, width, kind, kLimit);
    std::vector<double> want(static_cast<size_t>(rows) * width);
    for (size_t i = 0; i < want.size(); i++) {
        size_t row = i / width * columns;
        double up = gate_up.at(row + columns - width + i % width);
        // Fresh memory is all ones.
        bool before = static_cast<int>(i / width) < first_row;
        want[i] = before ? NAN : activate(kind, kLimit, gate_up.at(row + i % width), up);
    }
    why = why.empty() ? host::compare(hidden, want, 5) : why;
    if (why.empty() && !hidden.untouched_from(want.size())) {
        why = "wrote behind the last row";
    }
    return why;
}

void check_ordinary(int width, int rows, int misaligned, unsigned grid_y) {
    host::Numbers numbers(width);
    for (int kind = 0; kind < kKinds; kind++) {
        int columns = is_gated(kind) ? 2 * width : width;
        for (int from = 0; from < 3; from++) {
            Type type = host::kTypes[from];
            Type to = host::kTypes[(from + kind + width) % 3];
            std::vector<double> values = numbers.normals(static_cast<size_t>(rows + 1) * columns);
            for (double& value : values) {
                value *= 6;
            }
            std::string name = "kind " + to_string(kind) + " I=" + to_string(width) + " offset " + to_string(misaligned);
            host::report(name + " " + host::name_of(type) + " to " + host::name_of(to),
                         run(type, to, kind, rows, width, values, misaligned, grid_y));
        }
    }
}

// Where exp overflows, where clamps act, and where a tiny sigmoid meets a huge factor. One value in each row, and each row
// by itself: beside a large neighbour the tolerance would hide it.
void check_extremes(int kind, int width) {
    float above = std::nextafterf(kLimit, 8);
    std::vector<double> gates = {0,    -0.0,   1e-30,  -1e-30, 20,     -20,   88,     -88,    89,   -89,  104,      -104,
                                 -120, -151,   -160,   -170,   -180,   -190,  -199,   -250,   -300, -700, -709.7,   -709.9,
                                 -720, 1000,   -1e4,   -3e38,  kLimit, -kLimit, above, -above, 3e38, NAN,  INFINITY, -INFINITY,
                                 // And where the tails of both gelus end.
                                 5,    -5,     -9,     -13.5,  -14.25, -19,   -20.5,  -24,    -38,  -39};
    std::vector<double> ups = {0, 1, -1, kLimit, -kLimit, above, -above, 1000, 1e-20, 3e38, -3e38, INFINITY, -INFINITY, NAN};
    std::vector<double> values;
    for (double gate : gates) {
        for (double up : ups) {
            values.insert(values.end(), width, gate);
            values.insert(values.end(), is_gated(kind) ? width : 0, up);
        }
    }
    int rows = static_cast<int>(gates.size() * ups.size());
    Floats gate_up(host::kF32, values);
    Floats hidden(host::kF32, static_cast<size_t>(rows) * width);
    Array<int> offsets(std::vector<int>{0, rows});
    std::string why = host::launch("swiglu_f32_f32", {host::blocks("swiglu_f32_f32", rows)}, gate_up.data(),
                                   offsets.data(), 1, hidden.data(), rows, width, kind, kLimit);
    for (int row = 0; why.empty() && row < rows; row++) {
        double gate = gates[row / ups.size()];
        double up = is_gated(kind) ? ups[row % ups.size()] : gate;
        std::vector<double> got(width);
        for (int i = 0; i < width; i++) {
            got[i] = hidden.at(static_cast<size_t>(row) * width + i);
        }
        why = host::compare(Floats(host::kF32, got), std::vector<double>(width, activate(kind, kLimit, gate, up)), 5);
        why = why.empty() ? why : "gate " + to_string(gate) + " up " + to_string(up) + ": " + why;
    }
    host::report("kind " + to_string(kind) + " at extremes, I=" + to_string(width), why);
}

}  // namespace

int main() {
    for (int width = 1; width <= 33; width += width < 17 ? 1 : 5) {
        check_ordinary(width, width % 4, width % 3 == 1, 1);
    }
    check_ordinary(1032, 3, 0, 2);
    for (int kind = 0; kind < kKinds; kind++) {
        // Wide enough for the vectors, and for what is left over.
        check_extremes(kind, 1);
        check_extremes(kind, 8);
    }
    return check::result();
}
