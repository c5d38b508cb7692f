// Sorting by expert as its definition says it.
#pragma once

#include "kernels_host.h"

namespace sort_definition {

using host::Array;
using std::to_string;

struct Sorted {
    std::vector<int> counts;
    std::vector<int> offsets;
    std::vector<int> row_to_slot;
    std::vector<int> slot_to_row;
};

inline Sorted define(const std::vector<int>& ids, int num_experts) {
    Sorted sorted = {std::vector<int>(num_experts), {0}, {}, std::vector<int>(ids.size(), -1)};
    std::vector<std::vector<int>> slots(num_experts);
    for (size_t slot = 0; slot < ids.size(); slot++) {
        if (ids[slot] >= 0 && ids[slot] < num_experts) {
            slots[ids[slot]].push_back(static_cast<int>(slot));
        }
    }
    for (int expert = 0; expert < num_experts; expert++) {
        for (int slot : slots[expert]) {
            sorted.slot_to_row[slot] = static_cast<int>(sorted.row_to_slot.size());
            sorted.row_to_slot.push_back(slot);
        }
        sorted.counts[expert] = static_cast<int>(slots[expert].size());
        sorted.offsets.push_back(static_cast<int>(sorted.row_to_slot.size()));
    }
    return sorted;
}

inline std::string compare(const char* name, const Array<int>& got, const std::vector<int>& want) {
    for (size_t i = 0; i < want.size(); i++) {
        if (got.at(i) != want[i]) {
            return std::string(name) + "[" + to_string(i) + "]: got " + to_string(got.at(i)) + ", want " + to_string(want[i]);
        }
    }
    return got.untouched_from(want.size()) ? "" : std::string(name) + ": wrote behind the last one";
}

struct Outputs {
    Array<int> counts;
    Array<int> offsets;
    Array<int> row_to_slot;
    Array<int> slot_to_row;

    Outputs(size_t slots, int num_experts)
        : counts(num_experts), offsets(num_experts + 1), row_to_slot(slots), slot_to_row(slots) {}

    std::string compare_to(const Sorted& want) const {
        std::string why = compare("tokensPerExpert", counts, want.counts);
        why = why.empty() ? compare("expertOffsets", offsets, want.offsets) : why;
        why = why.empty() ? compare("rowToSlot", row_to_slot, want.row_to_slot) : why;
        return why.empty() ? compare("slotToRow", slot_to_row, want.slot_to_row) : why;
    }
};

}  // namespace sort_definition
