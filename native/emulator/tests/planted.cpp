// The emulator's own test: correct kernels raise no alarm under any schedule, and each planted mistake is caught.
#include <cmath>

#include "grid.h"
#include "planted/grouped_gemm_mma_tile.cuh"
#include "planted/planted.h"
#include "ptx_tensor_map.h"
#include "words.h"

#define PLANTED_KERNEL PLANTED_NAME(grouped_gemm_mma, PLANTED)
#define PLANTED 0
#include "planted/grouped_gemm_mma.cuh"
#undef PLANTED
#define PLANTED 1
#include "planted/grouped_gemm_mma.cuh"
#undef PLANTED
#define PLANTED 2
#include "planted/grouped_gemm_mma.cuh"
#undef PLANTED
#undef PLANTED_KERNEL

#define PLANTED_KERNEL PLANTED_NAME(gemm_sm90, PLANTED)
#define PLANTED 0
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#define PLANTED 1
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#define PLANTED 2
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#define PLANTED 3
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#define PLANTED 4
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#define PLANTED 5
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#define PLANTED 6
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#define PLANTED 7
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#define PLANTED 8
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#define PLANTED 9
#include "planted/gemm_sm90.cuh"
#undef PLANTED
#undef PLANTED_KERNEL

#define PLANTED_KERNEL PLANTED_NAME(stored_tiles_sm90, PLANTED)
#define PLANTED 0
#include "planted/stored_tiles_sm90.cuh"
#undef PLANTED
#define PLANTED 1
#include "planted/stored_tiles_sm90.cuh"
#undef PLANTED
#define PLANTED 2
#include "planted/stored_tiles_sm90.cuh"
#undef PLANTED
#define PLANTED 3
#include "planted/stored_tiles_sm90.cuh"
#undef PLANTED
#undef PLANTED_KERNEL

#define PLANTED_KERNEL PLANTED_NAME(early_product_sm90, PLANTED)
#define PLANTED 0
#include "planted/early_product_sm90.cuh"
#undef PLANTED
#define PLANTED 1
#include "planted/early_product_sm90.cuh"
#undef PLANTED
#define PLANTED 2
#include "planted/early_product_sm90.cuh"
#undef PLANTED
#define PLANTED 3
#include "planted/early_product_sm90.cuh"
#undef PLANTED
#define PLANTED 4
#include "planted/early_product_sm90.cuh"
#undef PLANTED
#define PLANTED 5
#include "planted/early_product_sm90.cuh"
#undef PLANTED
#define PLANTED 6
#include "planted/early_product_sm90.cuh"
#undef PLANTED
#define PLANTED 7
#include "planted/early_product_sm90.cuh"
#undef PLANTED
#undef PLANTED_KERNEL

namespace {

using check::Buffer;

// Small numbers that bf16 holds exactly, with sums that f32 holds exactly: results are compared bit for bit.
std::vector<uint16_t> numbers(size_t count, uint32_t seed) {
    emulator::Random random(seed);
    std::vector<uint16_t> values(count);
    for (uint16_t& value : values) {
        value = ptx::f32_to_bf16(float(int(random.below(9)) - 4));
    }
    return values;
}

float dot(const Buffer<uint16_t>& x, const Buffer<uint16_t>& weight, size_t row, size_t output, size_t inputs) {
    float sum = 0;
    for (size_t i = 0; i < inputs; i++) {
        sum += ptx::bf16_to_f32(x[row * inputs + i]) * ptx::bf16_to_f32(weight[output * inputs + i]);
    }
    return sum;
}

std::string wrong(const char* matrix, size_t row, size_t column, float got, float expected) {
    return got == expected ? "" : emulator::text("%s[%zu, %zu] is %g, expected %g", matrix, row, column, double(got),
                                                 double(expected));
}

emulator::Launch launch_of(const char* name, int number, check::Shape shape, std::vector<std::byte> params) {
    emulator::Launch launch;
    launch.kernel = emulator::find_kernel(emulator::text("%s_planted_%d", name, number).c_str());
    launch.grid = shape.grid;
    launch.block = shape.block;
    launch.dynamic_shared = shape.shared;
    launch.params = std::move(params);
    return launch;
}

// Two experts with 70 and 5 rows, 64 outputs, 128 inputs.
std::string run_grouped(int number) {
    constexpr int rows = 75;
    constexpr int outputs = 64;
    constexpr int inputs = 128;
    const Buffer<uint16_t> x(numbers(rows * inputs, 1));
    const Buffer<uint16_t> weight(numbers(2 * outputs * inputs, 2));
    const Buffer<float> y(size_t{rows * outputs});
    const Buffer<int4> tiles(std::vector<int4>{{0, 0, 64, 0}, {0, 64, 6, 0}, {1, 70, 5, 0}});
    const check::Shape shape = {{1, 3}, 128, uint32_t(mma_tile::STAGES * mma_tile::STAGE_BYTES)};
    const std::string error = emulator::run(launch_of(
        "grouped_gemm_mma", number, shape,
        emulator::KernelOf<grouped_gemm_mma_planted_0>::pack(x.data(), weight.data(), y.data(), tiles.data(), outputs,
                                                             inputs)));
    if (!error.empty()) {
        return error;
    }
    for (size_t row = 0; row < rows; row++) {
        for (size_t output = 0; output < outputs; output++) {
            const size_t weight_row = output + (row < 70 ? 0 : outputs);
            const float expected = dot(x, weight, row, weight_row, inputs);
            std::string why = wrong("y", row, output, y[row * outputs + output], expected);
            if (!why.empty()) {
                return why;
            }
        }
    }
    return "";
}

ptx::TensorMap map_of(void* address, int type, uint64_t columns, uint64_t rows, uint32_t box_columns, int swizzle) {
    ptx::TensorMap map;
    const uint64_t dims[2] = {columns, rows};
    const uint64_t strides[1] = {columns * (type == 7 ? 4 : 2)};
    const uint32_t box[2] = {box_columns, 64};
    const uint32_t element_strides[2] = {1, 1};
    emulator::TensorMapRequest request;
    request.type = type;
    request.rank = 2;
    request.address = address;
    request.dims = dims;
    request.strides = strides;
    request.box = box;
    request.element_strides = element_strides;
    request.swizzle = swizzle;
    emulator::encode_tensor_map(&map, request);
    return map;
}

constexpr int bf16 = 9;
constexpr int f32 = 7;

// 100 x 72 outputs, so that tiles hang over both edges; 320 inputs, so that each stage is used twice.
std::string run_sm90(int number) {
    constexpr int rows = 100;
    constexpr int outputs = 72;
    constexpr int inputs = 320;
    const Buffer<uint16_t> x(numbers(rows * inputs, 3));
    const Buffer<uint16_t> weight(numbers(outputs * inputs, 4));
    const Buffer<float> y(size_t{rows * outputs});
    const ptx::TensorMap x_map = map_of(x.data(), bf16, inputs, rows, 64, 3);
    const ptx::TensorMap weight_map = map_of(weight.data(), bf16, inputs, outputs, 64, 3);
    const std::string error = emulator::run(
        launch_of("gemm_sm90", number, {{2, 2}, 256, 3 * 2 * 64 * 64 * 2},
                  emulator::KernelOf<gemm_sm90_planted_0>::pack(x_map, weight_map, y.data(), rows, outputs, inputs)));
    if (!error.empty()) {
        return error;
    }
    for (size_t row = 0; row < rows; row++) {
        for (size_t output = 0; output < outputs; output++) {
            std::string why = wrong("y", row, output, y[row * outputs + output], dot(x, weight, row, output, inputs));
            if (!why.empty()) {
                return why;
            }
        }
    }
    return "";
}

std::string run_stored(int number) {
    const Buffer<uint16_t> x(numbers(64 * 64, 5));
    const Buffer<uint16_t> weight(numbers(64 * 64, 6));
    const Buffer<float> y(size_t{64 * 64});
    const ptx::TensorMap y_map = map_of(y.data(), f32, 64, 64, 64, 0);
    const std::string error =
        emulator::run(launch_of("stored_tiles_sm90", number, {1, 128, 2 * 64 * 64 * 2},
                                emulator::KernelOf<stored_tiles_sm90_planted_0>::pack(x.data(), weight.data(), y_map)));
    for (size_t i = 0; i < 64 * 64 && error.empty(); i++) {
        std::string why = wrong("y", i / 64, i % 64, y[i], dot(x, weight, i / 64, i % 64, 64));
        if (!why.empty()) {
            return why;
        }
    }
    return error;
}

// x = in + what y was before
__global__ void add_residual(const float* in, const float* y, float* x) {
    x[threadIdx.x] = in[threadIdx.x] + y[threadIdx.x % 64];
}

std::vector<float> small_floats(size_t count, uint32_t seed) {
    emulator::Random random(seed);
    std::vector<float> values(count);
    for (float& value : values) {
        value = float(int(random.below(9)) - 4);
    }
    return values;
}

// 64 outputs, 128 inputs in two slices. The launch in front reads y, which the product replaces.
std::string run_early(int number) {
    constexpr int outputs = 64;
    constexpr int inputs = 128;
    const Buffer<float> in(small_floats(inputs, 7));
    const Buffer<float> weight(small_floats(outputs * inputs, 8));
    const Buffer<float> y(small_floats(outputs, 9));
    const std::vector<float> y_before = small_floats(outputs, 9);
    const Buffer<float> x(size_t{inputs});
    const Buffer<float> parts(size_t{2 * outputs});
    const Buffer<unsigned> arrivals(std::vector<unsigned>(2, 0));
    emulator::Launch front = check::launch_of<add_residual>({1, inputs}, in.data(), y.data(), x.data());
    emulator::place_behind(nullptr, front);
    emulator::Launch product = launch_of(
        "early_product_sm90", number, {{2, 2}, 64, 33 * 256},
        emulator::KernelOf<early_product_sm90_planted_0>::pack(weight.data(), x.data(), parts.data(), arrivals.data(),
                                                               y.data(), inputs));
    product.early = true;
    emulator::place_behind(&front, product);
    std::string error = emulator::run(front);
    if (error.empty()) {
        error = emulator::run(product);
    }
    for (size_t output = 0; output < outputs && error.empty(); output++) {
        float expected = 0;
        for (size_t i = 0; i < inputs; i++) {
            expected += weight[output * inputs + i] * (in[i] + y_before[i % 64]);
        }
        error = wrong("y", 0, output, y[output], expected);
    }
    return error;
}

enum class Caught { in_both_builds, in_race_build };

// A mistake is caught if some of the 30 schedules ends with an error or with a wrong result.
void catches(const std::string& name, Caught where, const std::function<std::string()>& once) {
    if (where == Caught::in_race_build && !check::is_race_build()) {
        return;
    }
    int caught = 0;
    std::string first;
    const std::vector<emulator::Schedule> schedules = check::all_schedules();
    for (const emulator::Schedule& schedule : schedules) {
        emulator::set_schedule(schedule);
        const std::string why = once();
        caught += !why.empty();
        if (first.empty()) {
            first = why.substr(0, why.find('\n'));
        }
    }
    const std::string count = emulator::text(": in %d of %zu schedules: ", caught, schedules.size());
    check::report(name + count + first, caught > 0, "not caught");
}

}  // namespace

int main() {
    check::passes_always("grouped_gemm_mma", [] { return run_grouped(0); });
    check::passes_always("gemm_sm90", [] { return run_sm90(0); });
    check::passes_always("stored_tiles_sm90", [] { return run_stored(0); });
    check::passes_always("early_product_sm90", [] { return run_early(0); });

    const Caught both = Caught::in_both_builds;
    const Caught race = Caught::in_race_build;
    catches("cp.async wait one group short", both, [] { return run_grouped(1); });
    catches("no barrier after the cp.async wait", both, [] { return run_grouped(2); });
    catches("no __syncthreads after mbarrier.init", both, [] { return run_sm90(1); });
    catches("producer ignores the empty barrier", both, [] { return run_sm90(2); });
    catches("half of the bytes expected", both, [] { return run_sm90(3); });
    catches("consumer does not wait for full", both, [] { return run_sm90(4); });
    catches("stage released before the wgmma wait", race, [] { return run_sm90(5); });
    catches("accumulators read before wait_group", both, [] { return run_sm90(6); });
    catches("consumer never releases", both, [] { return run_sm90(7); });
    catches("try_wait without a loop", race, [] { return run_sm90(8); });
    catches("no wgmma.fence", both, [] { return run_sm90(9); });
    catches("missing fence.proxy.async before wgmma", race, [] { return run_stored(1); });
    catches("missing fence.proxy.async before a TMA store", race, [] { return run_stored(2); });
    catches("tile written before the TMA store has read it", both, [] { return run_stored(3); });
    catches("early launch without griddepcontrol.wait", both, [] { return run_early(1); });
    catches("griddepcontrol.wait in the warp that does not load", race, [] { return run_early(2); });
    catches("store before griddepcontrol.wait", race, [] { return run_early(3); });
    catches("bulk load before griddepcontrol.wait", race, [] { return run_early(4); });
    catches("no fence before the arrival", race, [] { return run_early(5); });
    catches("no fence after the arrival", race, [] { return run_early(6); });
    catches("no __syncwarp after the arrival", race, [] { return run_early(7); });
    return check::result();
}
