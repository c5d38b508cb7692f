// Both ways to sort by expert, against the definition.
#include "sort_definition.h"

namespace {

using namespace sort_definition;
using host::Numbers;

std::string sort_small(const Array<int>& ids, const Outputs& out, int num_experts) {
    return host::launch("sort_by_expert_small", {1}, ids.input(), out.counts.data(), out.offsets.data(),
                        out.row_to_slot.data(), out.slot_to_row.data(), static_cast<int>(ids.size()), num_experts);
}

std::string sort_in_chunks(const Array<int>& ids, const Outputs& out, int num_experts, int chunk_slots) {
    int slots = static_cast<int>(ids.size());
    unsigned chunks = static_cast<unsigned>((slots + chunk_slots - 1) / chunk_slots);
    Array<int> counts(static_cast<size_t>(chunks) * num_experts);
    std::string why =
        host::launch("sort_by_expert_count", {chunks}, ids.input(), counts.data(), slots, num_experts, chunk_slots);
    why = why.empty() ? host::launch("sort_by_expert_scan", {1}, counts.data(), out.counts.data(), out.offsets.data(),
                                     num_experts, static_cast<int>(chunks))
                      : why;
    return why.empty() ? host::launch("sort_by_expert_scatter", {chunks}, ids.input(), counts.data(), out.row_to_slot.data(),
                                      out.slot_to_row.data(), slots, num_experts, chunk_slots)
                       : why;
}

enum Pattern { kUniform, kAllToLast, kSkewed, kSomeNone, kAllNone, kHostile, kPatterns };

std::vector<int> ids_of(int pattern, int slots, int num_experts) {
    Numbers numbers(static_cast<uint64_t>(slots) * 31 + num_experts);
    int hostile[] = {INT32_MIN, num_experts, num_experts + 5, INT32_MAX, -1, -2};
    std::vector<int> ids(slots);
    for (int& id : ids) {
        id = numbers.below(num_experts);
        bool third = numbers.below(3) == 0;
        switch (pattern) {
            case kAllToLast:
                id = num_experts - 1;
                break;
            case kSkewed:
                id = std::min(__builtin_ctz(static_cast<unsigned>(numbers.below(1 << 20)) | 1 << 20), num_experts - 1);
                break;
            case kSomeNone:
                id = third ? -1 : id;
                break;
            case kAllNone:
                id = -1;
                break;
            case kHostile:
                id = third ? hostile[numbers.below(6)] : id;
                break;
            default:
                break;
        }
    }
    return ids;
}

void check_sort(int slots, int num_experts, int pattern, int chunk_slots) {
    std::vector<int> ids = ids_of(pattern, slots, num_experts);
    Array<int> device_ids(ids);
    Sorted want = define(ids, num_experts);
    std::string name = "slots " + to_string(slots) + " E=" + to_string(num_experts) + " pattern " + to_string(pattern);
    Outputs small(slots, num_experts);
    std::string why = sort_small(device_ids, small, num_experts);
    host::report("small, " + name, why.empty() ? small.compare_to(want) : why);
    Outputs chunked(slots, num_experts);
    why = sort_in_chunks(device_ids, chunked, num_experts, chunk_slots);
    host::report("chunks of " + to_string(chunk_slots) + ", " + name, why.empty() ? chunked.compare_to(want) : why);
}

}  // namespace

int main() {
    int experts[] = {1, 2, 7, 60, 256, 300, 5000, 9000};
    int round = 0;
    for (int slots : {0, 1, 31, 33, 100, 1025}) {
        for (int num_experts : experts) {
            // With the most experts one warp works alone, which takes long.
            if (num_experts < 1000 || slots == 100 || slots == 1025) {
                check_sort(slots, num_experts, round % kPatterns, round % 3 == 0 ? 33 : 256);
            }
            round++;
        }
        check_sort(slots, 8, round % kPatterns, 1000);
    }
    for (int pattern = 0; pattern < kPatterns; pattern++) {
        check_sort(777, 64, pattern, 100);
    }
    check_sort(8200, 16, kUniform, 4096);
    return check::result();
}
