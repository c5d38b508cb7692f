// TMA: boxes of a tensor, by a tensor map.

#include <algorithm>
#include <cstring>

#include "fail.h"
#include "ptx_bulk.h"
#include "ptx_bulk_state.h"
#include "ptx_numbers.h"
#include "ptx_tensor_map.h"

namespace ptx {

using namespace emulator;

namespace {

TensorMapBits map_of(const TensorMap* map, int rank, const char* what, Site site) {
    if (reinterpret_cast<uintptr_t>(map) % 64 != 0) {
        fail_at(site, "%s: tensor map %p is not aligned to 64 bytes", what, static_cast<const void*>(map));
    }
    TensorMapBits bits;
    if (!decode_tensor_map(map, bits)) {
        fail_at(site, "%s: no tensor map at %p", what, static_cast<const void*>(map));
    }
    if (bits.rank != rank) {
        fail_at(site, "%s: the tensor map has rank %d, the instruction %d", what, bits.rank, rank);
    }
    return bits;
}

void check_box(const TensorMapBits& map, uint32_t shared, const char* what, Site site) {
    if (shared % 128 != 0) {
        fail_at(site, "%s: shared address %#x is not aligned to 128 bytes", what, shared);
    }
    const uint32_t span = map.swizzle == 0 ? 0 : 16u << map.swizzle;
    if (map.swizzle != 0 && map.inner_bytes() != span) {
        fail_at(site, "%s: box rows of %u bytes with a swizzle of %u: how they lie in shared memory is not known", what,
                map.inner_bytes(), span);
    }
}

// One row of the box that is inside of the tensor in all outer dimensions: elements [first, last) of it exist.
struct BoxRow {
    bool exists;
    uint32_t first;
    uint32_t last;
    uint64_t address;  // of the first
};

// Addresses wrap around at 2^64: large strides and dimensions can be chosen so that they clip at any row.
BoxRow row_of(const TensorMapBits& map, const Coordinates& corner, uint32_t row) {
    uint64_t address = map.address;
    for (int dim = 1; dim < map.rank; dim++) {
        const int64_t at = int64_t(corner.at[dim]) + row % map.box[dim];
        row /= map.box[dim];
        if (at < 0 || uint64_t(at) >= map.dims[dim]) {
            return {false, 0, 0, 0};
        }
        address += uint64_t(at) * map.strides[dim - 1];
    }
    const int64_t begin = corner.at[0];
    const int64_t end = begin + map.box[0];
    const int64_t first = std::clamp<int64_t>(0, begin, end);
    const int64_t last = std::clamp<int64_t>(int64_t(map.dims[0]), first, end);
    address += uint64_t(first) * map.element_bytes();
    return {first < last, uint32_t(first - begin), uint32_t(last - begin), address};
}

// What elements outside of the tensor are filled with.
void fill(const TensorMapBits& map, std::byte* row) {
    const uint32_t bytes = map.element_bytes();
    if (!map.fill_nan) {
        std::memset(row, 0, map.inner_bytes());
        return;
    }
    const uint64_t quiet_nan = bytes == 8 ? 0x7fffffffffffffff : bytes == 4 ? 0x7fffffff : 0x7fff;
    for (uint32_t i = 0; i < map.box[0]; i++) {
        std::memcpy(row + size_t(i) * bytes, &quiet_nan, bytes);
    }
}

// Moves a row between its place in the swizzled box, which begins at `shared`, and a plain buffer.
void exchange_row(const TensorMapBits& map, uint32_t shared, uint32_t row, std::byte* box, std::byte* plain,
                  bool to_box) {
    const uint32_t inner = map.inner_bytes();
    for (uint32_t byte = 0; byte < inner; byte += 16) {
        std::byte* piece = box + (swizzled(shared + row * inner + byte, map.swizzle) - shared);
        if (to_box) {
            std::memcpy(piece, plain + byte, 16);
        } else {
            std::memcpy(plain + byte, piece, 16);
        }
    }
}

FillBytes from_tensor(const TensorMapBits& map, Coordinates corner, const char* what, Site site) {
    return [=](AsyncOperation& operation, uint32_t target, std::byte* bytes) {
        std::vector<std::byte> plain(map.inner_bytes());
        for (uint32_t row = 0; row < map.box_rows(); row++) {
            const BoxRow part = row_of(map, corner, row);
            fill(map, plain.data());
            if (part.exists) {
                const void* source = reinterpret_cast<const void*>(part.address);
                const size_t length = size_t(part.last - part.first) * map.element_bytes();
                global_read(operation.agent, source, length, what, site);
                std::memcpy(plain.data() + size_t(part.first) * map.element_bytes(), source, length);
            }
            exchange_row(map, target, row, bytes, plain.data(), true);
        }
    };
}

template <class Number>
void add_numbers(std::byte* to, const std::byte* from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        Number sum, value;
        std::memcpy(&sum, to + i * sizeof(Number), sizeof(Number));
        std::memcpy(&value, from + i * sizeof(Number), sizeof(Number));
        sum += value;
        std::memcpy(to + i * sizeof(Number), &sum, sizeof(Number));
    }
}

void add_halves(std::byte* to, const std::byte* from, size_t count, float (*value)(uint16_t), uint16_t (*bits)(float)) {
    for (size_t i = 0; i < count; i++) {
        uint16_t sum, addend;
        std::memcpy(&sum, to + 2 * i, 2);
        std::memcpy(&addend, from + 2 * i, 2);
        sum = bits(value(sum) + value(addend));
        std::memcpy(to + 2 * i, &sum, 2);
    }
}

void add_elements(TensorElement element, std::byte* to, const std::byte* from, size_t count, const char* what,
                  Site site) {
    switch (element) {
        case TensorElement::u32:
        case TensorElement::i32: add_numbers<uint32_t>(to, from, count); break;
        case TensorElement::u64: add_numbers<uint64_t>(to, from, count); break;
        case TensorElement::f32:
        case TensorElement::f32_ftz: add_numbers<float>(to, from, count); break;
        case TensorElement::f16: add_halves(to, from, count, f16_value, f16_bits); break;
        case TensorElement::bf16: add_halves(to, from, count, bf16_value, bf16_bits); break;
        default: fail_at(site, "%s: no addition for tensor element type %d", what, int(element));
    }
}

}  // namespace

void tma_load(uint32_t target, const TensorMap* map, uint32_t barrier, Coordinates corner, Site site) {
    const char* what = "TMA load";
    const TensorMapBits bits = map_of(map, corner.rank, what, site);
    check_box(bits, target, what, site);
    maybe_preempt();
    start_load(single_target(target, bits.box_bytes(), barrier, what, site), bits.box_bytes(), what, site,
               from_tensor(bits, corner, what, site));
}

void tma_load_multicast(uint32_t target, const TensorMap* map, uint32_t barrier, Coordinates corner, uint16_t blocks,
                        Site site) {
    const char* what = "TMA multicast load";
    const TensorMapBits bits = map_of(map, corner.rank, what, site);
    check_box(bits, target, what, site);
    maybe_preempt();
    start_load(multicast_targets(target, bits.box_bytes(), barrier, blocks, what, site), bits.box_bytes(), what, site,
               from_tensor(bits, corner, what, site));
}

void tma_store(const TensorMap* map, uint32_t source, Coordinates corner, bool add, Site site) {
    const char* what = add ? "TMA reduce-add" : "TMA store";
    const TensorMapBits bits = map_of(map, corner.rank, what, site);
    check_box(bits, source, what, site);
    maybe_preempt();
    const auto write = [=](AsyncOperation& operation, const std::byte* data) {
        std::vector<std::byte> box(data, data + bits.box_bytes());
        std::vector<std::byte> plain(bits.inner_bytes());
        for (uint32_t row = 0; row < bits.box_rows(); row++) {
            const BoxRow part = row_of(bits, corner, row);
            if (!part.exists) {
                continue;
            }
            exchange_row(bits, shared_offset(source), row, box.data(), plain.data(), false);
            auto* place = reinterpret_cast<std::byte*>(part.address);
            const std::byte* from = plain.data() + size_t(part.first) * bits.element_bytes();
            const size_t count = part.last - part.first;
            if (add) {
                global_read(operation.agent, place, count * bits.element_bytes(), what, site);
            }
            global_write(operation.agent, place, count * bits.element_bytes(), what, site);
            if (add) {
                add_elements(bits.element, place, from, count, what, site);
            } else {
                std::memcpy(place, from, count * bits.element_bytes());
            }
        }
    };
    start_store(source, bits.box_bytes(), what, site, write);
}

void tma_prefetch(const TensorMap* map, Coordinates corner, Site site) {
    map_of(map, corner.rank, "cp.async.bulk.prefetch.tensor", site);
}

void prefetch_tensor_map(const TensorMap* map, Site site) {
    TensorMapBits bits;
    if (!decode_tensor_map(map, bits)) {
        fail_at(site, "prefetch.tensormap: no tensor map at %p", static_cast<const void*>(map));
    }
}

}  // namespace ptx
