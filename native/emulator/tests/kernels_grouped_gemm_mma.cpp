// The grouped product on matrix units, with gathered rows and activation, against plain loops.
#include "grouped_gemm_problem.h"

namespace {

using namespace grouped_gemm;

const std::vector<std::string> kTiles = {"_16", "_64", "_128"};
const std::vector<std::string> kTransposedTiles = {"_64_transposed", "_128_transposed"};
std::string run(const std::string& kernel, const Problem& problem, const Inputs& in, const Floats& y) {
    int rows = problem.offsets().back() + problem.spare_rows;
    return host::launch(kernel, {problem.blocks}, in.x.data(), problem.top_k == 0 ? nullptr : in.row_to_slot.input(),
                        problem.weighted() ? in.slot_weights.data() : nullptr, in.weight.data(), problem.biased ? in.bias.data() : nullptr, in.offsets.data(), y.data(), rows,
                        problem.groups(), problem.outputs, problem.inputs, std::max(1, problem.top_k),
                        static_cast<int>(y.type()), static_cast<int>(problem.kind), kLimit);
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
        why = why.empty() ? host::compare(*y, want, reduction(problem)) : why;
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
        {{5, 18}, 24, 40, kGelu, true, 1},
        {{5, 18}, 24, 40, kGeluTanh, false, 1},
        {{5, 18}, 24, 40, kLinear, true, 1},
        {{5, 18}, 24, 40, kGeglu, true, 1},
        {{5, 18}, 24, 40, kGegluTanh, false, 1},
        {{5, 18}, 24, 40, kReglu, true, 1},
        {{5, 18}, 24, 40, kGlu, false, 1},
        {{5, 18}, 24, 40, kBilinear, true, 1},
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
