// Random numbers as a function of a key and a counter, by Philox4x32-10 (Salmon et al. 2011), in the distributions that
// jmoe.ops.Noise has, with the same bits.
#pragma once

#include "portable_math.cuh"

namespace noise {

using portable::Real;

// The counter that Philox scrambles, and the four random words that it makes of it.
struct Words {
    uint32_t at[4];
};

__device__ inline Words philox(uint64_t seed, Words counter) {
    uint32_t key0 = static_cast<uint32_t>(seed);
    uint32_t key1 = static_cast<uint32_t>(seed >> 32);
    Words words = counter;
#pragma unroll 1
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = static_cast<uint64_t>(0xd2511f53u) * words.at[0];
        uint64_t product1 = static_cast<uint64_t>(0xcd9e8d57u) * words.at[2];
        words.at[0] = static_cast<uint32_t>(product1 >> 32) ^ words.at[1] ^ key0;
        words.at[1] = static_cast<uint32_t>(product1);
        words.at[2] = static_cast<uint32_t>(product0 >> 32) ^ words.at[3] ^ key1;
        words.at[3] = static_cast<uint32_t>(product0);
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return words;
}

// The first two words of what Philox makes of a counter, as a number between 0 and 1.
__device__ inline Real uniform(uint64_t seed, uint32_t token, uint32_t expert, uint32_t step, uint32_t place) {
    Words words = philox(seed, {{token, expert, step, place}});
    uint64_t bits = static_cast<uint64_t>(words.at[0]) << 20 | words.at[1] >> 12;
    return (Real(static_cast<double>(bits)) + 0.5) * 0x1p-52;
}

__device__ inline Real gumbel(Real u) { return -portable::log(-portable::log(u)); }

// softplus(h) + 0.01
__device__ inline Real deviation(Real h) {
    Real rest = portable::log(Real(2.0) + portable::expm1(-fabs(h.value)));
    return ((h < 0.0 ? Real(0.0) : h) + rest) + 1e-2;
}

// Ends Horner's rule.
__device__ __forceinline__ Real polynomial(Real, Real sum) { return sum; }

template <class... Rest>
__device__ __forceinline__ Real polynomial(Real r, Real sum, double next, Rest... rest) {
    return polynomial(r, sum * r + next, rest...);
}

// Algorithm AS 241 (Wichura 1988), PPND16: the x that a standard normal number is below with probability p.
__device__ inline Real normal(Real p) {
    Real q = p - 0.5;
    if (fabs(q.value) <= 0.425) {
        Real r = Real(0.180625) - q * q;
        Real above = polynomial(r, 2.5090809287301226727E+3, 3.3430575583588128105E+4, 6.7265770927008700853E+4,
                                4.5921953931549871457E+4, 1.3731693765509461125E+4, 1.9715909503065514427E+3,
                                1.3314166789178437745E+2, 3.3871328727963666080E+0);
        Real below = polynomial(r, 5.2264952788528545610E+3, 2.8729085735721942674E+4, 3.9307895800092710610E+4,
                                2.1213794301586595867E+4, 5.3941960214247511077E+3, 6.8718700749205790830E+2,
                                4.2313330701600911252E+1, 1.0);
        return q * above / below;
    }
    bool low = q < 0.0;
    Real r = portable::root(-portable::log(low ? p : Real(1.0) - p));
    Real above = 0.0;
    Real below = 0.0;
    if (r.value <= 5.0) {
        r = r - 1.6;
        above = polynomial(r, 7.74545014278341407640E-4, 2.27238449892691845833E-2, 2.41780725177450611770E-1,
                           1.27045825245236838258E+0, 3.64784832476320460504E+0, 5.76949722146069140550E+0,
                           4.63033784615654529590E+0, 1.42343711074968357734E+0);
        below = polynomial(r, 1.05075007164441684324E-9, 5.47593808499534494600E-4, 1.51986665636164571966E-2,
                           1.48103976427480074590E-1, 6.89767334985100004550E-1, 1.67638483018380384940E+0,
                           2.05319162663775882187E+0, 1.0);
    } else {
        r = r - 5.0;
        above = polynomial(r, 2.01033439929228813265E-7, 2.71155556874348757815E-5, 1.24266094738807843860E-3,
                           2.65321895265761230930E-2, 2.96560571828504891230E-1, 1.78482653991729133580E+0,
                           5.46378491116411436990E+0, 6.65790464350110377720E+0);
        below = polynomial(r, 2.04426310338993978564E-15, 1.42151175831644588870E-7, 1.84631831751005468180E-5,
                           7.86869131145613259100E-4, 1.48753612908506148525E-2, 1.36929880922735805310E-1,
                           5.99832206555887937690E-1, 1.0);
    }
    Real x = above / below;
    return low ? -x : x;
}

}  // namespace noise
