#include "warp.h"

#include <algorithm>
#include <bit>

#include "cluster.h"
#include "fail.h"

namespace emulator {

namespace {

// What each lane passes and gets back.
struct Operand {
    uint64_t value;
    uint64_t result;
    int source;            // shuffle: the lane to read
    Reduction reduction;   // reduce
};

Operand& operand_of(void* const* operands, int lane) { return *static_cast<Operand*>(operands[lane]); }

bool takes_part(uint32_t present, int lane) { return present >> lane & 1; }

template <class Action>
void for_each_lane(uint32_t present, Action action) {
    for (uint32_t rest = present; rest != 0; rest &= rest - 1) {
        action(std::countr_zero(rest));
    }
}

void finish_shuffle(void* const* operands, uint32_t present) {
    for_each_lane(present, [&](int lane) {
        Operand& operand = operand_of(operands, lane);
        if (!takes_part(present, operand.source)) {
            fail("shuffle: lane %d reads lane %d, which takes no part (lanes %08x do)", lane, operand.source, present);
        }
        operand.result = operand_of(operands, operand.source).value;
    });
}

void finish_ballot(void* const* operands, uint32_t present) {
    uint32_t votes = 0;
    for_each_lane(present, [&](int lane) { votes |= uint32_t(operand_of(operands, lane).value != 0) << lane; });
    for_each_lane(present, [&](int lane) { operand_of(operands, lane).result = votes; });
}

void finish_match_any(void* const* operands, uint32_t present) {
    for_each_lane(present, [&](int lane) {
        Operand& operand = operand_of(operands, lane);
        operand.result = 0;
        for_each_lane(present, [&](int other) {
            operand.result |= uint64_t(operand_of(operands, other).value == operand.value) << other;
        });
    });
}

void finish_match_all(void* const* operands, uint32_t present) {
    uint64_t first = operand_of(operands, std::countr_zero(present)).value;
    bool equal = true;
    for_each_lane(present, [&](int lane) { equal = equal && operand_of(operands, lane).value == first; });
    for_each_lane(present, [&](int lane) { operand_of(operands, lane).result = equal ? present : 0; });
}

uint32_t combine(Reduction reduction, uint32_t a, uint32_t b) {
    switch (reduction) {
        case Reduction::add:
            return a + b;
        case Reduction::min_signed:
            return uint32_t(std::min(int32_t(a), int32_t(b)));
        case Reduction::min_unsigned:
            return std::min(a, b);
        case Reduction::max_signed:
            return uint32_t(std::max(int32_t(a), int32_t(b)));
        case Reduction::max_unsigned:
            return std::max(a, b);
        case Reduction::bit_and:
            return a & b;
        case Reduction::bit_or:
            return a | b;
        case Reduction::bit_xor:
            return a ^ b;
    }
    __builtin_unreachable();
}

void finish_reduce(void* const* operands, uint32_t present) {
    int first = std::countr_zero(present);
    uint32_t result = uint32_t(operand_of(operands, first).value);
    for_each_lane(present & (present - 1), [&](int lane) {
        const Operand& operand = operand_of(operands, lane);
        result = combine(operand.reduction, result, uint32_t(operand.value));
    });
    for_each_lane(present, [&](int lane) { operand_of(operands, lane).result = result; });
}

// The PTX rule: shfl sees its b operand modulo 32 and the segment that `width` cuts out.
int source_lane(Shuffle kind, int lane, int operand, int width) {
    int segment_begin = lane & ~(width - 1);
    int segment_end = segment_begin + width;
    int source = lane;
    switch (kind) {
        case Shuffle::index:
            return segment_begin | (operand & (width - 1));
        case Shuffle::up:
            source = lane - operand;
            break;
        case Shuffle::down:
            source = lane + operand;
            break;
        case Shuffle::butterfly:
            source = lane ^ operand;
            break;
    }
    bool inside = kind == Shuffle::up ? source >= segment_begin : source < segment_end;
    return inside ? source : lane;
}

}  // namespace

uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, uint32_t operand, int width, const char* name,
                 Site site) {
    if (width < 1 || width > warp_lanes || !std::has_single_bit(unsigned(width))) {
        fail_at(site, "%s: width %d is not a power of two up to 32", name, width);
    }
    int source = source_lane(kind, current_thread->lane(), int(operand & 31), width);
    Operand mine{value, 0, source, {}};
    collective(Scope::warp, mask, name, site, &mine, finish_shuffle);
    return mine.result;
}

uint32_t ballot(uint32_t mask, bool predicate, const char* name, Site site) {
    Operand mine{predicate, 0, 0, {}};
    collective(Scope::warp, mask, name, site, &mine, finish_ballot);
    return uint32_t(mine.result);
}

uint32_t match_any(uint32_t mask, uint64_t value, Site site) {
    Operand mine{value, 0, 0, {}};
    collective(Scope::warp, mask, "__match_any_sync", site, &mine, finish_match_any);
    return uint32_t(mine.result);
}

uint32_t match_all(uint32_t mask, uint64_t value, Site site) {
    Operand mine{value, 0, 0, {}};
    collective(Scope::warp, mask, "__match_all_sync", site, &mine, finish_match_all);
    return uint32_t(mine.result);
}

uint32_t reduce(Reduction operation, uint32_t mask, uint32_t value, const char* name, Site site) {
    Operand mine{value, 0, 0, operation};
    collective(Scope::warp, mask, name, site, &mine, finish_reduce);
    return uint32_t(mine.result);
}

void sync_warp(uint32_t mask, Site site) {
    CollectiveRules rules;
    rules.orders_memory = true;
    collective(Scope::warp, mask, "__syncwarp", site, nullptr, nullptr, rules);
}

}  // namespace emulator
