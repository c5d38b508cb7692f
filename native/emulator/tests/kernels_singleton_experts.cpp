// The neurons of experts that have one each, against plain loops.
#include "kernels_host.h"

namespace {

using host::Array;
using host::Floats;
using host::Numbers;
using host::Type;
using std::to_string;

// Of the activations without a gate.
constexpr int kSilu = 2;
constexpr int kRelu = 3;
constexpr int kGelu = 5;
constexpr int kKinds[] = {kSilu, kRelu, kGelu};

constexpr int kExperts = 9;

double activated(int kind, double a) {
    switch (kind) {
        case kGelu:
            return a * 0.5 * std::erfc(-a / std::sqrt(2.0));
        case kRelu:
            return std::isnan(a) ? a : std::max(a, 0.0);
        default:
            return a / (1 + std::exp(-a));
    }
}

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

// A third of the ids is nobody's and some weights are 0: the experts' rows, which nobody else has, are NaN then.
void check_neurons(const Size& size, Type from, Type type, int kind, bool weighted) {
    Numbers numbers(size.hidden + 10 * size.tokens);
    size_t slots = static_cast<size_t>(size.tokens) * size.top_k;
    size_t hidden = size.hidden;
    std::vector<int> ids(slots);
    std::vector<float> weights(slots);
    const int nobody[] = {-1, kExperts, INT32_MAX, INT32_MIN};
    for (size_t slot = 0; slot < slots; slot++) {
        bool none = slot % 3 == 2;
        ids[slot] = none ? nobody[numbers.below(4)] : numbers.below(kExperts - 1);
        weights[slot] = static_cast<float>(numbers.uniform());
        if (weighted && slot % 5 == 3) {
            ids[slot] = kExperts - 1;
            weights[slot] = 0;
        }
    }
    std::vector<double> ups = numbers.normals(kExperts * hidden);
    std::fill(ups.end() - static_cast<long>(hidden), ups.end(), NAN);
    Floats x(from, numbers.normals(size.tokens * hidden), size.misaligned);
    Floats up(type, ups, size.misaligned);
    Floats neurons(host::kF32, slots);
    Array<int> topk_ids(ids);
    Array<float> slot_weights(weights);
    std::string kernel = std::string("singleton_experts_") + host::name_of(from) + "_" + host::name_of(type);
    std::string why =
        host::launch(kernel, {host::blocks(kernel, static_cast<long long>(slots))}, x.data(), topk_ids.data(),
                     weighted ? slot_weights.data() : nullptr, up.data(), neurons.data(), static_cast<int>(slots), kExperts,
                     size.hidden, size.top_k, kind);
    std::vector<double> want(slots);
    for (size_t slot = 0; slot < slots; slot++) {
        bool exists = ids[slot] >= 0 && ids[slot] < kExperts;
        double weight = weighted ? weights[slot] : 1.0;
        double sum = 0;
        for (size_t h = 0; exists && h < hidden; h++) {
            sum += x.at(slot / size.top_k * hidden + h) * up.at(ids[slot] * hidden + h);
        }
        want[slot] = exists && weight != 0 ? weight * activated(kind, sum) : 0;
    }
    why = why.empty() ? host::compare(neurons, want, size.hidden + 5) : why;
    host::report(kernel + " activation " + to_string(kind) + (weighted ? " weighted " : " ") + size.name(), why);
}

}  // namespace

int main() {
    std::vector<Size> sizes = {{0, 2, 16, 0}, {1, 1, 1, 0}, {1, 33, 520, 0}, {5, 3, 40, 0}, {3, 4, 257, 1}, {2, 9, 24, 1}};
    for (int hidden = 2; hidden <= 33; hidden += 3) {
        sizes.push_back({1 + hidden % 5, 1 + hidden % 4, hidden, hidden % 2});
    }
    int round = 0;
    for (const Size& size : sizes) {
        for (Type from : host::kTypes) {
            for (Type type : host::kTypes) {
                check_neurons(size, from, type, kKinds[round % 3], round % 2 == 0);
                round++;
            }
        }
    }
    return check::result();
}
