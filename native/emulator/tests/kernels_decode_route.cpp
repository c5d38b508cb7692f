// Logits, routing and sort in one launch: the product against plain loops in double, and what follows against the definitions,
// given the logits that the kernel found.
#include "route_definition.h"
#include "sort_definition.h"

namespace {

using host::Type;
using namespace route_definition;
using sort_definition::Outputs;

constexpr Type kHalfTypes[] = {host::kF16, host::kBF16};
constexpr int kShare = 2048;

// What is special about the operands.
enum Special { kPlain, kTwins, kNanExpert, kInfiniteToken };

struct Case {
    RouteRule rule;
    int tokens;
    int hidden;
    int present = -1;  // -1: the kernel is not told
    double selection_scale = -1;  // negative for no biases of the selection
    bool biased = false;
    bool gate = false;
    int num_types = 0;   // 0 for none; negative: every other token is absent
    Special special = kPlain;
    int misaligned = 0;  // elements
    int spare_experts = 0;  // that the sort counts beside those of the rule

    int rows() const { return rule.num_logits + (gate ? 1 : 0); }
    int shares() const { return (hidden + kShare - 1) / kShare; }
    int known() const { return present < 0 ? tokens : std::min(present, tokens); }

    std::string name() const {
        return name_of(rule) + " T=" + to_string(tokens) + " H=" + to_string(hidden) + " present " + to_string(present) +
               " selection " + to_string(selection_scale) + " bias " + to_string(biased) + " gate " + to_string(gate) +
               " types " + to_string(num_types) + " special " + to_string(special) + " misaligned " + to_string(misaligned);
    }
};

std::vector<double> scaled(std::vector<double> values, double factor) {
    for (double& value : values) {
        value *= factor;
    }
    return values;
}

// Tokens and experts are those of a larger case with the same hidden size.
struct Inputs {
    Floats x;
    Floats weight;
    Floats gate;
    Array<float> bias;
    std::vector<float> selection;
    Array<float> device_selection;
    std::vector<int> types;
    Array<int> device_types;
    Array<int> num_tokens;

    Inputs(const Case& c, Type type)
        : x(type, x_values(c), c.misaligned),
          weight(type, weight_values(c), c.misaligned),
          gate(type, scaled(host::Numbers(3).normals(c.hidden), 2 / std::sqrt(c.hidden)), c.misaligned),
          bias(logits_of(kNormal, c.rule.num_logits, 4)),
          selection(c.selection_scale < 0 ? std::vector<float>() : logits_of(kNormal, c.rule.num_experts, 5)),
          device_selection(scaled_floats(selection, c.selection_scale)),
          types(types_of(c)),
          device_types(types),
          num_tokens(std::vector<int>{c.present}) {
        selection = device_selection.values();
    }

    static std::vector<double> x_values(const Case& c) {
        std::vector<double> values = host::Numbers(1).normals(static_cast<size_t>(c.tokens) * c.hidden);
        if (c.special == kInfiniteToken && c.tokens > 1) {
            values[c.hidden + 1] = INFINITY;
        }
        return values;
    }

    static std::vector<double> weight_values(const Case& c) {
        size_t count = static_cast<size_t>(c.rule.num_logits) * c.hidden;
        std::vector<double> values = scaled(host::Numbers(2).normals(count), 1 / std::sqrt(c.hidden));
        // Experts are as good as their neighbours, and as those 32 further on.
        for (size_t i = 0; c.special == kTwins && i < count; i++) {
            size_t twin = i / c.hidden % 32 / 2 * 2;
            values[i] = values[twin * c.hidden + i % c.hidden];
        }
        if (c.special == kNanExpert) {
            values[(c.rule.num_logits / 2) * static_cast<size_t>(c.hidden)] = NAN;
        }
        return values;
    }

    static std::vector<float> scaled_floats(std::vector<float> values, double factor) {
        for (float& value : values) {
            value *= static_cast<float>(factor);
        }
        return values;
    }

    static std::vector<int> types_of(const Case& c) {
        std::vector<int> types(c.num_types == 0 ? 0 : c.tokens);
        for (size_t token = 0; token < types.size(); token++) {
            types[token] = c.num_types < 0 ? -static_cast<int>(token) % 2 : static_cast<int>(token) % c.num_types;
        }
        return types;
    }

    bool elsewhere(const Case& c, int token) const {
        return !types.empty() && (types[token] < 0 || (c.rule.token_type != -1 && types[token] != c.rule.token_type));
    }
};

struct Results {
    Array<float> parts;
    Array<float> logits;
    Array<int> ids;
    Array<float> weights;
    Array<float> shared_weights;
    Outputs sorted;

    explicit Results(const Case& c)
        : parts(static_cast<size_t>(c.shares()) * c.tokens * c.rows()),
          logits(static_cast<size_t>(c.tokens) * c.rule.num_logits),
          ids(static_cast<size_t>(c.tokens) * c.rule.top_k),
          weights(static_cast<size_t>(c.tokens) * c.rule.top_k),
          shared_weights(c.tokens),
          sorted(static_cast<size_t>(c.tokens) * c.rule.top_k, c.rule.num_experts + c.spare_experts) {}

    // The sort follows from the ids.
    bool same_bits(const Results& other) const {
        return same(logits, other.logits) && same(ids, other.ids) && same(weights, other.weights) &&
               same(shared_weights, other.shared_weights);
    }

    template <class T>
    static bool same(const Array<T>& a, const Array<T>& b) {
        return std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
    }
};

unsigned natural_x(const std::string& kernel, const Case& c) { return host::blocks(kernel, c.rows()) * c.shares(); }

unsigned natural_y(const Case& c) { return std::max(1u, host::blocks("route_sort", c.tokens)); }

template <class T>
const T* if_any(const Array<T>& values) {
    return values.size() == 0 ? nullptr : values.input();
}

std::string launch(const Case& c, const Inputs& in, const Results& out, unsigned blocks_x, unsigned blocks_y) {
    std::string kernel = std::string("decode_route_") + host::name_of(in.x.type());
    Array<unsigned> arrivals(std::vector<unsigned>(blocks_y + 1, 0));
    for (int round = 0; round < 2; round++) {
        std::string why = host::launch(
            kernel, {blocks_x, blocks_y}, in.x.data(), in.weight.data(), c.biased ? in.bias.data() : nullptr,
            c.gate ? in.gate.data() : nullptr, if_any(in.device_selection), if_any(in.device_types),
            c.present < 0 ? nullptr : in.num_tokens.input(), out.parts.data(), out.logits.data(), out.ids.data(),
            out.weights.data(), c.gate ? out.shared_weights.data() : nullptr, out.sorted.counts.data(),
            out.sorted.offsets.data(), out.sorted.row_to_slot.data(), out.sorted.slot_to_row.data(), arrivals.data(), c.tokens,
            c.hidden, c.rule.num_experts + c.spare_experts, c.rule);
        for (unsigned counter : arrivals.values()) {
            why = why.empty() && counter != 0 ? "a counter is not 0 behind launch " + to_string(round) : why;
        }
        if (!why.empty()) {
            return why;
        }
    }
    return "";
}

std::vector<double> decoded(const Floats& values) {
    std::vector<double> decoded(values.size());
    for (size_t i = 0; i < decoded.size(); i++) {
        decoded[i] = values.at(i);
    }
    return decoded;
}

// Logits and, behind those of each token, the gate's.
std::string compare_logits(const Case& c, const Inputs& in, const Results& out) {
    std::vector<double> x = decoded(in.x);
    std::vector<double> weight = decoded(in.weight);
    std::vector<double> gate = decoded(in.gate);
    std::vector<double> got;
    std::vector<double> want;
    std::vector<double> got_gates;
    std::vector<double> want_gates;
    for (int token = 0; token < c.known(); token++) {
        for (int row = 0; row < c.rows(); row++) {
            const double* of_row = row < c.rule.num_logits ? &weight[static_cast<size_t>(row) * c.hidden] : gate.data();
            double sum = c.biased && row < c.rule.num_logits ? in.bias.at(row) : 0;
            for (int i = 0; i < c.hidden; i++) {
                sum += x[static_cast<size_t>(token) * c.hidden + i] * of_row[i];
            }
            if (row < c.rule.num_logits) {
                got.push_back(out.logits.at(static_cast<size_t>(token) * c.rule.num_logits + row));
                want.push_back(sum);
            } else {
                got_gates.push_back(out.shared_weights.at(token));
                want_gates.push_back(1 / (1 + std::exp(-sum)));
            }
        }
    }
    for (int token = c.known(); c.gate && token < c.tokens; token++) {
        got_gates.push_back(out.shared_weights.at(token));
        want_gates.push_back(0);
    }
    std::string why = host::compare(Floats(host::kF32, got), want, c.hidden);
    why = why.empty() && !out.logits.untouched_from(got.size()) ? "wrote logits of absent tokens" : why;
    // The logits' error, through a slope of a quarter.
    return why.empty() ? host::compare(Floats(host::kF32, got_gates), want_gates, c.hidden) : why;
}

std::string compare_routed(const Case& c, const Inputs& in, const Results& out) {
    std::vector<Routed> want;
    for (int token = 0; token < c.tokens; token++) {
        bool here = token < c.known() && !in.elsewhere(c, token);
        want.push_back(here ? define(c.rule, logits_of_token(c.rule, out.logits.values(), token, c.tokens), in.selection)
                            : nowhere(c.rule));
    }
    std::string why = compare_routing(c.rule, want, out.ids, out.weights);
    int sort_experts = c.rule.num_experts + c.spare_experts;
    return why.empty() ? out.sorted.compare_to(sort_definition::define(out.ids.values(), sort_experts)) : why;
}

void check_decode(const Case& c, Type type) {
    std::string kernel = std::string("decode_route_") + host::name_of(type);
    Inputs in(c, type);
    Results out(c);
    std::string why = launch(c, in, out, natural_x(kernel, c), natural_y(c));
    why = why.empty() ? compare_logits(c, in, out) : why;
    why = why.empty() ? compare_routed(c, in, out) : why;
    if (why.empty()) {
        // Other grids give the same bits.
        Results other(c);
        why = launch(c, in, other, std::max(1u, natural_x(kernel, c) / 2), std::max(1u, natural_y(c) - 1));
        why = why.empty() && !out.same_bits(other) ? "another grid gives other bits" : why;
        why = why.empty() ? compare_routed(c, in, other) : why;
    }
    host::report(kernel + " " + c.name(), why);
}

// A token alone and among others.
void check_tokens_alone(const Case& many, Type type) {
    std::string kernel = std::string("decode_route_") + host::name_of(type);
    Inputs in(many, type);
    Results out(many);
    std::string why = launch(many, in, out, natural_x(kernel, many), natural_y(many));
    for (int token = 0; why.empty() && token < many.tokens; token += 13) {
        Case one = many;
        one.tokens = 1;
        Inputs own(one, type);
        size_t bytes = static_cast<size_t>(many.hidden) * 2;
        std::memcpy(own.x.data(), static_cast<char*>(in.x.data()) + token * bytes, bytes);
        Results alone(one);
        why = launch(one, own, alone, natural_x(kernel, one), 1);
        size_t logit_bytes = static_cast<size_t>(many.rule.num_logits) * 4;
        const char* among = reinterpret_cast<const char*>(out.logits.data()) + token * logit_bytes;
        if (why.empty() && (std::memcmp(alone.logits.data(), among, logit_bytes) != 0 ||
                            std::memcmp(alone.shared_weights.data(), out.shared_weights.data() + token, 4) != 0)) {
            why = "token " + to_string(token) + " has other bits alone";
        }
    }
    host::report(kernel + " alone and among others, " + many.name(), why);
}

// ---- Given logits

void check_route_sort(const RouteRule& rule, int tokens, int kind, double selection_scale, int num_types) {
    Case c = {rule, tokens, 1};
    c.selection_scale = selection_scale;
    c.num_types = num_types;
    std::vector<float> values = logits_of(kind, static_cast<size_t>(tokens) * rule.num_logits, rule.num_experts + tokens);
    Array<float> logits(values);
    Inputs in(c, host::kF16);
    Results out(c);
    Array<unsigned> arrivals(std::vector<unsigned>(1, 0));
    std::string why;
    for (int round = 0; round < 2 && why.empty(); round++) {
        why = host::launch("route_sort", {natural_y(c)}, logits.input(), if_any(in.device_selection), if_any(in.device_types),
                           out.ids.data(), out.weights.data(), out.sorted.counts.data(), out.sorted.offsets.data(),
                           out.sorted.row_to_slot.data(), out.sorted.slot_to_row.data(), arrivals.data(), tokens,
                           rule.num_experts, rule);
        why = why.empty() && arrivals.at(0) != 0 ? "the counter is not 0" : why;
    }
    if (why.empty()) {
        std::memcpy(out.logits.data(), values.data(), values.size() * sizeof(float));
        why = compare_routed(c, in, out);
    }
    host::report("route_sort " + c.name() + " logits " + to_string(kind), why);
}

// ---- Cases

RouteRule plain(int experts, int top_k) { return rule_of(experts, top_k, 0, route_rule::kSum, 0, 1); }

RouteRule deepseek(int experts, int groups) {
    RouteRule rule = rule_of(experts, 8, kSigmoid, route_rule::kSum, 1e-20, 2.5);
    return in_groups(rule, groups, groups / 2, route_rule::kTop2Sum);
}

RouteRule sparse_mixer_rule(int experts) {
    RouteRule rule = rule_of(experts, 2, 0, route_rule::kNone, 0, 1);
    rule.selection = route_rule::kSparseMixer;
    rule.jitter = 0.01;
    return rule;
}

RouteRule for_type(RouteRule rule, int type) {
    rule.token_type = type;
    return rule;
}

std::vector<Case> decode_cases() {
    return {
        {plain(1, 1), 1, 64},
        {plain(8, 2), 0, 64},
        {plain(8, 2), 2, 1},
        {plain(8, 2), 7, 64, -1, -1, true, true},
        {plain(8, 8), 9, 100, -1, -1, false, true},
        {plain(60, 4), 8, 100, -1, 0.2, true, false, 0, kPlain, 3},
        {plain(60, 4), 33, 512, 20, -1, true, true, 0, kTwins},
        {plain(64, 8), 1, 2048},
        {plain(64, 8), 65, 136, 33, -1, false, true, -1, kPlain, 1},
        {plain(128, 8), 2, 2048, 1, -1, false, true, 0, kPlain, 8},
        {plain(128, 8), 128, 64, -1, -1, false, false, 0, kTwins},
        {deepseek(256, 8), 1, 2880, -1, 0.2},
        {deepseek(256, 8), 9, 2056, 9, 0.2, false, true},
        {deepseek(60, 4), 33, 64, -1, 0.2, false, false, 0, kTwins},
        {rule_of(384, 8, kSigmoid, route_rule::kSum, 1e-20, 2.8), 7, 512, 0, 0.1},
        {rule_of(512, 10, 0, route_rule::kNone, 0, 1), 8, 100, -1, -1, false, true},
        {rule_of(768, 12, 0, route_rule::kNone, 0, 6), 17, 72, 16, 0.01},
        {rule_of(16, 4, 0, route_rule::kClampedSum, 1e-12, 1), 64, 40, 63, -1, true, true, 3, kNanExpert, 0, 3},
        {rule_of(16, 4, kSigmoid, route_rule::kPNorm, 2, 1), 5, 40, -1, -1, false, true, 0, kInfiniteToken},
        {for_type(plain(16, 4), 1), 33, 24, 30, -1, false, true, 3},
        {plain(16, 4), 5, 40, -1, -1, false, false, 0, kInfiniteToken},
        {sparse_mixer_rule(16), 9, 160},
        {sparse_mixer_rule(16), 2, 64, -1, -1, false, false, 0, kNanExpert},
        {plain(40, 35), 3, 48, 100},
    };
}

void check_given_logits() {
    for (int tokens : {0, 1, 2, 16, 17, 100}) {
        check_route_sort(deepseek(256, 8), tokens, kNormal, 0.2, 0);
        check_route_sort(plain(128, 8), tokens, kTies, -1, 0);
        check_route_sort(plain(7, 2), tokens, kSomeNan, -1, -1);
    }
    check_route_sort(rule_of(768, 12, 0, route_rule::kNone, 0, 6), 40, kNormal, 0.01, 0);
    check_route_sort(plain(2100, 3), 19, kTies, -1, 0);
    check_route_sort(plain(8300, 2), 5, kNormal, -1, 0);
    check_route_sort(for_type(plain(64, 6), 1), 40, kInfinite, -1, 3);
    check_route_sort(in_groups(plain(200, 6), 40, 4, route_rule::kMax), 3, kNormal, -1, 0);
    check_route_sort(plain(16, 8), 600, kTies, -1, 0);
    check_route_sort(sparse_mixer_rule(60), 20, kTies, -1, -1);
}

}  // namespace

int main() {
    int round = 0;
    for (const Case& c : decode_cases()) {
        check_decode(c, kHalfTypes[round++ % 2]);
    }
    check_tokens_alone({plain(60, 4), 40, 136, -1, -1, true, true}, host::kBF16);
    check_tokens_alone({deepseek(64, 8), 14, 2120, -1, 0.2, false, true}, host::kF16);
    check_given_logits();
    return check::result();
}
