// Bulk copies without a map, and what they share with TMA.

#include "ptx_bulk_state.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "fail.h"
#include "memory.h"
#include "ptx_bulk.h"

namespace emulator {

LoadTargets single_target(uint32_t target, uint32_t bytes, uint32_t barrier, const char* what, Site site) {
    Block& block = current_block();
    shared_pointer(target, bytes, what, site);
    mbarrier_for_thread(barrier, what, site);
    if (&shared_owner(block, target, what, site) != &shared_owner(block, barrier, what, site)) {
        fail_at(site, "%s: destination %#x and mbarrier %#x lie in different blocks", what, target, barrier);
    }
    return {{target}, {barrier}};
}

LoadTargets multicast_targets(uint32_t target, uint32_t bytes, uint32_t barrier, uint16_t blocks, const char* what,
                              Site site) {
    LoadTargets to;
    const uint32_t cluster_blocks = uint32_t(current_cluster->blocks().size());
    if (blocks == 0 || blocks >> cluster_blocks != 0) {
        fail_at(site, "%s: block mask %#x in a cluster of %u", what, blocks, cluster_blocks);
    }
    for (uint32_t rank = 0; rank < cluster_blocks; rank++) {
        if (blocks >> rank & 1) {
            const uint32_t there = map_shared_rank(shared_offset(target), rank, site);
            const uint32_t barrier_there = map_shared_rank(shared_offset(barrier), rank, site);
            shared_pointer(there, bytes, what, site);
            mbarrier_for_thread(barrier_there, what, site);
            to.targets.push_back(there);
            to.barriers.push_back(barrier_there);
        }
    }
    return to;
}

void start_load(LoadTargets to, uint32_t bytes, const char* what, Site site, FillBytes fill) {
    const auto load = [=](AsyncOperation& operation) {
        std::vector<std::byte> data(bytes);
        for (size_t i = 0; i < to.targets.size(); i++) {
            const uint32_t target = to.targets[i];
            fill(operation, shared_offset(target), data.data());
            shared_write(operation.agent, target, bytes, Proxy::async, what, site);
            std::memcpy(shared_pointer(*operation.block, target, bytes, what, site), data.data(), bytes);
            Mbarrier& barrier = mbarrier_at(*operation.block, to.barriers[i], what, site);
            mbarrier_hand_on(barrier, operation.agent, ArrivalKind::local);
            mbarrier_add_tx(barrier, -int64_t(bytes), what, site);
            mbarrier_settle(barrier);
        }
    };
    defer(what, site, nullptr, load, &own_copies().buffers);
}

void start_store(uint32_t source, uint32_t bytes, const char* what, Site site, WriteBytes write) {
    if (&shared_owner(current_block(), source, what, site) != &current_block()) {
        fail_at(site, "%s: source %#x lies in another block", what, source);
    }
    shared_pointer(source, bytes, what, site);
    const auto data = std::make_shared<std::vector<std::byte>>(bytes);
    BulkStore store;
    store.read = defer(what, site, nullptr, [=](AsyncOperation& operation) {
        shared_read(operation.agent, source, bytes, Proxy::async, what, site);
        std::memcpy(data->data(), shared_pointer(*operation.block, source, bytes, what, site), bytes);
    });
    store.write = defer(what, site, nullptr, [=, read = store.read](AsyncOperation& operation) {
        complete(read);
        write(operation, data->data());
    });
    own_copies().bulk.open.push_back(std::move(store));
}

}  // namespace emulator

namespace ptx {

using namespace emulator;

namespace {

void check_bulk(const void* global, uint32_t shared, uint32_t bytes, const char* what, Site site) {
    if (reinterpret_cast<uintptr_t>(global) % 16 != 0 || shared % 16 != 0 || bytes % 16 != 0) {
        fail_at(site, "%s: global %p, shared %#x, %u bytes: each must be a multiple of 16", what, global, shared,
                bytes);
    }
}

FillBytes from_global(const void* source, uint32_t bytes, const char* what, Site site) {
    return [=](AsyncOperation& operation, uint32_t, std::byte* data) {
        global_read(operation.agent, source, bytes, what, site);
        std::memcpy(data, source, bytes);
    };
}

}  // namespace

void bulk_load(uint32_t target, const void* source, uint32_t bytes, uint32_t barrier, Site site) {
    const char* what = "cp.async.bulk.shared.global";
    check_bulk(source, target, bytes, what, site);
    maybe_preempt();
    start_load(single_target(target, bytes, barrier, what, site), bytes, what, site,
               from_global(source, bytes, what, site));
}

void bulk_load_multicast(uint32_t target, const void* source, uint32_t bytes, uint32_t barrier, uint16_t blocks,
                         Site site) {
    const char* what = "cp.async.bulk.multicast";
    check_bulk(source, target, bytes, what, site);
    maybe_preempt();
    start_load(multicast_targets(target, bytes, barrier, blocks, what, site), bytes, what, site,
               from_global(source, bytes, what, site));
}

void bulk_copy_to_block(uint32_t target, uint32_t source, uint32_t bytes, uint32_t barrier, Site site) {
    const char* what = "cp.async.bulk.shared.shared";
    check_bulk(nullptr, target | source, bytes, what, site);
    maybe_preempt();
    if (&shared_owner(current_block(), source, what, site) != &current_block()) {
        fail_at(site, "%s: source %#x lies in another block", what, source);
    }
    shared_pointer(source, bytes, what, site);
    start_load(single_target(target, bytes, barrier, what, site), bytes, what, site,
               [=](AsyncOperation& operation, uint32_t, std::byte* data) {
                   shared_read(operation.agent, source, bytes, Proxy::async, what, site);
                   std::memcpy(data, shared_pointer(*operation.block, source, bytes, what, site), bytes);
               });
}

void bulk_store(void* target, uint32_t source, uint32_t bytes, Site site) {
    const char* what = "cp.async.bulk.global.shared";
    check_bulk(target, source, bytes, what, site);
    maybe_preempt();
    start_store(source, bytes, what, site, [=](AsyncOperation& operation, const std::byte* data) {
        global_write(operation.agent, target, bytes, what, site);
        std::memcpy(target, data, bytes);
    });
}

void bulk_reduce_add_f32(float* target, uint32_t source, uint32_t bytes, Site site) {
    const char* what = "cp.reduce.async.bulk.add.f32";
    check_bulk(target, source, bytes, what, site);
    maybe_preempt();
    start_store(source, bytes, what, site, [=](AsyncOperation& operation, const std::byte* data) {
        global_read(operation.agent, target, bytes, what, site);
        global_write(operation.agent, target, bytes, what, site);
        for (uint32_t i = 0; i < bytes / 4; i++) {
            float value;
            std::memcpy(&value, data + 4 * i, 4);
            target[i] += value;
        }
    });
}

void bulk_prefetch(const void* source, uint32_t bytes, Site site) {
    const char* what = "cp.async.bulk.prefetch";
    check_bulk(source, 0, bytes, what, site);
    const auto address = DeviceAddress(source);
    if (!is_device(address, bytes)) {
        fail_at(site, "%s of %u bytes %s", what, bytes, describe_address(address, bytes).c_str());
    }
}

void bulk_commit_group() {
    BulkGroups& bulk = own_copies().bulk;
    bulk.committed.push_back(std::move(bulk.open));
    bulk.open.clear();
}

void bulk_wait(int pending, bool read_only) {
    BulkGroups& bulk = own_copies().bulk;
    Agent& agent = running_agent();
    const size_t num_older = bulk.committed.size() - std::min(bulk.committed.size(), size_t(pending));
    for (size_t i = 0; i < num_older; i++) {
        for (const BulkStore& store : bulk.committed[i]) {
            complete(store.read);
            store.read->finished.acquire(agent);
            if (!read_only) {
                complete(store.write);
                store.write->finished.acquire(agent);
            }
        }
    }
    if (!read_only) {
        bulk.committed.erase(bulk.committed.begin(), bulk.committed.begin() + num_older);
    }
}

}  // namespace ptx
