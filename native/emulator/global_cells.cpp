#include "global_cells.h"

#if JMOE_EMULATOR_SHADOW

#include <array>
#include <map>
#include <memory>
#include <unordered_map>

#include "cluster.h"
#include "fail.h"
#include "memory.h"
#include "memory_marks.h"

namespace emulator {

namespace {

constexpr uint64_t page_bytes = 1024;
constexpr size_t kept_pages = 16 * 1024;      // from one launch to the next
constexpr size_t max_pages = 128 * 1024;      // 128 MiB touched cost 5 GiB, 8 with early launches; more goes unchecked

// Who accessed a byte last. Clusters count from 1.
struct Party {
    uint32_t cluster = 0;
    uint32_t step = 0;
    uint32_t agent = 0;
    Place place = 0;
};

struct Cell {
    Party writer;
    Party reader;  // one of those since the store
    bool written_atomic = false;
};

// Of the launches that may still be running, those that accessed a byte last.
struct CellBefore {
    uint64_t writer = 0;
    uint64_t reader = 0;
    Place write_place = 0;
    Place read_place = 0;
};

struct Page {
    uint64_t launch = 0;
    std::array<Cell, page_bytes> cells;
    std::unique_ptr<std::array<CellBefore, page_bytes>> before;  // null: none of them accessed it
};

std::unordered_map<uint64_t, std::unique_ptr<Page>> pages;
std::unordered_map<uint64_t, std::map<uint64_t, Clock>> handed_on;  // by address, then by cluster
uint64_t launch_number;
const Launch* running_launch;
Page* last_page;
uint64_t last_page_number;
Allocation last_allocation;
uint64_t last_generation;
uint64_t coin;

// Null unless the launch of that number may still be running.
const LaunchRun* running_before(uint64_t number) {
    for (const std::shared_ptr<const LaunchRun>& run : running_launch->before) {
        if (run->number == number) {
            return run.get();
        }
    }
    return nullptr;
}

// The cells become those of the launch that runs now.
void turn(Page& page) {
    if (running_launch->before.empty()) {
        page.before = nullptr;
    } else if (running_before(page.launch) != nullptr) {
        if (page.before == nullptr) {
            page.before = std::make_unique<std::array<CellBefore, page_bytes>>();
        }
        for (size_t i = 0; i < page_bytes; i++) {
            const Cell& cell = page.cells[i];
            CellBefore& before = (*page.before)[i];
            if (cell.writer.cluster != 0) {
                before.writer = page.launch;
                before.write_place = cell.writer.place;
            }
            if (cell.reader.cluster != 0) {
                before.reader = page.launch;
                before.read_place = cell.reader.place;
            }
        }
    }
    page.launch = launch_number;
    page.cells.fill(Cell());
}

Page* page_of(DeviceAddress address) {
    uint64_t number = address / page_bytes;
    if (last_page != nullptr && number == last_page_number) {
        return last_page;
    }
    std::unique_ptr<Page>& page = pages[number];
    if (page == nullptr) {
        if (pages.size() > max_pages) {
            pages.erase(number);
            return nullptr;
        }
        page = std::make_unique<Page>();
    }
    if (page->launch != launch_number) {
        turn(*page);
    }
    last_page = page.get();
    last_page_number = number;
    return last_page;
}

uint32_t running_cluster() { return uint32_t(current_cluster->number() + 1); }

bool is_known(const Agent& agent, const Party& party) {
    if (party.cluster == running_cluster()) {
        return party.agent == agent.number || party.step <= agent.seen.of(party.agent);
    }
    return party.step <= agent.seen.of_other(party.cluster, party.agent);
}

std::string name_of_party(const Party& party) {
    if (party.cluster == running_cluster()) {
        return name_of_agent(*current_cluster->blocks()[0], party.agent);
    }
    const Dim3& grid = current_cluster->launch().grid;
    if (current_cluster->launch().cluster.count() > 1) {
        return text("cluster %u of the grid", party.cluster - 1);
    }
    unsigned block = party.cluster - 1;
    return text("block (%u,%u,%u)", block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y);
}

[[noreturn]] void race(const Access& access, DeviceAddress address, const char* earlier, const Party& party) {
    std::string where = name_of(party.place);
    fail_access(access, text("race on device memory %s: %s after %s by %s%s%s, and nothing orders the two",
                             describe_address(address, 1).c_str(), access.what, earlier, name_of_party(party).c_str(),
                             where.empty() ? "" : " at ", where.c_str()));
}

[[noreturn]] void overlap(const Access& access, DeviceAddress address, const char* earlier, const LaunchRun& run,
                          Place place) {
    std::string where = name_of(place);
    fail_access(access, text("race on device memory %s: %s after %s by kernel %s%s%s, a launch in front of this one "
                             "that may still be running: griddepcontrol.wait comes before it",
                             describe_address(address, 1).c_str(), access.what, earlier, run.kernel->name,
                             where.empty() ? "" : " at ", where.c_str()));
}

// An access that no griddepcontrol.wait comes before. Atomics of two launches, too, must not mix.
void check_before(const Access& access, const CellBefore& before, DeviceAddress address) {
    if (const LaunchRun* writer = running_before(before.writer)) {
        overlap(access, address, "a store", *writer, before.write_place);
    }
    const LaunchRun* reader = access.write ? running_before(before.reader) : nullptr;
    if (reader != nullptr) {
        overlap(access, address, "a load", *reader, before.read_place);
    }
}

void check_cell(const Access& access, Cell& cell, DeviceAddress address) {
    const Agent& agent = access.agent;
    bool both_atomic = access.atomic && cell.written_atomic;
    if (cell.writer.cluster != 0 && !both_atomic && !is_known(agent, cell.writer)) {
        race(access, address, cell.written_atomic ? "an atomic" : "a store", cell.writer);
    }
    Party party{running_cluster(), agent.step, agent.number, access.place};
    if (access.write) {
        if (cell.reader.cluster != 0 && !is_known(agent, cell.reader)) {
            race(access, address, "a load", cell.reader);
        }
        cell.writer = party;
        cell.written_atomic = access.atomic;
        cell.reader = Party();
        return;
    }
    // One reader is kept. Of two that do not know of each other either may be the one that a later store races with.
    if (cell.reader.cluster == 0 || is_known(agent, cell.reader) || coin++ % 2 == 0) {
        cell.reader = party;
    }
}

void check_bounds(const Access& access, DeviceAddress address, size_t bytes) {
    if (device_generation() != last_generation || address - last_allocation.base >= last_allocation.bytes) {
        last_generation = device_generation();
        last_allocation = find(address);
    }
    uint64_t offset = address - last_allocation.base;
    bool inside = last_allocation.alive && offset < last_allocation.bytes && bytes <= last_allocation.bytes - offset;
    if (!inside) {
        fail_access(access, text("%s of %zu bytes %s", access.what, bytes, describe_address(address, bytes).c_str()));
    }
}

void check_unwritten(const Access& access, DeviceAddress address, size_t bytes) {
    uint64_t unwritten = first_unwritten(address, bytes);
    if (unwritten < bytes) {
        fail_access(access, text("%s of uninitialised device memory %s", access.what,
                                 describe_address(address + unwritten, 1).c_str()));
    }
}

}  // namespace

void start_global_cells(const Launch& launch) {
    launch_number++;
    running_launch = &launch;
    if (launch.run != nullptr) {
        launch.run->number = launch_number;
    }
    handed_on.clear();
    last_page = nullptr;
    if (pages.size() > kept_pages && launch.before.empty()) {
        pages.clear();
    }
}

void global_access(const Access& access, const void* pointer, size_t bytes) {
    DeviceAddress address = DeviceAddress(pointer);
    check_bounds(access, address, bytes);
    if (!access.write || access.atomic) {
        check_unwritten(access, address, bytes);
    }
    for (size_t i = 0; i < bytes; i++) {
        Page* page = page_of(address + i);
        if (page != nullptr && page->before != nullptr && !access.agent.seen.waited()) {
            check_before(access, (*page->before)[(address + i) % page_bytes], address + i);
        }
        if (page != nullptr) {
            check_cell(access, page->cells[(address + i) % page_bytes], address + i);
        }
    }
    if (access.write) {
        mark_written(address, bytes);
    }
}

void hand_on_global(Agent& agent, const void* address) {
    auto place = handed_on.find(uint64_t(address));
    if (place != handed_on.end()) {
        for (const auto& [cluster, clock] : place->second) {
            if (cluster == running_cluster()) {
                agent.pending.join(clock);
            } else {
                agent.pending.join_other(cluster, clock);
            }
        }
    }
    if (agent.released.empty()) {
        return;
    }
    std::map<uint64_t, Clock>& clocks = handed_on[uint64_t(address)];
    Clock own = agent.released;
    own.drop_others();
    clocks[running_cluster()].join(own);
    if (agent.released.others() != nullptr) {
        for (const auto& [cluster, clock] : *agent.released.others()) {
            clocks[cluster].join(clock);
        }
    }
}

}  // namespace emulator

#endif
