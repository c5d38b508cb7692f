// Constant experts against plain loops: the shares of slots, and the sums over them.
#include "kernels_host.h"

namespace {

using host::Array;
using host::Floats;
using host::Numbers;
using host::Type;
using std::to_string;

constexpr int kFirst = 5;
constexpr int kConstants = 3;

struct Size {
    int tokens;
    int top_k;
    int hidden;
    int misaligned;  // elements

    std::string name() const {
        return "T=" + to_string(tokens) + " K=" + to_string(top_k) + " H=" + to_string(hidden) + " offset " +
               to_string(misaligned);
    }
};

// What belongs to the sum besides the constant experts.
struct Extras {
    int addend_rows;  // 0 for none, 1, or 2 for as many as tokens
    bool in_place;
};

// Ids of all kinds, some weights 0; the first token has no constant expert, and is NaN.
struct Problem {
    std::vector<int> ids;
    std::vector<float> weights;
    std::vector<double> x;

    Problem(const Size& size, Numbers& numbers) : x(numbers.normals(static_cast<size_t>(size.tokens) * size.hidden)) {
        const int nobody[] = {-1, kFirst - 1, kFirst + kConstants, INT32_MAX, INT32_MIN};
        for (int slot = 0; slot < size.tokens * size.top_k; slot++) {
            bool none = slot % 3 == 2 || slot < size.top_k;
            ids.push_back(none ? nobody[numbers.below(5)] : kFirst + numbers.below(kConstants));
            weights.push_back(slot % 5 == 3 ? 0.0f : static_cast<float>(numbers.uniform()));
        }
        for (int h = 0; h < size.hidden && size.tokens > 0; h++) {
            x[h] = NAN;
        }
    }
};

void check_constants(const Size& size, Type from, Type to, Type extra, const Extras& extras) {
    Numbers numbers(size.hidden + 10 * size.tokens);
    Problem problem(size, numbers);
    size_t hidden = size.hidden;
    size_t slots = problem.ids.size();
    size_t elements = size.tokens * hidden;
    Floats x(from, problem.x, size.misaligned);
    Floats mixing(host::kF32, numbers.normals(2 * kConstants * hidden), size.misaligned);
    Floats vectors(host::kF32, numbers.normals(kConstants * hidden), size.misaligned);
    int addend_rows = extras.addend_rows == 1 ? 1 : size.tokens;
    Floats addend(extras.in_place ? to : extra, numbers.normals(addend_rows * hidden), size.misaligned);
    Floats fresh(to, elements, size.misaligned);
    const Floats& y = extras.in_place ? addend : fresh;
    Floats shares(host::kF32, 2 * slots);
    std::vector<double> want_shares(2 * slots);
    std::vector<double> want(elements);
    float factor = 0.5f;
    for (size_t slot = 0; slot < slots; slot++) {
        long long constant = static_cast<long long>(problem.ids[slot]) - kFirst;
        if (constant < 0 || constant >= kConstants || problem.weights[slot] == 0.0f) {
            continue;
        }
        size_t token = slot / size.top_k;
        double of_x = 0;
        double of_v = 0;
        for (size_t h = 0; h < hidden; h++) {
            of_x += x.at(token * hidden + h) * mixing.at(2 * constant * hidden + h);
            of_v += x.at(token * hidden + h) * mixing.at((2 * constant + 1) * hidden + h);
        }
        double a1 = std::exp(of_x) / (std::exp(of_x) + std::exp(of_v));
        want_shares[2 * slot] = problem.weights[slot] * a1;
        want_shares[2 * slot + 1] = problem.weights[slot] * (1 - a1);
        for (size_t h = 0; h < hidden; h++) {
            want[token * hidden + h] += factor * problem.weights[slot] *
                                        (a1 * x.at(token * hidden + h) + (1 - a1) * vectors.at(constant * hidden + h));
        }
    }
    for (size_t i = 0; i < elements && extras.addend_rows != 0; i++) {
        want[i] += addend.at(addend_rows == 1 ? i % hidden : i);
    }
    Array<int> ids(problem.ids);
    Array<float> weights(problem.weights);
    std::string why = host::launch("constant_experts_shares",
                                   {host::blocks("constant_experts_shares", static_cast<long long>(slots))}, x.data(),
                                   ids.data(), weights.data(), mixing.data(), shares.data(), static_cast<int>(slots), kFirst,
                                   kConstants, size.hidden, size.top_k, static_cast<int>(from));
    why = why.empty() ? host::compare(shares, want_shares, size.hidden + 8) : why;
    std::string kernel = std::string("constant_experts_") + host::name_of(from) + "_" + host::name_of(to);
    if (why.empty()) {
        why = host::launch(kernel, {host::blocks(kernel, size.tokens), size.hidden > 1000 ? 2u : 1u}, x.data(), ids.data(),
                           shares.data(), vectors.data(), extras.addend_rows == 0 ? nullptr : addend.data(), y.data(),
                           size.tokens, size.hidden, size.top_k, kFirst, static_cast<int>(addend.type()), addend_rows, factor);
    }
    why = why.empty() ? host::compare(y, want, size.hidden + size.top_k + 8) : why;
    host::report(kernel + " " + size.name() + " addend rows " + to_string(extras.addend_rows) +
                     (extras.in_place ? " in place" : ""),
                 why);
}

}  // namespace

int main() {
    std::vector<Size> sizes = {{0, 2, 16, 0}, {1, 1, 1, 0}, {2, 33, 520, 0}, {5, 3, 40, 0}, {3, 4, 257, 1}, {3, 9, 1048, 1}};
    for (int hidden = 2; hidden <= 33; hidden += 3) {
        sizes.push_back({1 + hidden % 5, 1 + hidden % 4, hidden, hidden % 2});
    }
    int round = 0;
    for (const Size& size : sizes) {
        for (Type from : host::kTypes) {
            for (Type to : host::kTypes) {
                Extras extras = {round % 3, round % 6 == 2};
                check_constants(size, from, to, host::kTypes[round % 3], extras);
                round++;
            }
        }
    }
    return check::result();
}
