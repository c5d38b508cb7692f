// ldmatrix, stmatrix and mma.sync.

#include "ptx_matrix.h"

#include <cstring>
#include <type_traits>

#include "ptx_numbers.h"

namespace ptx {

using emulator::fail_at;
using emulator::Scope;

namespace {

constexpr uint32_t whole_warp = 0xffffffff;
constexpr emulator::CollectiveRules aligned = {.orders_memory = false, .same_place = true, .nobody_exited = true};
constexpr int row_bytes = 16;

// One lane of ldmatrix or stmatrix. Lane i of matrix m reads or writes element 2 (i % 4) + h of row i / 4, h = 0, 1 the
// halves of register m; the row's address came from lane 8 m + row. trans exchanges row and element.
struct MatrixLane {
    uint32_t* registers;
    std::byte* row;
    int count;
    bool transpose;
};

struct ElementPlace {
    int row;
    int element;
};

ElementPlace place_of(int lane, int half, bool transpose) {
    const int row = lane / 4;
    const int element = 2 * (lane % 4) + half;
    return transpose ? ElementPlace{element, row} : ElementPlace{row, element};
}

void load_finish(void* const* operands, uint32_t) {
    for (int lane = 0; lane < 32; lane++) {
        auto& own = *static_cast<MatrixLane*>(operands[lane]);
        for (int matrix = 0; matrix < own.count; matrix++) {
            uint16_t halves[2];
            for (int half = 0; half < 2; half++) {
                const ElementPlace place = place_of(lane, half, own.transpose);
                const auto& address_lane = *static_cast<const MatrixLane*>(operands[8 * matrix + place.row]);
                std::memcpy(&halves[half], address_lane.row + 2 * place.element, 2);
            }
            own.registers[matrix] = halves[0] | uint32_t(halves[1]) << 16;
        }
    }
}

void store_finish(void* const* operands, uint32_t) {
    for (int lane = 0; lane < 32; lane++) {
        const auto& own = *static_cast<const MatrixLane*>(operands[lane]);
        for (int matrix = 0; matrix < own.count; matrix++) {
            for (int half = 0; half < 2; half++) {
                const ElementPlace place = place_of(lane, half, own.transpose);
                const auto& address_lane = *static_cast<const MatrixLane*>(operands[8 * matrix + place.row]);
                const uint16_t value = uint16_t(own.registers[matrix] >> 16 * half);
                std::memcpy(address_lane.row + 2 * place.element, &value, 2);
            }
        }
    }
}

// The lane's row, or null if the instruction does not use the address of this lane.
std::byte* row_pointer(int count, uint32_t row_address, const char* what, Site site) {
    if (emulator::current_thread->lane() >= 8 * count) {
        return nullptr;
    }
    if (row_address % row_bytes != 0) {
        fail_at(site, "%s: row address %#x is not aligned to 16 bytes", what, row_address);
    }
    return emulator::shared_pointer(row_address, row_bytes, what, site);
}

}  // namespace

void load_matrices(uint32_t* matrices, int count, bool transpose, uint32_t row_address, Site site) {
    const char* what = transpose ? "ldmatrix.trans" : "ldmatrix";
    MatrixLane lane = {matrices, row_pointer(count, row_address, what, site), count, transpose};
    if (lane.row != nullptr) {
        emulator::shared_read(emulator::running_agent(), row_address, row_bytes, emulator::Proxy::generic, what, site);
    }
    emulator::collective(Scope::warp, whole_warp, what, site, &lane, load_finish, aligned);
}

void store_matrices(uint32_t row_address, const uint32_t* matrices, int count, bool transpose, Site site) {
    const char* what = transpose ? "stmatrix.trans" : "stmatrix";
    uint32_t registers[4];
    std::memcpy(registers, matrices, count * sizeof(uint32_t));
    MatrixLane lane = {registers, row_pointer(count, row_address, what, site), count, transpose};
    if (lane.row != nullptr) {
        emulator::shared_write(emulator::running_agent(), row_address, row_bytes, emulator::Proxy::generic, what, site);
    }
    emulator::collective(Scope::warp, whole_warp, what, site, &lane, store_finish, aligned);
    emulator::maybe_preempt();
}

namespace {

constexpr int tile_rows = 16;
constexpr int tile_columns = 8;
constexpr int max_k = 32;

struct MultiplyLane {
    Multiply kind;
    void* d;
    const uint32_t* a;
    const uint32_t* b;
};

// A shape is made of steps of `elements per register` * 4 k: the lanes of a row hold one register each of a step, and a
// has two registers per step (rows 0..7 and 8..15), b one.
struct Shape {
    const char* name;
    int k;
    int per_register;
    float (*value)(uint32_t register_bits, int element);  // null: s8
};

float bf16_element(uint32_t bits, int element) { return emulator::bf16_value(uint16_t(bits >> 16 * element)); }
float f16_element(uint32_t bits, int element) { return emulator::f16_value(uint16_t(bits >> 16 * element)); }
float tf32_element(uint32_t bits, int) { return emulator::tf32_value(bits); }
float e4m3_element(uint32_t bits, int element) { return emulator::e4m3_value(uint8_t(bits >> 8 * element)); }
float s8_element(uint32_t bits, int element) { return float(int8_t(bits >> 8 * element)); }

constexpr Shape shapes[] = {
    {"mma.m16n8k16.bf16", 16, 2, bf16_element}, {"mma.m16n8k16.f16", 16, 2, f16_element},
    {"mma.m16n8k8.bf16", 8, 2, bf16_element},   {"mma.m16n8k8.tf32", 8, 1, tf32_element},
    {"mma.m16n8k4.tf32", 4, 1, tf32_element},   {"mma.m16n8k32.s8", 32, 4, s8_element},
    {"mma.m16n8k16.s8", 16, 4, s8_element},     {"mma.m16n8k32.e4m3", 32, 4, e4m3_element},
};

struct Tiles {
    float a[tile_rows][max_k];
    float b[tile_columns][max_k];
};

Tiles gather(void* const* operands, const Shape& shape) {
    Tiles tiles;
    const int step_k = 4 * shape.per_register;
    for (int lane = 0; lane < 32; lane++) {
        const auto& own = *static_cast<const MultiplyLane*>(operands[lane]);
        const int group = lane / 4;
        for (int step = 0; step < shape.k / step_k; step++) {
            for (int element = 0; element < shape.per_register; element++) {
                const int k = step * step_k + (lane % 4) * shape.per_register + element;
                tiles.a[group][k] = shape.value(own.a[2 * step], element);
                tiles.a[group + 8][k] = shape.value(own.a[2 * step + 1], element);
                tiles.b[group][k] = shape.value(own.b[step], element);
            }
        }
    }
    return tiles;
}

// Number is float, or uint32_t for s8: sums of integers wrap around.
template <class Number>
void multiply_tiles(void* const* operands, const Shape& shape) {
    const Tiles tiles = gather(operands, shape);
    for (int lane = 0; lane < 32; lane++) {
        const auto& own = *static_cast<const MultiplyLane*>(operands[lane]);
        for (int index = 0; index < 4; index++) {
            const float* row = tiles.a[lane / 4 + 8 * (index / 2)];
            const float* column = tiles.b[2 * (lane % 4) + index % 2];
            float sum = 0;
            for (int k = 0; k < shape.k; k++) {
                sum += row[k] * column[k];
            }
            Number d;
            std::memcpy(&d, static_cast<std::byte*>(own.d) + 4 * index, 4);
            if constexpr (std::is_integral_v<Number>) {
                d += Number(int32_t(sum));  // exact: 32 products of two bytes need 19 bits
            } else {
                d += sum;
            }
            std::memcpy(static_cast<std::byte*>(own.d) + 4 * index, &d, 4);
        }
    }
}

void multiply_finish(void* const* operands, uint32_t) {
    const Multiply kind = static_cast<const MultiplyLane*>(operands[0])->kind;
    const Shape& shape = shapes[int(kind)];
    if (kind == Multiply::s8_k32 || kind == Multiply::s8_k16) {
        multiply_tiles<uint32_t>(operands, shape);
    } else {
        multiply_tiles<float>(operands, shape);
    }
}

}  // namespace

void multiply(Multiply kind, void* d, const uint32_t* a, const uint32_t* b, Site site) {
    MultiplyLane lane = {kind, d, a, b};
    emulator::collective(Scope::warp, whole_warp, shapes[int(kind)].name, site, &lane, multiply_finish, aligned);
}

}  // namespace ptx
