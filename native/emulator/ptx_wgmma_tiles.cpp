// The arithmetic of wgmma: matrix descriptors, tiles, products.

#include <algorithm>
#include <cstring>

#include "fail.h"
#include "ptx_numbers.h"
#include "ptx_state.h"
#include "ptx_tensor_map.h"
#include "ptx_wgmma_state.h"

namespace emulator {

using ptx::Wgmma;
using ptx::WgmmaType;

namespace {

constexpr int tile_rows = 64;
constexpr int max_rows = 256;
constexpr int max_k = 32;
constexpr uint32_t chunk_bytes = 16;

struct Format {
    const char* name;
    int bytes;
    int k;
};

constexpr Format formats[] = {{"bf16", 2, 16}, {"f16", 2, 16}, {"tf32", 4, 8}, {"e4m3", 1, 32}, {"s8", 1, 32}};

const Format& format_of(WgmmaType type) { return formats[int(type)]; }

float value_of(WgmmaType type, const std::byte* bytes) {
    uint32_t bits = 0;
    std::memcpy(&bits, bytes, format_of(type).bytes);
    switch (type) {
        case WgmmaType::bf16: return bf16_value(uint16_t(bits));
        case WgmmaType::f16: return f16_value(uint16_t(bits));
        case WgmmaType::tf32: return tf32_value(bits);
        case WgmmaType::e4m3: return e4m3_value(uint8_t(bits));
        case WgmmaType::s8: return float(int8_t(bits));
    }
    return 0;
}

// The fields of a matrix descriptor, in bytes.
struct Descriptor {
    uint32_t start;
    uint32_t leading;
    uint32_t stride;
    int swizzle_bits;  // 0 none, 1 32 bytes, 2 64, 3 128

    explicit Descriptor(uint64_t bits)
        : start(uint32_t(bits & 0x3fff) << 4),
          leading(uint32_t(bits >> 16 & 0x3fff) << 4),
          stride(uint32_t(bits >> 32 & 0x3fff) << 4),
          swizzle_bits(int(4 - (bits >> 62)) % 4) {}

    uint32_t span() const { return chunk_bytes << swizzle_bits; }
};

// Address of 16 bytes of a K-major tile: row `row`, the chunk of k that begins at byte `k_bytes`.
uint32_t k_major_chunk(const Descriptor& descriptor, uint32_t row, uint32_t k_bytes) {
    if (descriptor.swizzle_bits == 0) {
        return descriptor.start + row % 8 * 16 + row / 8 * descriptor.stride + k_bytes / 16 * descriptor.leading;
    }
    return swizzled(descriptor.start + row % 8 * descriptor.span() + row / 8 * descriptor.stride + k_bytes,
                    descriptor.swizzle_bits);
}

// Address of 16 bytes of an MN-major tile of 16-bit elements: rows from `row` on (a multiple of 8) at one k.
uint32_t mn_major_chunk(const Descriptor& descriptor, uint32_t row, uint32_t k) {
    if (descriptor.swizzle_bits == 0) {
        return descriptor.start + row / 8 * descriptor.stride + k % 8 * 16 + k / 8 * descriptor.leading;
    }
    const uint32_t span_rows = descriptor.span() / 2;
    return swizzled(descriptor.start + 2 * (row % span_rows) + row / span_rows * descriptor.leading +
                        k % 8 * descriptor.span() + k / 8 * descriptor.stride,
                    descriptor.swizzle_bits);
}

// Calls visit(address, row, k) for every 16 bytes of `rows` rows: of 16 bytes of k, or of 8 rows if transposed.
template <class Visit>
void for_each_chunk(uint64_t bits, WgmmaType type, bool transpose, int first_row, int rows, Visit visit) {
    const Descriptor descriptor(bits);
    const Format& format = format_of(type);
    const int per_chunk = int(chunk_bytes) / format.bytes;
    if (transpose) {
        for (int k = 0; k < format.k; k++) {
            for (int row = first_row; row < first_row + rows; row += 8) {
                visit(mn_major_chunk(descriptor, row, k), row, k);
            }
        }
        return;
    }
    for (int row = first_row; row < first_row + rows; row++) {
        for (int k = 0; k < format.k; k += per_chunk) {
            visit(k_major_chunk(descriptor, row, k * format.bytes), row, k);
        }
    }
}

// A tile as floats, k after k: element (row, k) is values[k][row].
struct Tile {
    float values[max_k][max_rows];
};

void load_tile(AsyncOperation& operation, uint64_t bits, WgmmaType type, bool transpose, int rows, const char* what,
               Site site, Tile& tile) {
    const int per_chunk = int(chunk_bytes) / format_of(type).bytes;
    for_each_chunk(bits, type, transpose, 0, rows, [&](uint32_t address, int row, int k) {
        shared_read(operation.agent, address, chunk_bytes, Proxy::async, what, site);
        const std::byte* bytes = shared_pointer(*operation.block, address, chunk_bytes, what, site);
        for (int i = 0; i < per_chunk; i++) {
            const float value = value_of(type, bytes + i * format_of(type).bytes);
            if (transpose) {
                tile.values[k][row + i] = value;
            } else {
                tile.values[k + i][row] = value;
            }
        }
    });
}

// Fragment of a in registers: register 2 s + h of thread t holds row 16 (t / 32) + (t % 32) / 4 + 8 h and consecutive k
// from step s (half of the k) + the thread's share on.
void unpack_registers(const std::vector<uint32_t>& registers, WgmmaType type, Tile& tile) {
    const Format& format = format_of(type);
    const int per_register = 4 / format.bytes;
    for (int thread = 0; thread < warpgroup_threads; thread++) {
        for (int index = 0; index < 4; index++) {
            const int row = thread / 32 * 16 + thread % 32 / 4 + index % 2 * 8;
            const int first_k = index / 2 * format.k / 2 + thread % 4 * per_register;
            const std::byte* bytes = reinterpret_cast<const std::byte*>(&registers[thread * 4 + index]);
            for (int i = 0; i < per_register; i++) {
                tile.values[first_k + i][row] = value_of(type, bytes + i * format.bytes);
            }
        }
    }
}

// One row of the product: sum over k of a[k] * b[k][column].
void multiply_row(const Tile& a, const Tile& b, int row, int columns, int k_count, float* sums) {
    std::fill_n(sums, columns, 0.0f);
    for (int k = 0; k < k_count; k++) {
        const float factor = a.values[k][row];
        const float* values = b.values[k];
        for (int column = 0; column < columns; column++) {
            sums[column] += factor * values[column];
        }
    }
}

uint32_t accumulate(WgmmaType type, uint32_t d, bool scale_d, float sum) {
    if (type == WgmmaType::s8) {
        return uint32_t(int32_t(sum)) + (scale_d ? d : 0);  // exact: 32 products of two bytes need 19 bits
    }
    return std::bit_cast<uint32_t>((scale_d ? std::bit_cast<float>(d) : 0.0f) + sum);
}

}  // namespace

void wgmma_compute(AsyncOperation& operation, const Wgmma& operands, const std::vector<uint32_t>& a_registers,
                   std::vector<uint32_t>& d, Site site) {
    const auto a = std::make_unique_for_overwrite<Tile>();
    const auto b = std::make_unique_for_overwrite<Tile>();
    if (a_registers.empty()) {
        load_tile(operation, operands.a, operands.type, operands.transpose_a, tile_rows, "wgmma, matrix A", site, *a);
    } else {
        unpack_registers(a_registers, operands.type, *a);
    }
    load_tile(operation, operands.b, operands.type, operands.transpose_b, operands.n, "wgmma, matrix B", site, *b);
    const int per_thread = operands.n / 2;
    float sums[max_rows];
    for (int row = 0; row < tile_rows; row++) {
        multiply_row(*a, *b, row, operands.n, format_of(operands.type).k, sums);
        const int quad = row / 16 * 32 + row % 8 * 4;  // the first of the four threads that share the row
        const int half = row % 16 / 8;
        for (int column = 0; column < operands.n; column++) {
            const int thread = quad + column % 8 / 2;
            const int index = column / 8 * 4 + half * 2 + column % 2;
            uint32_t& value = d[size_t(thread) * per_thread + index];
            value = accumulate(operands.type, value, operands.scale_d, sums[column]);
        }
    }
}

void wgmma_check_reads(const Wgmma& operands, Block& block, int first_thread, Site site) {
    if (!has_shadow) {
        return;
    }
    constexpr int warp_rows = 16;
    for (int warp = 0; warp < 4; warp++) {
        Agent& agent = block.threads[first_thread + warp * warp_lanes].agent;
        if (operands.a_registers == nullptr) {
            for_each_chunk(operands.a, operands.type, operands.transpose_a, warp * warp_rows, warp_rows,
                           [&](uint32_t address, int, int) {
                               shared_read(agent, address, chunk_bytes, Proxy::async, "wgmma, matrix A", site);
                           });
        }
        for_each_chunk(operands.b, operands.type, operands.transpose_b, 0, operands.n, [&](uint32_t address, int, int) {
            shared_read(agent, address, chunk_bytes, Proxy::async, "wgmma, matrix B", site);
        });
    }
}

void wgmma_check_descriptor(uint64_t descriptor, const char* operand, Site site) {
    constexpr uint64_t fields = 0xc00e3fff3fff3fff;
    if ((descriptor & ~fields) != 0) {
        fail_at(site, "wgmma: descriptor %#llx of matrix %s has bits set outside of its fields",
                static_cast<unsigned long long>(descriptor), operand);
    }
    if ((descriptor >> 49 & 7) != 0) {
        fail_at(site, "wgmma: base offset %d of matrix %s: what it does is not known, align the tile to 1024 bytes",
                int(descriptor >> 49 & 7), operand);
    }
}

}  // namespace emulator
