// Tensor maps: what cuTensorMapEncodeTiled writes and TMA reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emulator {

constexpr int max_tensor_rank = 5;

// The arguments of cuTensorMapEncodeTiled, with the driver's numbers for the enums.
struct TensorMapRequest {
    int type = 0;
    uint32_t rank = 0;
    void* address = nullptr;
    const uint64_t* dims = nullptr;
    const uint64_t* strides = nullptr;  // bytes, of dimension 1 and up
    const uint32_t* box = nullptr;
    const uint32_t* element_strides = nullptr;
    int interleave = 0;
    int swizzle = 0;
    int l2_promotion = 0;
    int out_of_bounds_fill = 0;  // 0 zero, 1 NaN
};

// Writes the 128 bytes of a map. Empty, or why the driver refuses it.
std::string encode_tensor_map(void* map, const TensorMapRequest& request);

enum class TensorElement : uint8_t { u8, u16, u32, i32, u64, i64, f16, f32, f64, bf16, f32_ftz, tf32, tf32_ftz };

// A map as the emulator lays it out in its 128 bytes; the hardware's own layout is not documented.
struct TensorMapBits {
    uint64_t signature;
    uint64_t address;
    uint64_t strides[max_tensor_rank - 1];
    uint64_t dims[max_tensor_rank];
    uint16_t box[max_tensor_rank];
    TensorElement element;
    uint8_t rank;
    uint8_t swizzle;  // 0 none, 1 32 bytes, 2 64 bytes, 3 128 bytes
    uint8_t fill_nan;

    uint32_t element_bytes() const;
    uint32_t inner_bytes() const { return box[0] * element_bytes(); }
    uint32_t box_rows() const;
    uint32_t box_bytes() const { return inner_bytes() * box_rows(); }
};

static_assert(sizeof(TensorMapBits) <= 128);

// False if the 128 bytes were not written by encode_tensor_map.
bool decode_tensor_map(const void* map, TensorMapBits& bits);

// 16-byte pieces are exchanged by their address: bits 4.. are XORed with bits 7.. ; swizzle_bits is 0, 1, 2, 3 for
// none, 32, 64 and 128 bytes.
constexpr uint32_t swizzled(uint32_t address, int swizzle_bits) {
    return address ^ ((address >> 7 & ((1u << swizzle_bits) - 1)) << 4);
}

}  // namespace emulator
