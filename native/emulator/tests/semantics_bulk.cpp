// The sentences about TMA, bulk copies and proxies, each under its name.
#include "ptx_tensor_map.h"
#include "words.h"

using check::Buffer;
using check::computes;
using check::fails_somewhere;
using check::refuses;
using check::refuses_in_race_build;
using check::Words;

namespace {

constexpr check::Shape one_warp = {1, 32, 8192};

// A request for a map of 16-bit elements, all legal; checks change one thing each.
struct MapArguments {
    alignas(64) ptx::TensorMap map = {};
    uint64_t dims[5] = {64, 32, 4, 4, 4};
    uint64_t strides[4] = {128, 4096, 16384, 65536};
    uint32_t box[5] = {64, 8, 1, 1, 1};
    uint32_t element_strides[5] = {1, 1, 1, 1, 1};
    emulator::TensorMapRequest request;

    explicit MapArguments(void* address, uint32_t rank = 2, int swizzle = 3, int type = 9) {
        request.type = type;
        request.rank = rank;
        request.address = address;
        request.dims = dims;
        request.strides = strides;
        request.box = box;
        request.element_strides = element_strides;
        request.swizzle = swizzle;
    }

    std::string encode() { return emulator::encode_tensor_map(&map, request); }
};

void refuses_map(const std::string& name, const std::string& expected, void (*change)(MapArguments&)) {
    Buffer<uint32_t> memory(4096);
    MapArguments arguments(memory.data());
    change(arguments);
    const std::string refusal = arguments.encode();
    check::report(name, refusal.find(expected) != std::string::npos, "got: " + refusal);
}

void check_limits() {
    Buffer<uint32_t> memory(4096);
    for (uint32_t rank = 1; rank <= 5; rank++) {
        check::report("tensor map of rank " + std::to_string(rank), MapArguments(memory.data(), rank).encode().empty());
    }
    refuses_map("rank 0", "tensorRank 0", [](MapArguments& a) { a.request.rank = 0; });
    refuses_map("rank 6", "tensorRank 6", [](MapArguments& a) { a.request.rank = 6; });
    refuses_map("type", "tensorDataType 13", [](MapArguments& a) { a.request.type = 13; });
    refuses_map("swizzle", "swizzle 4", [](MapArguments& a) { a.request.swizzle = 4; });
    refuses_map("interleave", "interleave 1", [](MapArguments& a) { a.request.interleave = 1; });
    refuses_map("address", "16 bytes", [](MapArguments& a) {
        a.request.address = static_cast<char*>(a.request.address) + 8;
    });
    refuses_map("dim 0", "globalDim[1]", [](MapArguments& a) { a.dims[1] = 0; });
    refuses_map("dim over 2^32", "globalDim[0]", [](MapArguments& a) { a.dims[0] = (1ull << 32) + 1; });
    refuses_map("stride of 8", "globalStrides[0]", [](MapArguments& a) { a.strides[0] = 136; });
    refuses_map("stride of 2^40", "globalStrides[0]", [](MapArguments& a) { a.strides[0] = 1ull << 40; });
    refuses_map("box 0", "boxDim[1]", [](MapArguments& a) { a.box[1] = 0; });
    refuses_map("box 257", "boxDim[1]", [](MapArguments& a) { a.box[1] = 257; });
    refuses_map("box of 8 bytes", "multiple of 16", [](MapArguments& a) { a.box[0] = 4; });
    refuses_map("tma.inner: box over the swizzle", "more than the swizzle", [](MapArguments& a) { a.box[0] = 72; });
    refuses_map("element stride", "elementStrides[0]", [](MapArguments& a) { a.element_strides[0] = 2; });
    refuses_map("NaN for integers", "not a float", [](MapArguments& a) {
        a.request.type = 1;
        a.request.out_of_bounds_fill = 1;
    });
}

// Loads a box of 8 rows of 128 bytes to byte `target` and copies shared memory out.
__global__ void load_box(const __grid_constant__ ptx::TensorMap map, uint32_t* out, int target, int expected, int x,
                         int y) {
    JMOE_DYNAMIC_SHARED(shared);
    JMOE_SHARED(unsigned long long, barrier_word, [1]);
    const uint32_t barrier = ptx::shared_address(barrier_word);
    for (int i = int(threadIdx.x); i < 2048; i += 32) {
        reinterpret_cast<uint32_t*>(shared)[i] = 0;
    }
    ptx::fence_proxy_async();
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect_tx(barrier, uint32_t(expected));
        ptx::tma_load_2d(ptx::shared_address(shared) + uint32_t(target), &map, barrier, x, y);
    }
    ptx::mbarrier_wait(barrier, 0);
    for (int i = int(threadIdx.x); i < 2048; i += 32) {
        out[i] = reinterpret_cast<const uint32_t*>(shared)[i];
    }
}

// Element (x, y) of the tensor of 64 x 32 halves is 64 y + x + 1.
std::vector<uint16_t> tensor() {
    std::vector<uint16_t> elements(64 * 32);
    for (size_t i = 0; i < elements.size(); i++) {
        elements[i] = uint16_t(i + 1);
    }
    return elements;
}

struct Load {
    int target = 0;
    int x = 0;
    int y = 0;
    bool nan = false;
    int expected = 1024;
};

std::string run_load(const Load& load) {
    Buffer<uint16_t> memory(tensor());
    Buffer<uint32_t> out(size_t{2048});
    MapArguments arguments(memory.data());
    arguments.request.out_of_bounds_fill = load.nan;
    if (std::string refusal = arguments.encode(); !refusal.empty()) {
        return refusal;
    }
    const std::string error = check::run<load_box>(one_warp, arguments.map, out.data(), load.target, load.expected,
                                                   load.x, load.y);
    if (!error.empty()) {
        return error;
    }
    const auto* halves = reinterpret_cast<const uint16_t*>(out.data());
    for (int row = 0; row < 8; row++) {
        for (int column = 0; column < 64; column++) {
            const int x = load.x + column;
            const int y = load.y + row;
            const bool inside = x >= 0 && x < 64 && y >= 0 && y < 32;
            const int expected = inside ? 64 * y + x + 1 : load.nan ? 0x7fff : 0;
            const uint32_t byte = uint32_t(load.target + row * 128 + column * 2);
            const uint32_t place = byte ^ (byte >> 7 & 7) << 4;
            if (halves[place / 2] != expected) {
                return emulator::text("row %d column %d is %d, expected %d", row, column, halves[place / 2], expected);
            }
        }
    }
    return "";
}

void check_loads() {
    const auto passes = [](const char* name, Load load) { check::passes_always(name, [=] { return run_load(load); }); };
    const auto reports = [](const char* name, const char* expected, Load load) {
        check::reports_somewhere(name, expected, [=] { return run_load(load); });
    };
    passes("tma.align: swizzle follows the absolute address", {.target = 1024 + 384});
    reports("tma.align: 64", "128 bytes", {.target = 64});
    passes("tma.oob: zero", {.x = 40, .y = 30});
    passes("tma.oob: NaN", {.x = 40, .y = 30, .nan = true});
    passes("tma.oob: negative", {.x = -5, .y = -3});
    passes("tma.oob: wholly outside", {.x = 64, .y = 0, .nan = true});
    passes("tma.bytes: the whole box at an edge", {.x = 40, .y = 30});
    reports("tma.bytes: only what is inside", "deadlock", {.x = 40, .y = 30, .expected = 24 * 2 * 2});
    check::reports_somewhere("tma.inner: box under the swizzle", "is not known", [] {
        Buffer<uint16_t> memory(tensor());
        Buffer<uint32_t> out(size_t{2048});
        MapArguments arguments(memory.data());
        arguments.box[0] = 32;
        const std::string refusal = arguments.encode();
        return refusal.empty() ? check::run<load_box>(one_warp, arguments.map, out.data(), 0, 512, 0, 0) : refusal;
    });
    check::reports_somewhere("a map of another rank", "rank 3", [] {
        Buffer<uint16_t> memory(tensor());
        Buffer<uint32_t> out(size_t{2048});
        MapArguments arguments(memory.data(), 3);
        arguments.encode();
        return check::run<load_box>(one_warp, arguments.map, out.data(), 0, 1024, 0, 0);
    });
}

// Two matrices of 2 * 40 rows of 72 halves: in each, 40 rows of one kind before 40 of another. A box takes eight rows
// of one kind and the eight of the other that belong to them, four such groups in turn.
constexpr int rows_of_kind = 40;
constexpr int row_length = 72;
constexpr int num_matrices = 2;
constexpr uint32_t box_of_groups_bytes = 64 * 128;

__global__ void load_groups(const __grid_constant__ ptx::TensorMap map, uint16_t* out, int x, int group, int matrix) {
    JMOE_DYNAMIC_SHARED(shared);
    JMOE_SHARED(unsigned long long, barrier_word, [1]);
    const uint32_t barrier = ptx::shared_address(barrier_word);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
        ptx::mbarrier_arrive_expect_tx(barrier, box_of_groups_bytes);
        ptx::tma_load_5d(ptx::shared_address(shared), &map, barrier, x, 0, 0, group, matrix);
    }
    __syncthreads();
    ptx::mbarrier_wait(barrier, 0);
    for (uint32_t i = threadIdx.x; i < box_of_groups_bytes / 2; i += 32) {
        out[i] = reinterpret_cast<const uint16_t*>(shared)[i];
    }
}

std::string run_groups(int x, int group, int matrix) {
    std::vector<uint16_t> elements(num_matrices * 2 * rows_of_kind * row_length);
    for (size_t i = 0; i < elements.size(); i++) {
        elements[i] = uint16_t(i + 1);
    }
    Buffer<uint16_t> memory(elements);
    Buffer<uint16_t> out(box_of_groups_bytes / 2);
    MapArguments arguments(memory.data(), 5);
    constexpr uint64_t row_bytes = 2 * row_length;
    const uint64_t dims[] = {row_length, 8, 2, rows_of_kind / 8, num_matrices};
    const uint64_t strides[] = {row_bytes, row_bytes * rows_of_kind, row_bytes * 8, row_bytes * 2 * rows_of_kind};
    const uint32_t box[] = {64, 8, 2, 4, 1};
    arguments.request.dims = dims;
    arguments.request.strides = strides;
    arguments.request.box = box;
    if (std::string refusal = arguments.encode(); !refusal.empty()) {
        return refusal;
    }
    const std::string error =
        check::run<load_groups>({1, 32, int(box_of_groups_bytes)}, arguments.map, out.data(), x, group, matrix);
    if (!error.empty()) {
        return error;
    }
    for (int row = 0; row < 64; row++) {
        const int of_kind = (group + row / 16) * 8 + row % 8;
        const int kind = row / 8 % 2;
        const bool exists = of_kind >= 0 && of_kind < rows_of_kind && matrix >= 0 && matrix < num_matrices;
        for (int column = 0; column < 64; column++) {
            const int at = x + column;
            const int place = ((matrix * 2 + kind) * rows_of_kind + of_kind) * row_length + at;
            const uint16_t expected = exists && at >= 0 && at < row_length ? uint16_t(place + 1) : 0;
            const uint16_t got = out[size_t(row * 64 + ((column / 8) ^ (row % 8)) * 8 + column % 8)];
            if (got != expected) {
                return emulator::text("row %d column %d is %d, expected %d", row, column, got, expected);
            }
        }
    }
    return "";
}

void check_groups() {
    const auto passes = [](const char* name, int x, int group, int matrix) {
        check::passes_always(name, [=] { return run_groups(x, group, matrix); });
    };
    passes("tma.rank5: groups of rows of two kinds", 0, 1, 0);
    passes("tma.rank5: groups past the last are zero", 0, 4, 0);
    passes("tma.rank5: groups before the first are zero", 0, -2, 1);
    passes("tma.rank5: columns past the end are zero", 64, 0, 1);
    passes("tma.rank5: no matrix of that number", 0, 0, 2);
}

__global__ void prefetches(const uint32_t* in, uint32_t* out) {
    ptx::bulk_prefetch(reinterpret_cast<const char*>(in) + out[0], out[1]);
    out[2] = 7;
}

void check_prefetches() {
    Buffer<uint32_t> fresh(size_t{64});
    const auto once = [&](uint32_t offset, uint32_t bytes) {
        Buffer<uint32_t> out(Words{offset, bytes, 0});
        const std::string error = check::run<prefetches>({1, 1}, fresh.data(), out.data());
        return error.empty() && out[2] != 7 ? "did not go on" : error;
    };
    check::passes_always("bulk.prefetch: also what nobody wrote", [&] { return once(0, 256); });
    check::reports_somewhere("bulk.prefetch: address", "must be a multiple of 16", [&] { return once(8, 16); });
    check::reports_somewhere("bulk.prefetch: bytes", "must be a multiple of 16", [&] { return once(16, 24); });
    check::reports_somewhere("bulk.prefetch: past the end", "128 bytes past the end", [&] { return once(128, 256); });
}

enum Proxy { fenced, no_fence_before_load, no_fence_before_store, no_barrier, init_alone };

// Ordinary stores, then a bulk load over them, then a bulk store of the result.
__global__ void proxies(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint4, pieces, [2]);
    JMOE_SHARED(unsigned long long, barrier_word, [1]);
    const uint32_t barrier = ptx::shared_address(barrier_word);
    const uint32_t address = ptx::shared_address(pieces);
    const uint32_t how = in[8];
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(barrier, 1);
    }
    if (threadIdx.x < 2) {
        pieces[threadIdx.x] = make_uint4(9, 9, 9, 9);
        if (how != no_fence_before_load) {
            ptx::fence_proxy_async();
        }
    }
    if (how != no_barrier) {
        __syncthreads();
    }
    if (threadIdx.x == 16) {
        ptx::mbarrier_arrive_expect_tx(barrier, 16);
        ptx::bulk_load(address, in, 16, barrier);
    }
    if (threadIdx.x == 0) {
        ptx::mbarrier_wait(barrier, 0);
        pieces[1].x = pieces[0].x + 1;
        if (how != no_fence_before_store) {
            ptx::fence_proxy_async();
        }
        ptx::bulk_store(out, address, 32);
        ptx::bulk_commit_group();
        ptx::bulk_wait_group<0>();
    }
}

void check_proxies() {
    Words in = {1, 2, 3, 4, 0, 0, 0, 0, fenced};
    const Words expected = {1, 2, 3, 4, 2, 9, 9, 9};
    computes<proxies>("proxy.write, proxy.read, proxy.done, proxy.mbar", {1, 32}, in, expected);
    in[8] = no_fence_before_load;
    refuses_in_race_build<proxies>("proxy.write: no fence", "proxy", {1, 32}, in);
    in[8] = no_fence_before_store;
    refuses_in_race_build<proxies>("proxy.read: no fence", "proxy", {1, 32}, in);
    in[8] = no_barrier;
    fails_somewhere<proxies>("proxy.mbar: no barrier after init", {1, 32}, in, expected);
}

enum BulkWait { full, read_then_reuse, read_then_look, reuse_at_once, copies_wait, not_waited, one_pending };

__global__ void bulk_groups(const uint32_t* in, uint32_t* out) {
    JMOE_SHARED(uint4, pieces, [2]);
    const uint32_t address = ptx::shared_address(pieces);
    const uint32_t how = in[0];
    pieces[0] = make_uint4(1, 2, 3, 4);
    pieces[1] = make_uint4(5, 6, 7, 8);
    ptx::fence_proxy_async();
    ptx::bulk_store(out, address, 16);
    ptx::bulk_commit_group();
    ptx::bulk_store(out + 4, address + 16, 16);
    ptx::bulk_commit_group();
    uint32_t seen = 4;
    switch (how) {
        case full:
            ptx::bulk_wait_group<0>();
            seen = const_cast<volatile uint32_t*>(out)[3];
            break;
        case read_then_reuse:
            ptx::bulk_wait_group_read<0>();
            pieces[0] = make_uint4(0, 0, 0, 0);
            ptx::bulk_wait_group<0>();
            break;
        case read_then_look:
            ptx::bulk_wait_group_read<0>();
            seen = const_cast<volatile uint32_t*>(out)[3];
            break;
        case reuse_at_once:
            pieces[0] = make_uint4(0, 0, 0, 0);
            break;
        case copies_wait:
            ptx::cp_async_wait_all();
            pieces[0] = make_uint4(0, 0, 0, 0);
            break;
        case one_pending:
            ptx::bulk_wait_group_read<1>();
            pieces[0] = make_uint4(0, 0, 0, 0);
            break;
        default: return;
    }
    ptx::bulk_wait_group_read<0>();
    out[8] = seen;
}

void check_bulk_groups() {
    const check::Shape one_thread = {1, 1};
    const Words expected = {1, 2, 3, 4, 5, 6, 7, 8, 4};
    computes<bulk_groups>("bulk.wait", one_thread, {full}, expected);
    computes<bulk_groups>("bulk.wait: read, then reuse", one_thread, {read_then_reuse}, expected);
    computes<bulk_groups>("bulk.wait: the older of two read, then reuse", one_thread, {one_pending}, expected);
    fails_somewhere<bulk_groups>("bulk.wait: read is not written", one_thread, {read_then_look}, expected);
    fails_somewhere<bulk_groups>("bulk.wait: reuse without", one_thread, {reuse_at_once}, expected);
    fails_somewhere<bulk_groups>("bulk.wait: cp.async groups are others", one_thread, {copies_wait}, expected);
    refuses<bulk_groups>("bulk.wait: shared memory must outlive the read", "in flight", one_thread, {not_waited});
}

// A box is stored, or added, at an edge: what hangs over is left out.
__global__ void store_box(const __grid_constant__ ptx::TensorMap map, int add, int x, int y) {
    JMOE_DYNAMIC_SHARED(shared);
    for (int i = int(threadIdx.x); i < 512; i += 32) {
        const int place = (i * 2) ^ (i * 2 >> 7 & 7) << 4;
        *reinterpret_cast<uint16_t*>(shared + place) = ptx::f32_to_bf16(float(i % 64));
    }
    ptx::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        if (add != 0) {
            ptx::tma_reduce_add_2d(&map, ptx::shared_address(shared), x, y);
        } else {
            ptx::tma_store_2d(&map, ptx::shared_address(shared), x, y);
        }
        ptx::bulk_commit_group();
        ptx::bulk_wait_group_read<0>();
    }
}

std::string run_store(bool add, int x, int y) {
    Buffer<uint16_t> memory(std::vector<uint16_t>(64 * 32, 0x3f80));
    MapArguments arguments(memory.data());
    if (std::string refusal = arguments.encode(); !refusal.empty()) {
        return refusal;
    }
    const std::string error = check::run<store_box>({1, 32, 1024}, arguments.map, int(add), x, y);
    if (!error.empty()) {
        return error;
    }
    for (int row = 0; row < 32; row++) {
        for (int column = 0; column < 64; column++) {
            const bool inside = row >= y && row < y + 8 && column >= x && column < x + 64;
            const float expected = (inside ? float(column - x) : 0) + (add || !inside ? 1 : 0);
            const float got = ptx::bf16_to_f32(memory[size_t(row * 64 + column)]);
            if (got != expected) {
                return emulator::text("row %d column %d is %g, expected %g", row, column, double(got),
                                      double(expected));
            }
        }
    }
    return "";
}

void check_stores() {
    check::passes_always("TMA store", [] { return run_store(false, 0, 8); });
    check::passes_always("TMA store over an edge", [] { return run_store(false, 20, 28); });
    check::passes_always("TMA store at negative coordinates", [] { return run_store(false, -7, -2); });
    check::passes_always("TMA reduce-add", [] { return run_store(true, 20, 28); });
}

}  // namespace

int main() {
    check_limits();
    check_loads();
    check_groups();
    check_prefetches();
    check_proxies();
    check_bulk_groups();
    check_stores();
    return check::result();
}
