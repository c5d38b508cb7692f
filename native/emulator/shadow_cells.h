// What the race build remembers of every byte of a block's shared memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "code_place.h"
#include "shadow.h"

namespace emulator {

struct Block;

#if JMOE_EMULATOR_SHADOW

// One access on its way through the checks.
struct Access {
    Agent& agent;
    bool write;
    bool atomic;
    Proxy proxy;
    const char* what;   // "load", "store", "atomic", "ldmatrix"
    Place place;
    const void* code;   // set for instrumented accesses
    Site site;          // set for all others
};

[[noreturn]] void fail_access(const Access& access, const std::string& problem);

class ShadowCells {
public:
    // A block begins; nothing of its dynamic part is initialised.
    void start(Block& block);
    void clear(uint32_t begin, uint32_t end);

    // The bytes lie inside of one array. Fails if the access is a race, or reads what nobody wrote.
    void access(const Access& access, uint32_t offset, size_t bytes);

    void add_object(uint32_t offset, size_t bytes, const char* name);
    void remove_object(uint32_t offset, size_t bytes);

    // What atomics on this byte handed on.
    Clock& handed_on(uint32_t offset) { return handed_on_[offset]; }

    // "byte 12 of array row_max" or "byte 12 of dynamic shared memory".
    std::string name_of_byte(uint32_t offset) const;

private:
    struct Cell {
        uint32_t write_step = 0;
        uint32_t read_step = 0;
        Place write_place = 0;
        Place read_place = 0;
        int32_t readers = -1;  // more than one: an entry of read_sets_
        uint16_t writer = 0;
        uint16_t reader = 0;
        bool written = false;
        bool written_atomic = false;
        bool written_generic = false;
        bool object = false;
    };

    struct Reader {
        uint32_t step = 0;
        Place place = 0;
        uint16_t agent = 0;
    };

    // Of more concurrent readers than this, some are forgotten: a store that races with many still meets one.
    static constexpr size_t max_readers = 8;
    using ReadSet = std::array<Reader, max_readers>;

    void check_written(const Access& access, const Cell& cell, uint32_t offset) const;
    void check_writer(const Access& access, const Cell& cell, uint32_t offset) const;
    void check_proxy(const Access& access, const Cell& cell, uint32_t offset) const;
    void check_readers(const Access& access, const Cell& cell, uint32_t offset) const;
    void check_reader(const Access& access, const Reader& reader, uint32_t offset) const;
    void record_read(const Access& access, Cell& cell);
    void record_write(const Access& access, Cell& cell);
    [[noreturn]] void race(const Access& access, uint32_t offset, const char* earlier, uint32_t agent,
                           Place place) const;
    [[noreturn]] void fail_object(const Access& access, uint32_t offset) const;

    struct Object {
        uint32_t end;
        const char* name;
    };

    Block* block_ = nullptr;
    std::vector<Cell> cells_;
    std::vector<ReadSet> read_sets_;
    size_t next_victim_ = 0;
    std::map<uint32_t, Object> objects_;
    std::unordered_map<uint32_t, Clock> handed_on_;
};

#else

class ShadowCells {
public:
    void start(Block&) {}
    void clear(uint32_t, uint32_t) {}
};

#endif

// "thread (3,0,0)", or an asynchronous operation.
std::string name_of_agent(const Block& block, uint32_t number);

}  // namespace emulator
