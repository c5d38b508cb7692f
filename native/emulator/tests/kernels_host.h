// What the check programs of the kernels share: arrays on the emulated device, launches by name, inputs, and the tolerance
// of the Java tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

#include "check.h"

namespace host {

// A check passes if nothing speaks against it. Each runs under another schedule.
inline void report(const std::string& name, const std::string& why) {
    static size_t count = 0;
    std::string under = check::name_of(emulator::schedule());
    check::report(name, why.empty(), why + " (" + under + ")");
    static const std::vector<emulator::Schedule> schedules = check::all_schedules();
    emulator::set_schedule(schedules[++count % schedules.size()]);
}

// What JMOE_EXPORT leaves beside a kernel.
struct LaunchInfo {
    int threads;
    int items_per_block;
    int shared_bytes;
    int cluster;
};

inline LaunchInfo launch_info(const std::string& kernel) {
    const emulator::Constant* constant = emulator::find_constant((kernel + "_launch").c_str());
    if (constant == nullptr || constant->bytes != sizeof(LaunchInfo)) {
        check::report(kernel, false, "it has no launch constants");
        std::exit(1);
    }
    LaunchInfo info;
    std::memcpy(&info, constant->address, sizeof info);
    return info;
}

inline unsigned blocks(const std::string& kernel, long long items) {
    int per_block = launch_info(kernel).items_per_block;
    return static_cast<unsigned>((items + per_block - 1) / per_block);
}

// Makes a launch of a kernel; empty, or what is wrong. Arguments must have the parameters' sizes.
template <class... Arguments>
std::string prepare(emulator::Launch& launch, const std::string& name, emulator::Dim3 grid, const Arguments&... arguments) {
    const emulator::Kernel* kernel = emulator::find_kernel(name.c_str());
    if (kernel == nullptr) {
        return "no kernel " + name;
    }
    if (kernel->num_params != static_cast<int>(sizeof...(Arguments))) {
        return name + " has " + std::to_string(kernel->num_params) + " parameters";
    }
    LaunchInfo info = launch_info(name);
    launch.kernel = kernel;
    launch.grid = grid;
    launch.block = emulator::Dim3(static_cast<unsigned>(info.threads));
    launch.cluster = emulator::Dim3(static_cast<unsigned>(info.cluster));
    launch.dynamic_shared = static_cast<uint32_t>(info.shared_bytes);
    launch.params.resize(kernel->params_bytes());
    int index = 0;
    std::string why;
    auto pack = [&](const void* value, size_t bytes) {
        if (bytes != kernel->param_bytes[index]) {
            why = name + ": parameter " + std::to_string(index) + " has other bytes";
            return;
        }
        std::memcpy(launch.params.data() + kernel->param_offset(index++), value, bytes);
    };
    (pack(&arguments, sizeof(Arguments)), ...);
    return why;
}

// Runs a kernel; empty, or what went wrong. An empty grid is not launched.
template <class... Arguments>
std::string launch(const std::string& name, emulator::Dim3 grid, const Arguments&... arguments) {
    emulator::Launch launch;
    std::string why = prepare(launch, name, grid, arguments...);
    return why.empty() && grid.count() > 0 ? emulator::run(launch) : why;
}

// Kernels one after the other, of which all but the first may start before the one in front of them has ended.
class Stream {
public:
    template <class... Arguments>
    std::string run(const std::string& name, emulator::Dim3 grid, const Arguments&... arguments) {
        emulator::Launch launch;
        std::string why = prepare(launch, name, grid, arguments...);
        if (!why.empty()) {
            return why;
        }
        launch.early = last_.kernel != nullptr;
        emulator::place_behind(launch.early ? &last_ : nullptr, launch);
        last_ = launch;
        return emulator::run(launch);
    }

private:
    emulator::Launch last_;
};

// Elements on the device. Begins some bytes behind an aligned address, where that is asked for, and ends where the
// allocation ends, so that reading beyond is seen.
template <class T>
class Array {
public:
    explicit Array(size_t count, size_t misaligned_by = 0) : count_(count), offset_(misaligned_by) {
        base_ = emulator::allocate(std::max<size_t>(1, offset_ + count * sizeof(T)));
    }

    explicit Array(const std::vector<T>& values, size_t misaligned_by = 0) : Array(values.size(), misaligned_by) {
        if (!values.empty()) {
            std::memcpy(data(), values.data(), values.size() * sizeof(T));
        }
        emulator::mark_written(base_ + offset_, values.size() * sizeof(T));
    }

    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;

    ~Array() { emulator::free(base_); }

    T* data() const { return reinterpret_cast<T*>(base_ + offset_); }
    const T* input() const { return data(); }
    size_t size() const { return count_; }

    T at(size_t index) const {
        T value;
        std::memcpy(&value, data() + index, sizeof(T));
        return value;
    }

    std::vector<T> values() const {
        std::vector<T> copy(count_);
        for (size_t i = 0; i < count_; i++) {
            copy[i] = at(i);
        }
        return copy;
    }

    // Fresh memory is all ones; whether it still is, from an element on.
    bool untouched_from(size_t first) const {
        const unsigned char* bytes = reinterpret_cast<const unsigned char*>(data());
        for (size_t i = first * sizeof(T); i < count_ * sizeof(T); i++) {
            if (bytes[i] != 0xff) {
                return false;
            }
        }
        return true;
    }

private:
    size_t count_;
    size_t offset_;
    emulator::DeviceAddress base_;
};

// Types by the names and codes that kernels have for them.
enum Type { kF32 = 0, kF16 = 1, kBF16 = 2 };
constexpr Type kTypes[] = {kF32, kF16, kBF16};

inline const char* name_of(Type type) { return type == kF32 ? "f32" : type == kF16 ? "f16" : "bf16"; }

inline size_t bytes_of(Type type) { return type == kF32 ? 4 : 2; }

// Largest relative error of one rounding.
inline double half_unit(Type type) { return type == kF32 ? 0x1p-24 : type == kF16 ? 0x1p-11 : 0x1p-8; }

// The least number that rounds to infinity.
inline double overflow(Type type) {
    return type == kF32 ? 0x1.ffffffp127 : type == kF16 ? 65520.0 : 0x1.ffp127;
}

inline double decode(Type type, const void* from, size_t index) {
    if (type == kF32) {
        float value;
        std::memcpy(&value, static_cast<const char*>(from) + 4 * index, 4);
        return value;
    }
    uint16_t bits;
    std::memcpy(&bits, static_cast<const char*>(from) + 2 * index, 2);
    int mantissa_bits = type == kF16 ? 10 : 7;
    int bias = type == kF16 ? 15 : 127;
    int exponent = (bits & 0x7fff) >> mantissa_bits;
    int mantissa = bits & ((1 << mantissa_bits) - 1);
    double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 2 * bias + 1) {
        return mantissa != 0 ? NAN : sign * INFINITY;
    }
    int hidden = exponent == 0 ? 0 : 1 << mantissa_bits;
    return sign * std::ldexp(hidden + mantissa, (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
}

// Some number of the type near the value: rounded towards zero, and to zero where the type has subnormals.
inline void encode(Type type, void* to, size_t index, double value) {
    if (type == kF32) {
        float narrow = static_cast<float>(value);
        std::memcpy(static_cast<char*>(to) + 4 * index, &narrow, 4);
        return;
    }
    int mantissa_bits = type == kF16 ? 10 : 7;
    int bias = type == kF16 ? 15 : 127;
    int exponent;
    double fraction = std::frexp(std::fabs(value), &exponent);
    uint16_t bits = std::signbit(value) ? 0x8000 : 0;
    if (std::isnan(value)) {
        bits |= 0x7fff;
    } else if (std::isinf(value) || exponent - 1 > bias) {
        bits |= static_cast<uint16_t>((2 * bias + 1) << mantissa_bits);
    } else if (value != 0 && exponent - 1 >= 1 - bias) {
        int mantissa = static_cast<int>(std::ldexp(fraction, mantissa_bits + 1)) - (1 << mantissa_bits);
        bits |= static_cast<uint16_t>(((exponent - 1 + bias) << mantissa_bits) + mantissa);
    }
    std::memcpy(static_cast<char*>(to) + 2 * index, &bits, 2);
}

// Floating-point elements of any type on the device.
class Floats {
public:
    Floats(Type type, size_t count, size_t misaligned_elements = 0)
        : type_(type), count_(count), bytes_(count * bytes_of(type), misaligned_elements * bytes_of(type)) {}

    Floats(Type type, const std::vector<double>& values, size_t misaligned_elements = 0)
        : Floats(type, values.size(), misaligned_elements) {
        for (size_t i = 0; i < values.size(); i++) {
            encode(type, bytes_.data(), i, values[i]);
        }
        emulator::mark_written(reinterpret_cast<emulator::DeviceAddress>(bytes_.data()), bytes_.size());
    }

    Type type() const { return type_; }
    void* data() const { return bytes_.data(); }
    size_t size() const { return count_; }
    double at(size_t index) const { return decode(type_, bytes_.data(), index); }
    bool untouched_from(size_t element) const { return bytes_.untouched_from(element * bytes_of(type_)); }

private:
    Type type_;
    size_t count_;
    Array<unsigned char> bytes_;
};

// Numbers that are the same on every machine.
class Numbers {
public:
    explicit Numbers(uint64_t seed) : random_(seed) {}

    int below(int bound) { return static_cast<int>(random_.below(static_cast<uint64_t>(bound))); }

    // Between 0 and 1, both excluded.
    double uniform() { return (static_cast<double>(random_.next() >> 11) + 0.5) * 0x1p-53; }

    double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()); }

    std::vector<double> normals(size_t count) {
        std::vector<double> values(count);
        for (double& value : values) {
            value = normal();
        }
        return values;
    }

private:
    emulator::Random random_;
};

// |got - want| <= eps(out) |want| + 4 eps(F32) sqrt(reduction) rms(want), as the Java tests have it; empty if all elements
// pass, else the first that does not.
inline std::string compare(const Floats& got, const std::vector<double>& want, double reduction) {
    double squares = 0;
    size_t finite = 0;
    for (double value : want) {
        if (std::isfinite(value)) {
            squares += value * value;
            finite++;
        }
    }
    double rms = finite == 0 ? 0 : std::sqrt(squares / static_cast<double>(finite));
    double base = 4 * 0x1p-23 * std::sqrt(reduction) * rms;
    for (size_t i = 0; i < want.size(); i++) {
        double g = got.at(i);
        double w = std::fabs(want[i]) >= overflow(got.type()) ? std::copysign(INFINITY, want[i]) : want[i];
        if (std::isnan(w) ? std::isnan(g) : g == w) {
            continue;
        }
        // Below the smallest normal number the spacing is absolute.
        double least = got.type() == kF16 ? 0x1p-25 : got.type() == kF32 ? 0x1p-150 : 0x1p-134;
        if (std::isfinite(w) && std::isfinite(g) && std::fabs(g - w) <= half_unit(got.type()) * std::fabs(w) + base + least) {
            continue;
        }
        char text[160];
        std::snprintf(text, sizeof text, "element %zu of %s[%zu]: got %.9g, want %.9g", i, name_of(got.type()), want.size(), g,
                      want[i]);
        return text;
    }
    return "";
}

}  // namespace host
