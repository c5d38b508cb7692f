#include "memory_marks.h"

#include <algorithm>
#include <vector>

#include <sys/mman.h>

#include "shadow.h"

namespace emulator {

#if JMOE_EMULATOR_SHADOW

static DeviceAddress range_begin;
static unsigned char* marks;  // bit b of byte i: device byte range_begin + 8 * i + b was written

void marks_reserve(DeviceAddress begin, uint64_t bytes) {
    range_begin = begin;
    marks = static_cast<unsigned char*>(mmap(nullptr, bytes / 8 + 1, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (marks == MAP_FAILED) {
        marks = nullptr;
    }
}

static bool marked(uint64_t offset) { return marks[offset / 8] >> offset % 8 & 1; }

static void set_mark(uint64_t offset, bool written) {
    unsigned char bit = (unsigned char)(1u << offset % 8);
    marks[offset / 8] = written ? marks[offset / 8] | bit : marks[offset / 8] & ~bit;
}

static void set_marks(uint64_t begin, uint64_t end, bool written) {
    for (; begin < end && begin % 8 != 0; begin++) {
        set_mark(begin, written);
    }
    uint64_t whole_end = std::max(begin, end / 8 * 8);
    std::fill(marks + begin / 8, marks + whole_end / 8, written ? 0xFF : 0);
    for (begin = whole_end; begin < end; begin++) {
        set_mark(begin, written);
    }
}

void marks_forget(DeviceAddress address, uint64_t bytes) {
    if (marks == nullptr) {
        return;
    }
    constexpr uint64_t page_bytes = 4096;
    constexpr uint64_t page_coverage = 8 * page_bytes;
    uint64_t begin = address - range_begin;
    uint64_t end = begin + bytes;
    uint64_t first_page = (begin + page_coverage - 1) / page_coverage;
    uint64_t end_page = end / page_coverage;
    if (first_page >= end_page) {
        set_marks(begin, end, false);
        return;
    }
    set_marks(begin, first_page * page_coverage, false);
    madvise(marks + first_page * page_bytes, (end_page - first_page) * page_bytes, MADV_DONTNEED);
    set_marks(end_page * page_coverage, end, false);
}

void mark_written(DeviceAddress address, uint64_t bytes) {
    if (marks != nullptr && bytes > 0 && in_device_range(address)) {
        set_marks(address - range_begin, address - range_begin + bytes, true);
    }
}

void copy_written_marks(DeviceAddress to, DeviceAddress from, uint64_t bytes) {
    if (marks == nullptr || !in_device_range(to) || !in_device_range(from)) {
        return;
    }
    std::vector<bool> written(bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        written[i] = marked(from - range_begin + i);
    }
    for (uint64_t i = 0; i < bytes; i++) {
        set_mark(to - range_begin + i, written[i]);
    }
}

uint64_t first_unwritten(DeviceAddress address, uint64_t bytes) {
    if (marks == nullptr) {
        return bytes;
    }
    uint64_t offset = address - range_begin;
    for (uint64_t i = 0; i < bytes;) {
        if ((offset + i) % 8 == 0 && bytes - i >= 8 && marks[(offset + i) / 8] == 0xFF) {
            i += 8;
        } else if (marked(offset + i)) {
            i++;
        } else {
            return i;
        }
    }
    return bytes;
}

#else

void marks_reserve(DeviceAddress, uint64_t) {}
void marks_forget(DeviceAddress, uint64_t) {}
void mark_written(DeviceAddress, uint64_t) {}
void copy_written_marks(DeviceAddress, DeviceAddress, uint64_t) {}
uint64_t first_unwritten(DeviceAddress, uint64_t bytes) { return bytes; }

#endif

}  // namespace emulator
