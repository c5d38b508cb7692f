#include "block.h"

#include "cluster.h"
#include "fail.h"
#include "worker.h"

namespace emulator {

// Unused space between static arrays, where there is enough of it, so that an overrun does not land in the next one.
constexpr uint32_t array_gap = 32;

const SharedRegion* Block::region_of(uint32_t offset, size_t bytes) const {
    for (const SharedRegion& region : regions) {
        if (offset >= region.begin && offset <= region.end && bytes <= region.end - offset) {
            return &region;
        }
    }
    return nullptr;
}

unsigned char* dynamic_shared() {
    return reinterpret_cast<unsigned char*>(current_block().window + dynamic_shared_offset);
}

static uint32_t static_bytes(const Block& block) {
    uint32_t bytes = 0;
    for (const SharedRegion& region : block.regions) {
        bytes += region.array == nullptr ? 0 : region.end - region.begin;
    }
    return bytes;
}

void* static_shared(const SharedArray& array) {
    Block& block = current_block();
    for (const SharedRegion& region : block.regions) {
        if (region.array == &array) {
            return block.window + region.begin;
        }
    }
    uint32_t total = static_bytes(block) + array.bytes;
    if (total > max_static_shared) {
        fail("static shared memory of %u bytes with array %s; a block has %u at most", total, array.name,
             max_static_shared);
    }
    if (total + block.dynamic_shared > max_block_shared) {
        fail("shared memory of %u static (with array %s) and %u dynamic bytes; a block has %u at most", total,
             array.name, block.dynamic_shared, max_block_shared);
    }
    uint32_t end = block.static_begin - array_gap;
    uint32_t begin = (end - array.bytes) / array.alignment * array.alignment;
    block.static_begin = begin;
    block.regions.push_back({&array, begin, begin + array.bytes});
    open_region(block.window, begin, begin + array.bytes);
    block.cluster->worker().cells[block.rank].clear(begin, begin + array.bytes);
    return block.window + begin;
}

uint32_t shared_address(const void* pointer, Site site) {
    Block& block = current_block();
    uintptr_t offset = uintptr_t(pointer) - uintptr_t(block.window);
    if (offset >= shared_window_bytes) {
        fail_at(site, "address %p is not in the shared memory of this block", pointer);
    }
    return uint32_t(offset);
}

Block& shared_owner(Block& from, uint32_t address, const char* what, Site site) {
    unsigned top = address >> shared_rank_shift;
    if (top == 0 || top - 1 == from.rank) {
        return from;
    }
    auto& blocks = from.cluster->blocks();
    if (top > blocks.size()) {
        fail_at(site, "%s: shared address %#x names rank %u of a cluster of %zu blocks", what, address, top - 1,
                blocks.size());
    }
    Block& owner = *blocks[top - 1];
    if (owner.num_exited == int(owner.threads.size())) {
        fail_at(site, "%s: shared address %#x lies in block rank %u of the cluster, which has ended", what, address,
                top - 1);
    }
    return owner;
}

std::byte* shared_pointer(Block& block, uint32_t address, size_t bytes, const char* what, Site site) {
    Block& owner = shared_owner(block, address, what, site);
    uint32_t offset = shared_offset(address);
    if (owner.region_of(offset, bytes) == nullptr) {
        fail_at(site, "%s: %zu bytes at shared address %#x are not inside of one array (dynamic: %#x to %#x)", what,
                bytes, address, dynamic_shared_offset, dynamic_shared_offset + owner.dynamic_shared);
    }
    return owner.window + offset;
}

std::byte* shared_pointer(uint32_t address, size_t bytes, const char* what, Site site) {
    return shared_pointer(current_block(), address, bytes, what, site);
}

uint32_t map_shared_rank(uint32_t address, unsigned rank, Site site) {
    size_t blocks = current_cluster->blocks().size();
    if (rank >= blocks) {
        fail_at(site, "mapa: rank %u of a cluster of %zu blocks", rank, blocks);
    }
    return shared_offset(address) | (rank + 1) << shared_rank_shift;
}

}  // namespace emulator
