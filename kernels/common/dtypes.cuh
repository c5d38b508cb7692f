// The floating-point types of a tensor, and short vectors of their elements as floats.
#pragma once

#include "ptx.cuh"

namespace dtypes {

// A type by the name it has in kernel symbols. Elements travel as raw bits.
struct F32 {
    using Bits = float;
    static __device__ __forceinline__ float decode(float bits) { return bits; }
    static __device__ __forceinline__ float encode(float value) { return value; }
};

struct F16 {
    using Bits = uint16_t;
    static __device__ __forceinline__ float decode(uint16_t bits) { return ptx::f16_to_f32(bits); }
    static __device__ __forceinline__ uint16_t encode(float value) { return ptx::f32_to_f16(value); }
    static __device__ __forceinline__ float2 decode_pair(uint32_t pair) { return ptx::f16x2_to_f32(pair); }
    static __device__ __forceinline__ uint32_t encode_pair(float low, float high) { return ptx::f32_to_f16x2(low, high); }
};

struct BF16 {
    using Bits = uint16_t;
    static __device__ __forceinline__ float decode(uint16_t bits) { return ptx::bf16_to_f32(bits); }
    static __device__ __forceinline__ uint16_t encode(float value) { return ptx::f32_to_bf16(value); }
    static __device__ __forceinline__ float2 decode_pair(uint32_t pair) { return ptx::bf16x2_to_f32(pair); }
    static __device__ __forceinline__ uint32_t encode_pair(float low, float high) { return ptx::f32_to_bf16x2(low, high); }
};

// Codes by which the host names a type at run time.
constexpr int kF32 = 0;
constexpr int kF16 = 1;
constexpr int kBF16 = 2;

// Eight 16-bit elements fill the widest load, 128 bits.
constexpr int kVector = 8;

template <int count>
struct Values {
    float at[count];
};

// Whether rows of so many elements, one after the other from these addresses, can be read as vectors of kVector. Null is
// an operand that is absent.
__device__ __forceinline__ bool vectors_fit(long long row_elements, const void* a, const void* b, const void* c = nullptr,
                                            const void* d = nullptr) {
    uintptr_t addresses = reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) | reinterpret_cast<uintptr_t>(c) |
                          reinterpret_cast<uintptr_t>(d);
    return row_elements % kVector == 0 && addresses % 16 == 0;
}

template <class T, int count>
struct Access {
    static_assert(count == 1, "one element, or kVector of them");

    static __device__ __forceinline__ Values<1> load(const typename T::Bits* from) { return {{T::decode(*from)}}; }

    static __device__ __forceinline__ void store(typename T::Bits* to, const Values<1>& values) {
        *to = T::encode(values.at[0]);
    }
};

template <class T>
struct Access<T, kVector> {
    static __device__ __forceinline__ Values<kVector> load(const uint16_t* from) {
        uint4 words = *reinterpret_cast<const uint4*>(from);
        float2 a = T::decode_pair(words.x);
        float2 b = T::decode_pair(words.y);
        float2 c = T::decode_pair(words.z);
        float2 d = T::decode_pair(words.w);
        return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
    }

    static __device__ __forceinline__ void store(uint16_t* to, const Values<kVector>& values) {
        uint4 words;
        words.x = T::encode_pair(values.at[0], values.at[1]);
        words.y = T::encode_pair(values.at[2], values.at[3]);
        words.z = T::encode_pair(values.at[4], values.at[5]);
        words.w = T::encode_pair(values.at[6], values.at[7]);
        *reinterpret_cast<uint4*>(to) = words;
    }
};

template <>
struct Access<F32, kVector> {
    static __device__ __forceinline__ Values<kVector> load(const float* from) {
        float4 low = reinterpret_cast<const float4*>(from)[0];
        float4 high = reinterpret_cast<const float4*>(from)[1];
        return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
    }

    static __device__ __forceinline__ void store(float* to, const Values<kVector>& values) {
        const float* v = values.at;
        reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    }
};

template <class T, int count>
__device__ __forceinline__ Values<count> load(const typename T::Bits* from) {
    return Access<T, count>::load(from);
}

template <class T, int count>
__device__ __forceinline__ void store(typename T::Bits* to, const Values<count>& values) {
    Access<T, count>::store(to, values);
}

// Whether rows of so many elements can be read in fours.
template <class T>
__device__ __forceinline__ bool quads_fit(const typename T::Bits* from, int row_elements) {
    return row_elements % 4 == 0 && reinterpret_cast<uintptr_t>(from) % (4 * sizeof(typename T::Bits)) == 0;
}

template <class T>
__device__ __forceinline__ float4 load_quad(const typename T::Bits* from) {
    uint2 words = *reinterpret_cast<const uint2*>(from);
    float2 low = T::decode_pair(words.x);
    float2 high = T::decode_pair(words.y);
    return make_float4(low.x, low.y, high.x, high.y);
}

template <>
__device__ __forceinline__ float4 load_quad<F32>(const float* from) {
    return *reinterpret_cast<const float4*>(from);
}

// Elements from an index on, of a type known at run time.
template <int count>
__device__ __forceinline__ Values<count> load(int code, const void* from, long long index) {
    if (code == kF32) {
        return load<F32, count>(static_cast<const float*>(from) + index);
    }
    const uint16_t* bits = static_cast<const uint16_t*>(from) + index;
    return code == kF16 ? load<F16, count>(bits) : load<BF16, count>(bits);
}

__device__ __forceinline__ void store(int code, void* to, long long index, float value) {
    if (code == kF32) {
        static_cast<float*>(to)[index] = value;
    } else if (code == kF16) {
        static_cast<uint16_t*>(to)[index] = F16::encode(value);
    } else {
        static_cast<uint16_t*>(to)[index] = BF16::encode(value);
    }
}

// The first of some values: all at once where a vector fits, which then all exist.
template <int count>
__device__ __forceinline__ void store(int code, void* to, long long index, const Values<count>& values, int exist, bool fits) {
    if (!fits) {
#pragma unroll
        for (int i = 0; i < count; i++) {
            if (i < exist) {
                store(code, to, index + i, values.at[i]);
            }
        }
    } else if (code == kF32) {
        store<F32, count>(static_cast<float*>(to) + index, values);
    } else if (code == kF16) {
        store<F16, count>(static_cast<uint16_t*>(to) + index, values);
    } else {
        store<BF16, count>(static_cast<uint16_t*>(to) + index, values);
    }
}

}  // namespace dtypes
