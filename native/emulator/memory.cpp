#include "memory.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

#include <sys/mman.h>

#include "fail.h"
#include "memory_marks.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emulator {

namespace {

constexpr uint64_t range_bytes = 1ull << 40;
constexpr uint64_t page_bytes = 4096;
constexpr uint64_t gap_bytes = 64 * 1024;           // between allocations: an overrun lands here
constexpr uint64_t edge_bytes = 256;                // of the gap on either side, filled with a pattern and looked at
constexpr uint64_t fully_poisoned_bytes = 64 << 20;
constexpr uint64_t end_poisoned_bytes = 1 << 20;
constexpr uint64_t kept_freed_bytes = 64 << 20;     // freed memory keeps its poison until so much newer was freed
constexpr unsigned char fresh_poison = 0xFF;
constexpr unsigned char freed_poison = 0xFB;
constexpr unsigned char edge_pattern = 0xED;

struct Record {
    uint64_t bytes;
    bool alive;
    uint64_t serial;
};

std::byte* pointer(DeviceAddress address) { return reinterpret_cast<std::byte*>(address); }

class Arena {
public:
    Arena() {
        void* range = mmap(nullptr, range_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        // A system that limits address space: less has to do, and allocate() will say when it is used up.
        for (bytes_ = range_bytes; range == MAP_FAILED && bytes_ > gap_bytes;) {
            bytes_ /= 2;
            range = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        }
        begin_ = range == MAP_FAILED ? 0 : reinterpret_cast<DeviceAddress>(range);
        bytes_ = begin_ == 0 ? 0 : bytes_;
        next_ = begin_ + gap_bytes;
        marks_reserve(begin_, bytes_);
    }

    bool contains(DeviceAddress address) const { return address - begin_ < bytes_; }

    DeviceAddress allocate(uint64_t bytes) {
        std::lock_guard lock(mutex_);
        if (bytes == 0 || bytes > bytes_ || bytes_ - bytes < 4 * gap_bytes) {
            return 0;
        }
        DeviceAddress base = place(bytes);
        if (base == 0) {
            return 0;
        }
        records_[base] = {bytes, true, ++serial_};
        live_count_++;
        live_bytes_ += bytes;
        generation_++;
        fill(base, bytes, fresh_poison);
        std::memset(pointer(base - edge_bytes), edge_pattern, edge_bytes);
        std::memset(pointer(base + bytes), edge_pattern, edge_bytes);
        marks_forget(base, bytes);
#if defined(__SANITIZE_ADDRESS__)
        __asan_poison_memory_region(pointer(base - edge_bytes), edge_bytes);
        __asan_poison_memory_region(pointer(base + bytes), edge_bytes);
#endif
        return base;
    }

    bool free(DeviceAddress address) {
        std::lock_guard lock(mutex_);
        auto place = records_.find(address);
        if (place == records_.end() || !place->second.alive) {
            return false;
        }
        uint64_t bytes = place->second.bytes;
        place->second.alive = false;
        live_count_--;
        live_bytes_ -= bytes;
        generation_++;
        unpoison_edges(address, bytes);
        if (bytes <= kept_freed_bytes) {
            std::memset(pointer(address), freed_poison, bytes);
        }
        freed_.push_back({address, bytes});
        freed_bytes_ += bytes;
        while (freed_bytes_ > kept_freed_bytes) {
            auto [oldest, oldest_bytes] = freed_.front();
            freed_.pop_front();
            freed_bytes_ -= oldest_bytes;
            DeviceAddress first_page = oldest / page_bytes * page_bytes;
            madvise(pointer(first_page), oldest + oldest_bytes - first_page, MADV_DONTNEED);
            marks_forget(oldest, oldest_bytes);
        }
        return true;
    }

    Allocation find(DeviceAddress address) {
        std::lock_guard lock(mutex_);
        auto above = records_.upper_bound(address);
        if (above == records_.begin()) {
            return {};
        }
        --above;
        return {above->first, above->second.bytes, above->second.alive, above->second.serial};
    }

    std::string broken_edge() {
        std::lock_guard lock(mutex_);
        for (auto& [base, record] : records_) {
            if (!record.alive) {
                continue;
            }
            unpoison_edges(base, record.bytes);
            std::string before = broken_bytes(base - edge_bytes, base, record, "before the start");
            std::string after = broken_bytes(base + record.bytes, base, record, "past the end");
            poison_edges(base, record.bytes);
            if (!before.empty() || !after.empty()) {
                return before.empty() ? after : before;
            }
        }
        return {};
    }

    uint64_t live_count() const { return live_count_; }
    uint64_t live_bytes() const { return live_bytes_; }
    uint64_t generation() const { return generation_; }

private:
    // Blocks start at every multiple of 256 within a page in turn, no better aligned than CUDA promises.
    DeviceAddress place(uint64_t bytes) {
        uint64_t needed = bytes + gap_bytes + page_bytes;
        if (next_ + needed > begin_ + bytes_) {
            forget_freed();
            next_ = lowest_hole(needed);
            if (next_ == 0) {
                next_ = begin_ + bytes_;
                return 0;
            }
        }
        DeviceAddress base = (next_ + page_bytes - 1) / page_bytes * page_bytes + serial_ % 16 * 256;
        next_ = base + bytes + gap_bytes;
        return base;
    }

    void forget_freed() {
        std::erase_if(records_, [](const auto& entry) { return !entry.second.alive; });
        freed_.clear();
        freed_bytes_ = 0;
    }

    DeviceAddress lowest_hole(uint64_t needed) const {
        DeviceAddress hole = begin_ + gap_bytes;
        for (const auto& [base, record] : records_) {
            if (base >= hole + needed) {
                break;
            }
            hole = base + record.bytes + gap_bytes;
        }
        return hole + needed <= begin_ + bytes_ ? hole : 0;
    }

    static void fill(DeviceAddress base, uint64_t bytes, unsigned char poison) {
        if (bytes <= fully_poisoned_bytes) {
            std::memset(pointer(base), poison, bytes);
            return;
        }
        std::memset(pointer(base), poison, end_poisoned_bytes);
        std::memset(pointer(base + bytes - end_poisoned_bytes), poison, end_poisoned_bytes);
    }

    // Reports each breakage once, so that the next launch is not blamed for it.
    static std::string broken_bytes(DeviceAddress edge, DeviceAddress base, const Record& record, const char* where) {
        unsigned char* bytes = reinterpret_cast<unsigned char*>(edge);
        unsigned char* end = bytes + edge_bytes;
        unsigned char* broken = std::find_if(bytes, end, [](unsigned char byte) { return byte != edge_pattern; });
        if (broken == end) {
            return {};
        }
        uint64_t distance = edge < base ? base - (edge + (broken - bytes)) : uint64_t(broken - bytes);
        std::fill(bytes, end, edge_pattern);
        return text("a store %lu bytes %s of allocation %lu (%lu bytes at %#lx)", distance, where, record.serial,
                    record.bytes, base);
    }

    static void unpoison_edges([[maybe_unused]] DeviceAddress base, [[maybe_unused]] uint64_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(pointer(base - edge_bytes), bytes + 2 * edge_bytes);
#endif
    }

    static void poison_edges([[maybe_unused]] DeviceAddress base, [[maybe_unused]] uint64_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_poison_memory_region(pointer(base - edge_bytes), edge_bytes);
        __asan_poison_memory_region(pointer(base + bytes), edge_bytes);
#endif
    }

    std::mutex mutex_;
    DeviceAddress begin_ = 0;
    uint64_t bytes_ = 0;
    DeviceAddress next_ = 0;
    uint64_t serial_ = 0;
    std::map<DeviceAddress, Record> records_;
    std::deque<std::pair<DeviceAddress, uint64_t>> freed_;
    uint64_t freed_bytes_ = 0;
    std::atomic<uint64_t> live_count_{0};
    std::atomic<uint64_t> live_bytes_{0};
    std::atomic<uint64_t> generation_{0};
};

// Never destroyed: a JVM may still have threads in the library when the process ends.
Arena& arena() {
    static Arena& instance = *new Arena;
    return instance;
}

}  // namespace

DeviceAddress allocate(uint64_t bytes) { return arena().allocate(bytes); }

bool free(DeviceAddress address) { return arena().free(address); }

Allocation find(DeviceAddress address) { return arena().find(address); }

bool is_device(DeviceAddress address, uint64_t bytes) {
    Allocation allocation = find(address);
    uint64_t offset = address - allocation.base;
    return allocation.alive && offset <= allocation.bytes && bytes <= allocation.bytes - offset;
}

bool in_device_range(DeviceAddress address) { return arena().contains(address); }

uint64_t device_generation() { return arena().generation(); }

std::string describe_address(DeviceAddress address, uint64_t bytes) {
    if (!in_device_range(address)) {
        return text("at %#lx, which is no device memory", address);
    }
    Allocation allocation = find(address);
    if (allocation.bytes == 0) {
        return text("at %#lx, below every allocation", address);
    }
    uint64_t offset = address - allocation.base;
    const char* freed = allocation.alive ? "" : " and freed since";
    if (offset >= allocation.bytes) {
        return text("at %#lx, %lu bytes past the end of the %lu bytes of allocation %lu%s", address,
                    offset - allocation.bytes, allocation.bytes, allocation.serial, freed);
    }
    if (offset + bytes > allocation.bytes) {
        return text("at %#lx, reaching %lu bytes past the end of the %lu bytes of allocation %lu%s", address,
                    offset + bytes - allocation.bytes, allocation.bytes, allocation.serial, freed);
    }
    return text("at %#lx, byte %lu of the %lu bytes of allocation %lu%s", address, offset, allocation.bytes,
                allocation.serial, freed);
}

uint64_t live_allocations() { return arena().live_count(); }

uint64_t live_bytes() { return arena().live_bytes(); }

std::string find_broken_edge() { return arena().broken_edge(); }

}  // namespace emulator
