// Tokens times random factors, to the last bit, against plain loops over elements.
#include "kernels_host.h"

namespace {

using host::Array;
using host::Floats;
using host::Type;

uint32_t word(uint64_t seed, uint32_t token, uint32_t column, uint32_t step) {
    uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
    uint32_t x[4] = {token, column / 4, step, ~0u};
    for (int round = 0; round < 10; round++) {
        uint64_t a = 0xd2511f53ull * x[0];
        uint64_t b = 0xcd9e8d57ull * x[2];
        uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ key[0], static_cast<uint32_t>(b),
                            static_cast<uint32_t>(a >> 32) ^ x[3] ^ key[1], static_cast<uint32_t>(a)};
        std::copy(next, next + 4, x);
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
    return x[column % 4];
}

// The bits of an element; each step is exact or rounded by itself.
uint32_t jittered(double x, uint32_t random, double epsilon) {
    volatile double change = epsilon * ((random + 0.5) * 0x1p-31 - 1);
    volatile float factor = static_cast<float>(1 + change);
    float product = static_cast<float>(x * static_cast<double>(factor));
    uint32_t bits;
    std::memcpy(&bits, &product, 4);
    return std::isnan(product) ? 0x7fc00000u : bits;
}

void check_kernel(Type type, int tokens, int hidden, unsigned shares, int misaligned, bool has_step) {
    uint64_t seed = 0xfedcba9876543210ull + hidden;
    double epsilon = hidden % 2 == 0 ? 0.01 : 1;
    host::Numbers numbers(hidden);
    std::vector<double> values = numbers.normals(static_cast<size_t>(tokens) * hidden);
    const double special[] = {NAN, INFINITY, -INFINITY, 0, 3e38, 1e-45};
    for (size_t i = 0; i < values.size(); i += 7) {
        values[i] = special[i % 6];
    }
    Floats x(type, values, misaligned);
    Floats y(host::kF32, values.size(), misaligned);
    Array<int> step(std::vector<int>{-5});
    std::string kernel = std::string("jitter_") + host::name_of(type) + "_f32";
    std::string why = host::launch(kernel, {host::blocks(kernel, tokens), shares}, x.data(),
                                   has_step ? step.input() : nullptr, y.data(), tokens, hidden, seed, epsilon);
    for (size_t i = 0; i < values.size() && why.empty(); i++) {
        uint32_t token = static_cast<uint32_t>(i / hidden);
        uint32_t column = static_cast<uint32_t>(i % hidden);
        uint32_t want = jittered(x.at(i), word(seed, token, column, has_step ? -5u : 0u), epsilon);
        uint32_t got;
        std::memcpy(&got, static_cast<const char*>(y.data()) + 4 * i, 4);
        if (got != want) {
            char text[100];
            std::snprintf(text, sizeof text, "element %zu: got %08x, want %08x", i, got, want);
            why = text;
        }
    }
    host::report(kernel + " T=" + std::to_string(tokens) + " H=" + std::to_string(hidden) + " shares " +
                     std::to_string(shares) + " misaligned " + std::to_string(misaligned),
                 why);
}

}  // namespace

int main() {
    for (Type type : host::kTypes) {
        check_kernel(type, 0, 8, 1, 0, true);
        check_kernel(type, 1, 1, 1, 0, true);
        check_kernel(type, 3, 37, 1, 0, false);
        check_kernel(type, 5, 64, 1, 0, true);
        check_kernel(type, 4, 64, 1, 1, true);
        check_kernel(type, 2, 2080, 3, 0, true);
        check_kernel(type, 3, 1347, 2, 1, false);
    }
    return check::result();
}
