// Matrix descriptors of wgmma, the same for both compilers. Included by ptx.cuh.
#pragma once

namespace ptx {

// How a tile lies in shared memory; the values are those of bits 62 and 63 of a descriptor.
enum class Swizzle : uint32_t { NONE = 0, BYTES_128 = 1, BYTES_64 = 2, BYTES_32 = 3 };

// The descriptor of a tile at address. leading and stride are byte distances, whose meaning depends on the layout:
//   K-major, swizzled    stride from 8 rows to the next 8; leading is not read (16)
//   K-major, no swizzle  stride from 8 rows to the next 8; leading from 16 bytes of k to the next
//   MN-major, swizzled   stride from 8 k to the next 8; leading from one swizzle span of rows to the next
//   MN-major, no swizzle stride from 8 rows to the next 8; leading from 8 k to the next
// The swizzle is a function of the address, so a tile starts at a multiple of 8 spans (1024 bytes for 128): the base
// offset is 0 then.
__device__ __forceinline__ uint64_t matrix_descriptor(uint32_t address, uint32_t leading, uint32_t stride,
                                                      Swizzle swizzle) {
    return static_cast<uint64_t>((address & 0x3ffff) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
           static_cast<uint64_t>(stride >> 4) << 32 | static_cast<uint64_t>(swizzle) << 62;
}

// The usual one: rows of 128 bytes, K-major, 128-byte swizzle. The next 32 bytes of k are descriptor + 2, the next 64
// rows are descriptor + 512.
__device__ __forceinline__ uint64_t k_major_descriptor(uint32_t address) {
    return matrix_descriptor(address, 16, 1024, Swizzle::BYTES_128);
}

}  // namespace ptx
