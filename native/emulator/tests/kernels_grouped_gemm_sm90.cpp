// The grouped product by TMA and wgmma, with gathered rows and activation, against plain loops.
#include <memory>

#include "common/ptx.cuh"
#include "grouped_gemm_problem.h"
#include "ptx_tensor_map.h"

namespace {

using namespace grouped_gemm;

constexpr int kBoxColumns = 64;
constexpr int kSwizzle128 = 3;

struct TileSize {
    int rows;
    int columns;

    std::string name() const { return "_" + to_string(rows) + "x" + to_string(columns); }
};

const std::vector<TileSize> kTiles = {{64, 128}, {64, 256}, {128, 256}};

ptx::TensorMap map_of(const Floats& matrix, uint64_t rows, uint64_t columns, uint32_t box_rows) {
    ptx::TensorMap map;
    uint64_t dims[] = {columns, std::max<uint64_t>(1, rows)};
    uint64_t strides[] = {columns * 2};
    uint32_t box[] = {kBoxColumns, box_rows};
    uint32_t element_strides[] = {1, 1};
    emulator::TensorMapRequest request;
    request.type = matrix.type() == host::kF16 ? 6 : 9;
    request.rank = 2;
    request.address = matrix.data();
    request.dims = dims;
    request.strides = strides;
    request.box = box;
    request.element_strides = element_strides;
    request.swizzle = kSwizzle128;
    std::string refusal = emulator::encode_tensor_map(&map, request);
    if (!refusal.empty()) {
        check::report("tensor map", false, refusal);
    }
    return map;
}

bool stored_by_tma(const Problem& problem, const Floats& y) {
    return y.type() != host::kF32 && problem.outputs % 8 == 0 && reinterpret_cast<uintptr_t>(y.data()) % 16 == 0;
}

std::string run(const std::string& kernel, TileSize tile, const Problem& problem, const Inputs& in, const Floats& y) {
    int rows = problem.offsets().back() + problem.spare_rows;
    bool gathered = problem.top_k > 0;
    uint64_t columns = static_cast<uint64_t>(problem.groups()) * problem.parts() * problem.outputs;
    ptx::TensorMap weight_map = map_of(in.weight, columns, problem.inputs, tile.columns / 2);
    ptx::TensorMap x_map = gathered ? weight_map : map_of(in.x, rows, problem.inputs, 64);
    ptx::TensorMap y_map = stored_by_tma(problem, y) ? map_of(y, rows, problem.outputs, 64) : weight_map;
    unsigned cluster = static_cast<unsigned>(host::launch_info(kernel).cluster);
    unsigned blocks = (problem.blocks + cluster - 1) / cluster * cluster;
    return host::launch(kernel, {blocks}, x_map, weight_map, y_map, in.x.data(),
                        gathered ? in.row_to_slot.input() : nullptr, problem.weighted() ? in.slot_weights.data() : nullptr,
                        problem.biased ? in.bias.data() : nullptr, in.offsets.data(), y.data(), rows, problem.groups(),
                        problem.outputs, problem.inputs, std::max(1, problem.top_k), static_cast<int>(y.type()),
                        static_cast<int>(problem.kind), kLimit);
}

std::string kernel_of(Type type, TileSize tile, const Problem& problem) {
    return std::string("grouped_gemm_sm90_") + host::name_of(type) + tile.name() + (problem.top_k > 0 ? "_gather" : "");
}

// Every tile, and that they agree bit by bit. Only y is misaligned, where the problem asks for it.
void check_product(Problem problem, Type type, Type y_type) {
    int misaligned = problem.misaligned;
    problem.misaligned = 0;
    Inputs in(problem, type, host::Numbers(problem.inputs * 1000 + problem.outputs));
    std::vector<double> want = expected(problem, in);
    size_t size = want.size() + static_cast<size_t>(problem.spare_rows) * problem.outputs;
    std::vector<std::unique_ptr<Floats>> results;
    for (TileSize tile : kTiles) {
        std::string kernel = kernel_of(type, tile, problem);
        results.push_back(std::make_unique<Floats>(y_type, size, misaligned));
        const Floats& y = *results.back();
        std::string why = run(kernel, tile, problem, in, y);
        why = why.empty() ? host::compare(y, want, reduction(problem)) : why;
        if (why.empty() && !y.untouched_from(want.size())) {
            why = "wrote behind the last offset";
        }
        if (why.empty() && std::memcmp(results[0]->data(), y.data(), want.size() * host::bytes_of(y_type)) != 0) {
            why = "has other bits than the smallest tiles";
        }
        host::report(kernel + " to " + host::name_of(y_type) + " " + problem.name(), why);
    }
}

}  // namespace

int main() {
    std::vector<Problem> problems = {
        {{1}, 1, 8},
        {{}, 4, 8},
        {{0, 0}, 5, 8, kNone, true},
        {{2, 0, 3}, 5, 8, kNone, true, 0, 0, 1},
        // Whole tiles, one row less and more, several in one group: boxes that TMA stores, and a row tile left over.
        {{64, 1, 63}, 128, 64},
        {{128}, 256, 320, kNone, true},
        {{65, 128, 129, 257}, 136, 72, kNone, true, 0, 0, 5, 4},
        {{300}, 520, 136, kNone, false, 0, 0, 0, 4},
        // A store of its own for what TMA cannot take: y off by an element, outputs that are no multiple of 8.
        {{70, 3}, 72, 72, kNone, false, 0, 1},
        {{70, 130}, 75, 40, kSwiglu, true, 0, 0, 2},
        // More stages than the ring has, so that each is used again.
        {{7, 9}, 64, 712, kSwiglu, false, 8},
        {{200, 9}, 136, 584, kSwiglu, true, 2, 0, 0, 3},
        {{20, 0, 133}, 72, 136, kClampedSwiglu, true, 3, 0, 4},
        {{5, 178}, 130, 40, kSilu, true, 2},
        {{5, 118}, 24, 264, kRelu, false},
        {{5, 68}, 24, 328, kSquaredRelu, true, 1},
        {{5, 18}, 24, 40, kLinear, true, 1},
        {{5, 18}, 24, 40, kReglu, true, 1},
        {{5, 18}, 24, 40, kGlu, false, 1},
        {{5, 18}, 24, 40, kBilinear, true, 1},
        // More groups than lanes, than shared memory holds the offsets of, and blocks without a tile.
        {std::vector<int>(300, 1), 3, 16, kNone, true, 4},
        {std::vector<int>(600, 1), 3, 16},
        {{40, 1}, 300, 24, kNone, false, 2, 0, 0, 16},
    };
    for (int inputs = 8; inputs <= 136; inputs += 32) {
        int third = inputs / 8 % 3;
        problems.push_back({{inputs % 19 * 9, 2}, 90 - inputs / 2, inputs, third ? kSwiglu : kNone, third == 0, third, inputs % 16 / 8});
    }
    // Every pair of types in turn.
    int round = 0;
    for (const Problem& problem : problems) {
        Type type = kHalfTypes[round % 2];
        Type y_type = host::kTypes[round++ % 3];
        bool possible = problem.kind == kNone || y_type != host::kF32;
        check_product(problem, type, possible ? y_type : type);
    }
    return check::result();
}
