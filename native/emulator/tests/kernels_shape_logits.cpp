// The functions that Java has too, to the last bit; the transforms of logits against plain loops with those of the C library.
#include "common/noise.cuh"
#include "kernels_host.h"

namespace {

using host::Array;
using host::Floats;
using portable::Real;

// An argument and the result of java.lang.StrictMath, both as bits.
struct Pair {
    uint64_t argument;
    uint64_t result;
};

const Pair kLog[] = {
    {0x3ff0000000000000, 0x0000000000000000}, {0x3fe0000000000000, 0xbfe62e42fefa39ef},
    {0x4000000000000000, 0x3fe62e42fefa39ef}, {0x4010000000000000, 0x3ff62e42fefa39ef},
    {0x3ff000001ad7f29b, 0x3e7ad7f2847b6492}, {0x3fefffffca501acb, 0xbe7ad7f2b1049b9f},
    {0x3ca0000000000000, 0xc0425e4f7b2737fa}, {0x3fefffffffffffff, 0xbca0000000000000},
    {0x0010000000000000, 0xc086232bdd7abcd2}, {0x7fefffffffffffff, 0x40862e42fefa39ef},
    {0x3ff6a09e667f3bcd, 0x3fd62e42fefa39f0}, {0x3ff6a09e667f3bcc, 0x3fd62e42fefa39ee},
    {0x3fe6a09e667f3bcd, 0xbfd62e42fefa39ee}, {0x3ff6a09e667f3bcd, 0x3fd62e42fefa39f0},
    {0x3ff4cccccccccccd, 0x3fd0ca937be1b9dc}, {0x3ff7333333333333, 0x3fd7c7b282d0d46b},
    {0x4008000000000000, 0x3ff193ea7aad030a}, {0x40425e4f7b2737fa, 0x400cd48a14a68f37},
    {0x7ff0000000000000, 0x7ff0000000000000}, {0x3ff0000000000001, 0x3cafffffffffffff},
    {0x3ff0000080000000, 0x3e9fffff800002ab}, {0x3fefffff00000000, 0xbea0000040000155},
    {0x4000000080000000, 0x3fe62e43fefa35ef}, {0x3fcfffff80000000, 0xbff62e433efa3a6f},
    {0x3fdb9cf8dcb88ce3, 0xbfeae61d5902e747}, {0x3fec8e98cd497316, 0xbfbd242b43001998},
    {0x3feb7de33f91cf70, 0xbfc36fd204cf028d}, {0x3fdf793ac309bcff, 0xbfe6b6272f0951c7},
    {0x3fd940ce8628de33, 0xbfedc201075e0417}, {0x3fe2c6658c0eee9c, 0xbfe1100f40d4ce50},
    {0x3fed7635c4beebc3, 0xbfb5281476f63419}, {0x3fdcb824f61600df, 0xbfe9a45ba2561bfa},
    {0x3fc744c1855e875f, 0xbffb4760e814b52c}, {0x3fe1349a7277d439, 0xbfe3db3350cddac1},
    {0x3fe968d715dcf2cd, 0xbfcd84adb0c51841}, {0x3fe64c3ff245ef70, 0xbfd71ea5e636e7b5},
    {0x3fe16213793395b2, 0xbfe3870f7d63c638}, {0x3fe5c45b98f4b3d5, 0xbfd8a96843bfdaa9},
    {0x3feb3d3b5faeb0b6, 0xbfc49e3ec41c5d64}, {0x3fe96c654be6b9b2, 0xbfcd72c5c5f9c5b2},
    {0x3e89b9c4f26a1c3a, 0xc02eef5a2db35102}, {0x3d4c2f1407fee5a0, 0xc03d3d3a05f402e3},
    {0x4155db4f164d76ae, 0x402f1f4fcacb6a4c}, {0x3e99d1c14de185aa, 0xc02d8a997c7ed6bf},
    {0x41b8978854eeedd2, 0x4033d683eb5cfc64}, {0x3c7906e8eb10d42a, 0xc0432f375391f8dd},
    {0x3db3fee4c37bdae0, 0xc038baf9991b98d7}, {0x414ef9e7d0035412, 0x402e6ef60ee60a2b},
    {0x3c754c9a80c6267f, 0xc04343dc46ae5c48}, {0x432e30fe2669284e, 0x4041fe240205e309},
    {0x3ee9d0f0a32f70aa, 0xc0269c34b6f33215}, {0x402d6e5445f3c866, 0x400582de3e16c934},
    {0x411bef34902a1f34, 0x402a115dde3b7c58}, {0x40a00aa9d68f01b0, 0x401e8245b135c891},
    {0x419296725b06572e, 0x40322bf6f665e977}, {0x431f7b0c241fe392, 0x4041aac536dfea82},
    {0x3ffeb134c23a9f1e, 0x3fe4d86f2ac109be}, {0x3ff5dfc24721df7c, 0x3fd4037bf0b4dce0},
    {0x3ffc426ce96d02c4, 0x3fe233f00eff4786}, {0x3ff76ad5bf72b161, 0x3fd860756adf6aa8},
    {0x3ff8678ffd315fb2, 0x3fdb050154b3df57}, {0x3ff439593cebdadd, 0x3fcdfcf561bc2875},
    {0x3ffb8ab2be028319, 0x3fe161344e1a0f42}, {0x3ffd8a2e923f0702, 0x3fe39eea6369f967},
};
const Pair kExpm1[] = {
    {0x0000000000000000, 0x0000000000000000}, {0x8000000000000000, 0x8000000000000000},
    {0x3c90000000000000, 0x3c90000000000000}, {0xbc80000000000000, 0xbc80000000000000},
    {0x01a56e1fc2f8f359, 0x01a56e1fc2f8f359}, {0x3fd5c28f5c28f5c3, 0x3fd9eaa94c8422f6},
    {0x3fd6666666666666, 0x3fdad200b20177b2}, {0xbfd5c28f5c28f5c3, 0xbfd2725ae35e2895},
    {0xbfd6666666666666, 0xbfd2e663ed31c11e}, {0xbfc999999999999a, 0xbfc733d4a7a67a9b},
    {0x3fc999999999999a, 0x3fcc56ecf2c56468}, {0xbfd0000000000000, 0xbfcc5041854df7d4},
    {0x3ff07ae147ae147b, 0x3ffcd12a689f9b98}, {0x3ff0a3d70a3d70a4, 0x3ffd44790f5ed3cf},
    {0xbff07ae147ae147b, 0xbfe49366237d2825}, {0xbff0a3d70a3d70a4, 0xbfe4b07fce8bce81},
    {0x402a000000000000, 0x411b00b1916ac955}, {0x402c000000000000, 0x413259ab48bf05d7},
    {0xc02bcccccccccccd, 0xbfeffffe12a029f6}, {0x4043000000000000, 0x435c4b334617cc67},
    {0x4043c00000000000, 0x437fb37161577edd}, {0x4044000000000000, 0x438a220d397972ea},
    {0xc043000000000000, 0xbff0000000000000}, {0xc043733333333333, 0xbff0000000000000},
    {0xc044000000000000, 0xbff0000000000000}, {0x4049000000000000, 0x44719103e4080b45},
    {0xc085e00000000000, 0xbff0000000000000}, {0x4085e00000000000, 0x7f0d945df4f8ec8e},
    {0xfff0000000000000, 0xbff0000000000000}, {0xfe37e43c8800759c, 0xbff0000000000000},
    {0x3fd62e42fefa39ef, 0x3fda827999fcef32}, {0xbfd62e42fefa39ef, 0xbfd2bec333018867},
    {0x3ff0a2b23f3bab73, 0x3ffd413cccfe7798}, {0xbff0a2b23f3bab73, 0xbfe4afb0ccc0621a},
    {0x3fd62e42fefa39ef, 0x3fda827999fcef32}, {0x3fd62e42fefa39ee, 0x3fda827999fcef30},
    {0x4043947ae147ae14, 0x43769054d70af48e}, {0x404399999999999a, 0x43777c116605842c},
    {0x3fedcb7484140776, 0x3ff898a0cc8c19d8}, {0x3fdb736ea9b437a0, 0x3fe123a02c505d05},
    {0xbfebb73666106cd8, 0xbfe28a96bae805fc}, {0xbfe942110a789e8b, 0xbfe1778e104c6a03},
    {0x3fb8f4defa59b6d0, 0x3fba36a7fd1531ce}, {0xbfc24685d7b113c8, 0xbfc107dfa6df144c},
    {0x3fd8d914731945a0, 0x3fde5c87c80d39cb}, {0xbff138497028d3bb, 0xbfe5178f147cef90},
    {0xbfd9c17a390c3376, 0xbfd5342cac5617fd}, {0xbfe7b53bcdaace98, 0xbfe0bee4f760e59f},
    {0xbfe812e694925f6a, 0xbfe0eb4a7cf231c2}, {0xbfd3e243b743a1fa, 0xbfd1176f516e7e98},
    {0x40350d4ed23be384, 0x41d4b3532d33a016}, {0xc0249d8d66b3c990, 0xbfefffba0238451a},
    {0x402ea01804916b88, 0x41510c4ab40d9e08}, {0xc03dd16dd745b04a, 0xbfeffffffffffc0d},
    {0xc0271ab02688db3c, 0xbfefffebd5abd72f}, {0xc0372aa04f3f60f7, 0xbfeffffffff40f3b},
    {0xc046380ce5e04ba6, 0xbff0000000000000}, {0xc044ff31ffb78cfc, 0xbff0000000000000},
    {0xc02a4b02f9fca4e8, 0xbfeffffbe7df3094}, {0x403ea542a364ccfc, 0x42b288f5c5b3b96c},
    {0xc00e21f8ed25e110, 0xbfef428317a9f0f2}, {0x40444b1a6e9e9190, 0x43977ec5cf644bc9},
    {0xbf607185c3ec4ab8, 0xbf606d4cf0d61729}, {0x3e08af69bf215dc8, 0x3e08af69bf477388},
    {0x3ec0f738321f84d0, 0x3ec0f73951f55549}, {0x3d9992bf3fec8b10, 0x3d9992bf3fecdcd0},
    {0xbd9e2d4eaede9a0a, 0xbd9e2d4eaede2835}, {0xbd385107cc4ac1ac, 0xbd385107cc4ac084},
};
const Pair kTanh[] = {
    {0x0000000000000000, 0x0000000000000000}, {0x8000000000000000, 0x8000000000000000},
    {0x3c70000000000000, 0x3c70000000000000}, {0xbc80000000000000, 0xbc80000000000000},
    {0x000012688b70e62b, 0x000012688b70e62b}, {0x3feffffde7210be9, 0x3fe85ef9d39c12d2},
    {0x3ff0000000000000, 0x3fe85efab514f394}, {0xbff0000000000000, 0xbfe85efab514f394},
    {0x3fefffffffffffff, 0x3fe85efab514f394}, {0x4035ffbe76c8b439, 0x3ff0000000000000},
    {0x4036000000000000, 0x3ff0000000000000}, {0xc036000000000000, 0xbff0000000000000},
    {0x4079000000000000, 0x3ff0000000000000}, {0xffe1ccf385ebc8a0, 0xbff0000000000000},
    {0x7ff0000000000000, 0x3ff0000000000000}, {0xfff0000000000000, 0xbff0000000000000},
    {0x3fc5c28f5c28f5c3, 0x3fc58d8296a405bc}, {0x3fc70a3d70a3d70a, 0x3fc6cb5a984db975},
    {0xbfe0000000000000, 0xbfdd9353d7568af3}, {0x3fe199999999999a, 0x3fe00442f6419203},
    {0x3fe3333333333333, 0x3fe12f8292d2ccfc}, {0xbff33d6e7104c484, 0xbfeab386f1da0f4a},
    {0x3ff60b691e423f10, 0x3fec2caee1ff2995}, {0xbfbb1e600ab725c0, 0xbfbb0485de47077c},
    {0x3fd6653043aac8d0, 0x3fd5861a3d6fa2e3}, {0xbfcd49525273b8f0, 0xbfccc92d600571bb},
    {0x3fe7f337ef13839c, 0x3fe44b81e48dbd1c}, {0x3fd84c525c9eae00, 0x3fd731bc9c7a54a6},
    {0xbff7564e578347dc, 0xbfecb74b124d83f1}, {0x3ff56039b634165c, 0x3febdcd388b6d51e},
    {0xbff1a71241e47e87, 0xbfe9a7572271f343}, {0x3fb9ab08a5653f20, 0x3fb9951a117dea2b},
    {0x3ff34e111b44c7ec, 0x3feabd9958a99624}, {0xc02f175b27a3d83e, 0xbfeffffffffffdca},
    {0xc034c05f49863ea8, 0xbff0000000000000}, {0x402983bdd73683e8, 0x3feffffffffdb7da},
    {0xc02c9661c69aa2c5, 0xbfefffffffffe4f6}, {0x4030e449c4641bec, 0x3fefffffffffffda},
    {0x4034dbaf75e7846c, 0x3ff0000000000000}, {0xc02b5fc2264d9b70, 0xbfefffffffffa503},
    {0xc020371a75b0dfb0, 0xbfefffff9e911495}, {0x402444f27e3a7f40, 0x3feffffffe4f3417},
    {0xc017204c30751610, 0xbfefffd81bf0b529}, {0xc0342f922e68840a, 0xbff0000000000000},
    {0x402165cdb2439c96, 0x3fefffffe2221d60}, {0xbe61e8fe31c83490, 0xbe61e8fe31c8348e},
    {0xbfdc3708be91ff3a, 0xbfda84cffc05d5d8}, {0x3f353e932519cd38, 0x3f353e93189dbf53},
    {0x3e8a31ab4eb5ba36, 0x3e8a31ab4eb5b9d9}, {0x3f984caedd809840, 0x3f984b84038bda25},
    {0xbe49eec0af238f70, 0xbe49eec0af238f70},
};

template <size_t count>
void check_function(const std::string& name, Real (*function)(Real), const Pair (&pairs)[count]) {
    std::string why;
    for (const Pair& pair : pairs) {
        double got = function(__longlong_as_double(static_cast<long long>(pair.argument))).value;
        if (static_cast<uint64_t>(__double_as_longlong(got)) != pair.result) {
            char text[120];
            std::snprintf(text, sizeof text, "of %a: got %a, want %a", __longlong_as_double(pair.argument), got,
                          __longlong_as_double(pair.result));
            why = text;
        }
    }
    host::report(name, why);
}

// As the kernel has them.
enum Kind { kTemperature, kStandardise, kCap, kFixedNoise, kLearnedNoise, kGumbelNoise };

struct Transform {
    double number;
    uint64_t seed;
    int kind;
};

struct LogitTransforms {
    int count;
    int token_type;
    Transform at[8];
};

double uniform(const Transform& transform, uint32_t token, uint32_t expert, uint32_t step, uint32_t place) {
    uint32_t key[2] = {static_cast<uint32_t>(transform.seed), static_cast<uint32_t>(transform.seed >> 32)};
    uint32_t x[4] = {token, expert, step, place};
    for (int round = 0; round < 10; round++) {
        uint64_t a = 0xd2511f53ull * x[0];
        uint64_t b = 0xcd9e8d57ull * x[2];
        uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ key[0], static_cast<uint32_t>(b),
                            static_cast<uint32_t>(a >> 32) ^ x[3] ^ key[1], static_cast<uint32_t>(a)};
        std::copy(next, next + 4, x);
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
    return (x[0] * 0x1p20 + (x[1] >> 12) + 0.5) * 0x1p-52;
}

// By bisection of the probability.
double normal(double u) {
    double low = -40;
    double high = 40;
    for (int i = 0; i < 70; i++) {
        double middle = (low + high) / 2;
        (0.5 * std::erfc(-middle / std::sqrt(2.0)) < u ? low : high) = middle;
    }
    return low;
}

void apply(const Transform& transform, uint32_t token, uint32_t step, uint32_t place, const std::vector<double>& noise,
           std::vector<double>& row) {
    double mean = 0;
    double square = 0;
    for (double z : row) {
        mean += z / static_cast<double>(row.size());
    }
    for (double z : row) {
        square += (z - mean) * (z - mean) / static_cast<double>(row.size());
    }
    for (uint32_t e = 0; e < row.size(); e++) {
        double u = uniform(transform, token, e, step, place);
        double& z = row[e];
        switch (transform.kind) {
            case kTemperature:
                z /= transform.number;
                break;
            case kStandardise:
                z = transform.number * (z - mean) / std::sqrt(square);
                break;
            case kCap:
                z = transform.number * std::tanh(z / transform.number);
                break;
            case kFixedNoise:
                z += transform.number * normal(u);
                break;
            case kLearnedNoise:
                z += normal(u) * (std::log1p(std::exp(noise[e])) + 1e-2);
                break;
            default:
                z -= transform.number * std::log(-std::log(u));
        }
    }
}

void check_kernel(const LogitTransforms& transforms, int tokens, int experts, int misaligned) {
    host::Numbers numbers(experts);
    size_t count = static_cast<size_t>(tokens) * experts;
    std::vector<double> values = numbers.normals(count);
    std::vector<double> noise = numbers.normals(count);
    std::vector<int> types(tokens);
    for (int token = 0; token < tokens; token++) {
        types[token] = token % 4 == 3 ? -1 : token % 2;
    }
    Floats logits(host::kF32, values, misaligned);
    Floats noise_logits(host::kF32, noise, misaligned);
    Array<int> token_types(types);
    Array<int> step(std::vector<int>{-5});
    std::vector<double> want;
    for (int token = 0; token < tokens; token++) {
        std::vector<double> row;
        std::vector<double> of_noise;
        for (int e = 0; e < experts; e++) {
            row.push_back(logits.at(want.size() + e));
            of_noise.push_back(noise_logits.at(want.size() + e));
        }
        bool here = types[token] >= 0 && (transforms.token_type < 0 || transforms.token_type == types[token]);
        for (int place = 0; here && place < transforms.count; place++) {
            apply(transforms.at[place], token, static_cast<uint32_t>(-5), place, of_noise, row);
        }
        want.insert(want.end(), row.begin(), row.end());
    }
    std::string why = host::launch("shape_logits", {host::blocks("shape_logits", tokens)}, logits.data(),
                                   token_types.input(), noise_logits.data(), step.input(), tokens, experts, transforms);
    why = why.empty() ? host::compare(logits, want, 1) : why;
    host::report(std::to_string(transforms.count) + " transforms from kind " + std::to_string(transforms.at[0].kind) +
                     " T=" + std::to_string(tokens) + " E=" + std::to_string(experts) + " type " +
                     std::to_string(transforms.token_type),
                 why);
}

}  // namespace

int main() {
    check_function("log", portable::log, kLog);
    check_function("expm1", portable::expm1, kExpm1);
    check_function("tanh", portable::tanh, kTanh);
    Transform every[] = {{0.7, 0, kTemperature},        {1.3, 0, kStandardise},          {1.5, 0, kCap},
                         {0.25, 5, kFixedNoise},        {0, ~5ull, kLearnedNoise},       {0.9, 1ull << 40 | 7, kGumbelNoise},
                         {2.0, 0, kStandardise},        {40, 0, kCap}};
    for (int first = 0; first < 8; first++) {
        LogitTransforms one = {1, -1, {every[first]}};
        check_kernel(one, 5, first % 2 == 0 ? 8 : 33, first % 2);
        LogitTransforms all = {8, first % 3 - 1, {}};
        for (int place = 0; place < 8; place++) {
            all.at[place] = every[(first + place) % 8];
        }
        check_kernel(all, first + 1, 2 + 9 * first, 0);
    }
    return check::result();
}
