// Tokens into slots and back by a softmax, and rows of one length, against plain loops.
#include "kernels_host.h"

namespace {

using host::Array;
using host::Floats;
using host::Numbers;
using host::Type;
using std::to_string;

struct Size {
    int tokens;
    int slots;
    int hidden;
    int misaligned;  // elements
    unsigned grid_y;

    std::string name() const {
        return "T=" + to_string(tokens) + " S=" + to_string(slots) + " H=" + to_string(hidden) + " offset " +
               to_string(misaligned) + " grid.y " + to_string(grid_y);
    }
};

// What targets are made of: weights by a softmax of each row of logits.
std::vector<double> mix(const std::vector<std::vector<double>>& logits, const Floats& from, size_t hidden) {
    std::vector<double> sums;
    for (const std::vector<double>& row : logits) {
        double max = -INFINITY;
        double total = 0;
        for (double z : row) {
            max = z > max ? z : max;
        }
        for (double z : row) {
            total += std::exp(z - max);
        }
        for (size_t h = 0; h < hidden; h++) {
            double sum = 0;
            for (size_t j = 0; j < row.size(); j++) {
                sum += std::exp(row[j] - max) / total * from.at(j * hidden + h);
            }
            sums.push_back(sum);
        }
    }
    return sums;
}

enum Logits { kUsual, kSomeNan, kInfinite, kAllEqual };

void check_mix(const Size& size, Type from, Type to, bool dispatch, Logits kind = kUsual) {
    Numbers numbers(size.hidden + 7 * size.tokens + (dispatch ? 1 : 0));
    int targets = dispatch ? size.slots : size.tokens;
    int sources = dispatch ? size.tokens : size.slots;
    std::vector<float> logits;
    for (double z : numbers.normals(static_cast<size_t>(size.tokens) * size.slots)) {
        double odd = kind == kSomeNan ? NAN : kind == kInfinite ? std::copysign(INFINITY, z) : 5 * z;
        logits.push_back(static_cast<float>(kind == kAllEqual ? -88.5 : numbers.below(9) == 0 ? odd : 5 * z));
    }
    std::vector<std::vector<double>> rows(targets, std::vector<double>(sources));
    for (int i = 0; i < targets; i++) {
        for (int j = 0; j < sources; j++) {
            rows[i][j] = logits[dispatch ? static_cast<size_t>(j) * size.slots + i : static_cast<size_t>(i) * size.slots + j];
        }
    }
    size_t hidden = size.hidden;
    Floats values(from, numbers.normals(sources * hidden), size.misaligned);
    Floats out(to, (targets + 1) * hidden, size.misaligned);
    Array<float> z(logits);
    Array<float> maxima(targets);
    Array<float> inverses(targets);
    std::string op = dispatch ? "soft_dispatch" : "soft_combine";
    std::string weights = op + "_weights";
    std::string kernel = op + "_" + host::name_of(from) + "_" + host::name_of(to);
    std::string why = host::launch(weights, {host::blocks(weights, targets)}, z.data(), maxima.data(), inverses.data(),
                                   size.tokens, size.slots);
    why = why.empty() ? host::launch(kernel, {host::blocks(kernel, targets), size.grid_y}, values.data(), z.data(),
                                     maxima.data(), inverses.data(), out.data(), size.tokens, size.slots, size.hidden)
                      : why;
    why = why.empty() ? host::compare(out, mix(rows, values, hidden), 2 * sources + 8) : why;
    if (why.empty() && !out.untouched_from(targets * hidden)) {
        why = "wrote behind the last row";
    }
    host::report(kernel + " " + size.name() + " logits " + to_string(kind), why);
}

// One row is all zeros, one has a NaN and one an infinity.
void check_normalise(const Size& size, Type from, Type to) {
    Numbers numbers(size.hidden + 300);
    size_t hidden = size.hidden;
    std::vector<double> values = numbers.normals(size.tokens * hidden);
    for (size_t i = 0; i < values.size(); i++) {
        size_t row = i / hidden % 7;
        bool last = i % hidden == hidden - 1;
        values[i] = row == 2 ? 0 : last && row == 3 ? NAN : last && row == 5 ? -INFINITY : values[i];
    }
    Floats x(from, values, size.misaligned);
    Floats y(to, size.tokens * hidden, size.misaligned);
    std::string kernel = std::string("normalise_rows_") + host::name_of(from) + "_" + host::name_of(to);
    std::string why =
        host::launch(kernel, {host::blocks(kernel, size.tokens)}, x.data(), y.data(), size.tokens, size.hidden, -2.0f, 0.125f);
    std::vector<double> want(size.tokens * hidden);
    for (int row = 0; row < size.tokens; row++) {
        double squares = 0;
        for (size_t h = 0; h < hidden; h++) {
            squares += x.at(row * hidden + h) * x.at(row * hidden + h);
        }
        for (size_t h = 0; h < hidden; h++) {
            want[row * hidden + h] = -2 * x.at(row * hidden + h) / (std::sqrt(squares) + 0.125);
        }
    }
    why = why.empty() ? host::compare(y, want, size.hidden + 3) : why;
    host::report(kernel + " " + size.name(), why);
}

}  // namespace

int main() {
    std::vector<Size> sizes = {{1, 1, 1, 0, 1},    {0, 3, 8, 0, 1},   {3, 0, 8, 0, 1},    {33, 31, 72, 0, 1},
                               {31, 65, 65, 1, 2}, {5, 70, 136, 0, 3}, {70, 4, 24, 1, 1}, {9, 32, 33, 0, 1}};
    for (const Size& size : sizes) {
        for (Type from : host::kTypes) {
            for (Type to : host::kTypes) {
                check_mix(size, from, to, true);
                check_mix(size, from, to, false);
                check_normalise(size, from, to);
            }
        }
    }
    for (Logits kind : {kSomeNan, kInfinite, kAllEqual}) {
        for (const Size& size : {Size{37, 5, 9, 0, 1}, Size{4, 66, 70, 1, 2}, Size{1, 200, 3, 0, 1}}) {
            check_mix(size, host::kF32, host::kF32, true, kind);
            check_mix(size, host::kF32, host::kF32, false, kind);
        }
    }
    return check::result();
}
