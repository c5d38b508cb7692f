// Makes a __global__ function known to the emulator. Used by JMOE_EXPORT in kernels/common/device.cuh.
#pragma once

#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "grid.h"

namespace emulator {

template <auto function>
struct KernelOf;

template <class... Params, void (*function)(Params...)>
struct KernelOf<function> {
    static constexpr size_t bytes[] = {sizeof(Params)..., 0};
    static constexpr size_t alignments[] = {alignof(Params)..., 1};
    static constexpr bool is_pointer[] = {std::is_pointer_v<Params>..., false};

    static constexpr size_t offset(size_t param) {
        size_t end = 0;
        for (size_t i = 0;; i++) {
            end = (end + alignments[i] - 1) / alignments[i] * alignments[i];
            if (i == param) {
                return end;
            }
            end += bytes[i];
        }
    }

    template <size_t... index>
    static void call(const std::byte* params, std::index_sequence<index...>) {
        function(*reinterpret_cast<const std::remove_const_t<Params>*>(params + offset(index))...);
    }

    static void invoke([[maybe_unused]] const std::byte* params) {
        call(params, std::index_sequence_for<Params...>{});
    }

    static Kernel describe(const char* name, const char* file, int max_threads) {
        return {name, file, int(sizeof...(Params)), bytes, alignments, is_pointer, &invoke, max_threads};
    }

    // The parameter bytes of one launch; the values convert to the kernel's own parameter types.
    static std::vector<std::byte> pack(const Params&... values) {
        std::vector<std::byte> params(offset(sizeof...(Params)) + 1);
        size_t index = 0;
        ((std::memcpy(params.data() + offset(index++), &values, sizeof(Params))), ...);
        return params;
    }
};

// A namespace-scope object of this type registers kernel and constant when the library is loaded.
template <auto function>
class Registration {
public:
    Registration(const char* name, const char* file, int max_threads)
        : kernel_(KernelOf<function>::describe(name, file, max_threads)) {
        add_kernel(&kernel_);
    }

    template <class Value>
    Registration(const char* name, const char* file, int max_threads, const char* constant_name, const Value& constant)
        : Registration(name, file, max_threads) {
        constant_ = {constant_name, &constant, sizeof(Value)};
        add_constant(&constant_);
    }

    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

private:
    Kernel kernel_;
    Constant constant_{};
};

}  // namespace emulator

// At namespace scope, after the kernel and a constant named <kernel>_launch.
#define EMULATOR_EXPORT(kernel, max_threads)                                                                 \
    static const ::emulator::Registration<&kernel> kernel##_registration(#kernel, __FILE__, max_threads,     \
                                                                         #kernel "_launch", kernel##_launch)
