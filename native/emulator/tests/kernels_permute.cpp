// permute and unpermute against plain loops.
#include "kernels_host.h"

namespace {

using host::Array;
using host::Floats;
using host::Numbers;
using host::Type;
using std::to_string;

// A routing by hand: some slots without a row, the others in an order of their own.
struct Routing {
    int tokens;
    int top_k;
    std::vector<int> row_to_slot;
    std::vector<int> slot_to_row;
    std::vector<int> ids;
    std::vector<float> weights;
    int num_rows = 0;

    Routing(int tokens, int top_k, Numbers& numbers)
        : tokens(tokens), top_k(top_k), row_to_slot(slots(), -1), slot_to_row(slots(), -1), ids(slots()), weights(slots()) {
        std::vector<int> order;
        for (int slot = 0; slot < tokens * top_k; slot++) {
            ids[slot] = numbers.below(8);
            weights[slot] = slot % 7 == 3 ? (slot % 2 == 0 ? 0.0f : -0.0f) : static_cast<float>(numbers.uniform());
            if (numbers.below(4) != 0) {
                order.insert(order.begin() + numbers.below(static_cast<int>(order.size()) + 1), slot);
            }
        }
        num_rows = static_cast<int>(order.size());
        for (int row = 0; row < num_rows; row++) {
            row_to_slot[row] = order[row];
            slot_to_row[order[row]] = row;
        }
    }

    size_t slots() const { return static_cast<size_t>(tokens) * top_k; }

    // Of the last two of three experts: a permutation leaves the rows of the first one alone.
    int first_row() const { return num_rows / 3; }
    std::vector<int> offsets() const { return {first_row(), num_rows / 2, num_rows}; }
};

constexpr int kGroups = 2;

struct Size {
    int tokens;
    int top_k;
    int hidden;
    int misaligned;  // elements
    unsigned grid_y;

    std::string name() const {
        return "T=" + to_string(tokens) + " K=" + to_string(top_k) + " H=" + to_string(hidden) + " offset " +
               to_string(misaligned) + " grid.y " + to_string(grid_y);
    }
};

std::vector<Size> sizes() {
    std::vector<Size> all = {{0, 2, 16, 0, 1}, {1, 1, 1, 0, 1},  {1, 8, 2056, 0, 3}, {33, 2, 1040, 0, 2},
                             {9, 3, 40, 0, 1}, {7, 2, 1031, 1, 1}, {2, 64, 24, 0, 1},  {5, 1, 1024, 1, 2}};
    for (int hidden = 2; hidden <= 33; hidden++) {
        all.push_back({1 + hidden % 5, 1 + hidden % 4, hidden, hidden % 3 == 0, 1});
    }
    return all;
}

void check_copy(const Size& size, int row_bytes) {
    Numbers numbers(size.hidden);
    Routing routing(size.tokens, size.top_k, numbers);
    std::vector<unsigned char> bytes(static_cast<size_t>(size.tokens) * row_bytes);
    for (unsigned char& byte : bytes) {
        byte = static_cast<unsigned char>(numbers.below(255));
    }
    Array<unsigned char> x(bytes, size.misaligned);
    Array<unsigned char> rows(routing.slots() * row_bytes, size.misaligned);
    Array<int> row_to_slot(routing.row_to_slot);
    Array<int> offsets(routing.offsets());
    int max_rows = static_cast<int>(routing.slots());
    std::string why = host::launch("permute_copy", {host::blocks("permute_copy", max_rows), size.grid_y}, x.data(),
                                   row_to_slot.data(), offsets.data(), kGroups, rows.data(), max_rows,
                                   static_cast<long long>(row_bytes), size.top_k);
    std::vector<unsigned char> fresh(row_bytes, 0xff);
    for (int row = 0; why.empty() && row < routing.num_rows; row++) {
        int token = routing.row_to_slot[row] / size.top_k;
        bool before = row < routing.first_row();
        const unsigned char* want = before ? fresh.data() : &bytes[static_cast<size_t>(token) * row_bytes];
        if (std::memcmp(rows.data() + static_cast<size_t>(row) * row_bytes, want, row_bytes) != 0) {
            why = "row " + to_string(row) + (before ? " was written" : " is no copy of token " + to_string(token));
        }
    }
    if (why.empty() && !rows.untouched_from(static_cast<size_t>(routing.num_rows) * row_bytes)) {
        why = "wrote behind the last row";
    }
    host::report("permute_copy " + size.name() + " row bytes " + to_string(row_bytes), why);
}

void check_permute(const Size& size, Type from, Type to, bool weighted) {
    Numbers numbers(size.hidden + 100);
    Routing routing(size.tokens, size.top_k, numbers);
    Floats x(from, numbers.normals(static_cast<size_t>(size.tokens) * size.hidden), size.misaligned);
    Floats rows(to, routing.slots() * size.hidden, size.misaligned);
    Array<int> row_to_slot(routing.row_to_slot);
    Array<int> offsets(routing.offsets());
    Array<float> weights(routing.weights);
    int max_rows = static_cast<int>(routing.slots());
    std::string kernel = std::string("permute_") + host::name_of(from) + "_" + host::name_of(to);
    std::string why = host::launch(kernel, {host::blocks(kernel, max_rows), size.grid_y}, x.data(), row_to_slot.data(),
                                   offsets.data(), kGroups, weighted ? weights.data() : nullptr, rows.data(), max_rows,
                                   size.hidden, size.top_k);
    std::vector<double> want(static_cast<size_t>(routing.num_rows) * size.hidden);
    for (size_t i = 0; i < want.size(); i++) {
        int slot = routing.row_to_slot[i / size.hidden];
        double weight = weighted ? routing.weights[slot] : 1.0;
        want[i] = weight * x.at(static_cast<size_t>(slot / size.top_k) * size.hidden + i % size.hidden);
        if (static_cast<int>(i / size.hidden) < routing.first_row()) {
            want[i] = NAN;  // fresh
        }
    }
    why = why.empty() ? host::compare(rows, want, 1) : why;
    if (why.empty() && !rows.untouched_from(want.size())) {
        why = "wrote behind the last row";
    }
    host::report(kernel + (weighted ? " weighted " : " ") + size.name(), why);
}

// What belongs to the sum besides the rows.
struct Extras {
    bool weighted;
    int addend_rows;  // 0 for none, 1, or 2 for as many as tokens
    bool identity;
    bool in_place;
    float factor;
};

void check_unpermute(const Size& size, Type from, Type to, Type extra, const Extras& extras) {
    Numbers numbers(size.hidden + 200);
    Routing routing(size.tokens, size.top_k, numbers);
    size_t hidden = size.hidden;
    std::vector<double> row_values = numbers.normals(routing.slots() * hidden);
    for (size_t row = 0; row < routing.slots(); row++) {
        bool used = row < static_cast<size_t>(routing.num_rows) && routing.weights[routing.row_to_slot[row]] != 0.0f;
        if (!used && extras.weighted) {
            std::fill_n(row_values.begin() + row * hidden, hidden, NAN);
        }
    }
    size_t elements = size.tokens * hidden;
    int addend_rows = extras.addend_rows == 1 ? 1 : size.tokens;
    Floats rows(from, row_values, size.misaligned);
    Floats identity(extra, numbers.normals(elements), size.misaligned);
    Floats addend(extras.in_place ? to : extra, numbers.normals(addend_rows * hidden), size.misaligned);
    Floats fresh(to, elements, size.misaligned);
    const Floats& y = extras.in_place ? addend : fresh;
    int first_identity = 5;
    std::vector<double> want(elements);
    for (size_t i = 0; i < elements; i++) {
        size_t token = i / hidden;
        double sum = 0;
        for (int k = 0; k < size.top_k; k++) {
            size_t slot = token * size.top_k + k;
            double weight = extras.weighted ? routing.weights[slot] : 1.0;
            if (routing.slot_to_row[slot] >= 0 && weight != 0) {
                bool own = extras.identity && routing.ids[slot] >= first_identity;
                sum += weight * (own ? identity.at(i) : rows.at(routing.slot_to_row[slot] * hidden + i % hidden));
            }
        }
        want[i] = extras.factor * sum;
        if (extras.addend_rows != 0) {
            want[i] += addend.at(addend_rows == 1 ? i % hidden : i);
        }
    }
    Array<int> slot_to_row(routing.slot_to_row);
    Array<int> ids(routing.ids);
    Array<float> weights(routing.weights);
    std::string kernel = std::string("unpermute_") + host::name_of(from) + "_" + host::name_of(to);
    std::string why = host::launch(kernel, {host::blocks(kernel, size.tokens), size.grid_y}, rows.data(), slot_to_row.data(),
                                   ids.data(), extras.weighted ? weights.data() : nullptr,
                                   extras.addend_rows == 0 ? nullptr : addend.data(),
                                   extras.identity ? identity.data() : nullptr, y.data(), size.tokens, size.hidden,
                                   size.top_k, static_cast<int>(addend.type()), addend_rows, static_cast<int>(extra),
                                   first_identity, extras.factor);
    why = why.empty() ? host::compare(y, want, size.top_k + 2) : why;
    host::report(kernel + " " + size.name() + " addend rows " + to_string(extras.addend_rows) +
                     (extras.in_place ? " in place" : ""),
                 why);
}

// A row beyond the first 2^31 elements, without memory for those before it.
void check_far_row() {
    int hidden = 1 << 16;
    int far = (1 << 15) + 40;
    Array<uint16_t> rows((far + 1ull) * hidden);
    std::vector<double> want(hidden);
    for (int h = 0; h < hidden; h++) {
        want[h] = h % 251;
        host::encode(host::kBF16, rows.data() + static_cast<size_t>(far) * hidden, h, want[h]);
    }
    emulator::mark_written(reinterpret_cast<emulator::DeviceAddress>(rows.data() + static_cast<size_t>(far) * hidden),
                           2ull * hidden);
    Array<int> slot_to_row(std::vector<int>{far});
    Array<int> ids(std::vector<int>{0});
    Floats y(host::kF32, hidden);
    float* none = nullptr;
    std::string why = host::launch("unpermute_bf16_f32", {1}, rows.data(), slot_to_row.data(), ids.data(), none, none, none,
                                   y.data(), 1, hidden, 1, 0, 1, 0, 1000, 1.0f);
    host::report("unpermute of a row beyond 2^31 elements", why.empty() ? host::compare(y, want, 1) : why);
}

}  // namespace

int main() {
    int round = 0;
    for (const Size& size : sizes()) {
        check_copy(size, 2 * size.hidden);
        check_copy(size, size.hidden);
        for (Type from : host::kTypes) {
            for (Type to : host::kTypes) {
                check_permute(size, from, to, round % 2 == 0);
                Type extra = host::kTypes[round % 3];
                Extras extras = {round % 5 != 0, round % 3, round % 2 == 1, round % 12 == 5, round % 4 == 0 ? 1.0f : 0.375f};
                check_unpermute(size, from, to, extra, extras);
                round++;
            }
        }
    }
    check_far_row();
    return check::result();
}
