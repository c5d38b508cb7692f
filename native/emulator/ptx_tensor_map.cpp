// Tensor maps: the limits are those that cuda.h states for cuTensorMapEncodeTiled.

#include "ptx_tensor_map.h"

#include <cinttypes>
#include <cstring>

#include "fail.h"

namespace emulator {

namespace {

constexpr uint64_t map_signature = 0x70616d2d6d74616aull;
constexpr uint64_t max_dim = 1ull << 32;
constexpr uint64_t stride_bound = 1ull << 40;
constexpr uint32_t max_box = 256;
constexpr uint32_t swizzle_span[] = {0, 32, 64, 128};
constexpr uint32_t bytes_of_element[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
constexpr int num_elements = int(std::size(bytes_of_element));

bool is_float(TensorElement element) { return element >= TensorElement::f16; }

std::string refuse_modes(const TensorMapRequest& request) {
    if (request.type < 0 || request.type >= num_elements) {
        return text("tensorDataType %d, expected 0 to %d", request.type, num_elements - 1);
    }
    if (request.rank < 1 || request.rank > uint32_t(max_tensor_rank)) {
        return text("tensorRank %u, expected 1 to 5", request.rank);
    }
    if (request.interleave != 0) {
        return text("interleave %d is not emulated, expected 0", request.interleave);
    }
    if (request.swizzle < 0 || request.swizzle > 3) {
        return text("swizzle %d, expected 0 to 3", request.swizzle);
    }
    if (request.l2_promotion < 0 || request.l2_promotion > 3) {
        return text("l2Promotion %d, expected 0 to 3", request.l2_promotion);
    }
    if (request.out_of_bounds_fill < 0 || request.out_of_bounds_fill > 1) {
        return text("oobFill %d, expected 0 or 1", request.out_of_bounds_fill);
    }
    if (request.out_of_bounds_fill == 1 && !is_float(TensorElement(request.type))) {
        return text("oobFill NaN with tensorDataType %d, which is not a float", request.type);
    }
    return "";
}

std::string refuse_extents(const TensorMapRequest& request) {
    for (uint32_t dim = 0; dim < request.rank; dim++) {
        if (request.dims[dim] < 1 || request.dims[dim] > max_dim) {
            return text("globalDim[%u] is %" PRIu64 ", expected 1 to 2^32", dim, request.dims[dim]);
        }
        if (request.box[dim] < 1 || request.box[dim] > max_box) {
            return text("boxDim[%u] is %u, expected 1 to 256", dim, request.box[dim]);
        }
        if (request.element_strides[dim] != 1) {
            return text("elementStrides[%u] is %u, only 1 is emulated", dim, request.element_strides[dim]);
        }
    }
    for (uint32_t dim = 0; dim + 1 < request.rank; dim++) {
        if (request.strides[dim] % 16 != 0 || request.strides[dim] >= stride_bound) {
            return text("globalStrides[%u] is %" PRIu64 ", expected a multiple of 16 below 2^40", dim,
                        request.strides[dim]);
        }
    }
    const uint32_t inner_bytes = request.box[0] * bytes_of_element[request.type];
    if (inner_bytes % 16 != 0) {
        return text("boxDim[0] takes %u bytes, expected a multiple of 16", inner_bytes);
    }
    if (request.swizzle != 0 && inner_bytes > swizzle_span[request.swizzle]) {
        return text("boxDim[0] takes %u bytes, more than the swizzle of %u", inner_bytes,
                    swizzle_span[request.swizzle]);
    }
    return "";
}

}  // namespace

std::string encode_tensor_map(void* map, const TensorMapRequest& request) {
    if (map == nullptr || reinterpret_cast<uintptr_t>(map) % 64 != 0) {
        return text("tensorMap %p is not aligned to 64 bytes", map);
    }
    const uint64_t address = reinterpret_cast<uint64_t>(request.address);
    if (address == 0 || address % 16 != 0) {
        return text("globalAddress %#" PRIx64 " is not aligned to 16 bytes", address);
    }
    if (std::string refusal = refuse_modes(request); !refusal.empty()) {
        return refusal;
    }
    if (request.dims == nullptr || request.box == nullptr || request.element_strides == nullptr ||
        (request.strides == nullptr && request.rank > 1)) {
        return "a null array";
    }
    if (std::string refusal = refuse_extents(request); !refusal.empty()) {
        return refusal;
    }
    TensorMapBits bits = {};
    bits.signature = map_signature;
    bits.address = address;
    bits.element = TensorElement(request.type);
    bits.rank = uint8_t(request.rank);
    bits.swizzle = uint8_t(request.swizzle);
    bits.fill_nan = uint8_t(request.out_of_bounds_fill);
    for (uint32_t dim = 0; dim < request.rank; dim++) {
        bits.dims[dim] = request.dims[dim];
        bits.box[dim] = uint16_t(request.box[dim]);
        if (dim > 0) {
            bits.strides[dim - 1] = request.strides[dim - 1];
        }
    }
    std::memset(map, 0, 128);
    std::memcpy(map, &bits, sizeof bits);
    return "";
}

bool decode_tensor_map(const void* map, TensorMapBits& bits) {
    std::memcpy(&bits, map, sizeof bits);
    return bits.signature == map_signature;
}

uint32_t TensorMapBits::element_bytes() const { return bytes_of_element[int(element)]; }

uint32_t TensorMapBits::box_rows() const {
    uint32_t rows = 1;
    for (int dim = 1; dim < rank; dim++) {
        rows *= box[dim];
    }
    return rows;
}

}  // namespace emulator
