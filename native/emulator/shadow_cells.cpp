#include "shadow_cells.h"

#if JMOE_EMULATOR_SHADOW

#include <algorithm>

#include "cluster.h"
#include "fail.h"

namespace emulator {

void fail_access(const Access& access, const std::string& problem) {
    if (access.code != nullptr) {
        fail_at_code(access.code, "%s", problem.c_str());
    }
    fail_at(access.site, "%s", problem.c_str());
}

std::string name_of_agent(const Block& block, uint32_t number) {
    size_t block_threads = block.threads.size();
    auto& blocks = block.cluster->blocks();
    if (number >= blocks.size() * block_threads) {
        return "an asynchronous operation";
    }
    return name_of(blocks[number / block_threads]->threads[number % block_threads]);
}

void ShadowCells::start(Block& block) {
    block_ = &block;
    cells_.resize(shared_window_bytes);
    read_sets_.clear();
    objects_.clear();
    handed_on_.clear();
    clear(dynamic_shared_offset, dynamic_shared_offset + block.dynamic_shared);
}

void ShadowCells::clear(uint32_t begin, uint32_t end) {
    std::fill(cells_.begin() + begin, cells_.begin() + end, Cell());
}

void ShadowCells::add_object(uint32_t offset, size_t bytes, const char* name) {
    objects_[offset] = {offset + uint32_t(bytes), name};
    for (size_t i = 0; i < bytes; i++) {
        cells_[offset + i].object = true;
    }
}

void ShadowCells::remove_object(uint32_t offset, size_t bytes) {
    objects_.erase(offset);
    for (size_t i = 0; i < bytes; i++) {
        cells_[offset + i] = Cell();
    }
}

std::string ShadowCells::name_of_byte(uint32_t offset) const {
    const SharedRegion* region = block_->region_of(offset, 1);
    if (region == nullptr) {
        return text("shared address %#x", offset);
    }
    const char* name = region->array == nullptr ? "dynamic shared memory" : region->array->name;
    const char* kind = region->array == nullptr ? "" : "shared array ";
    return text("byte %u of %s%s", offset - region->begin, kind, name);
}

void ShadowCells::access(const Access& access, uint32_t offset, size_t bytes) {
    const Agent& agent = access.agent;
    for (uint32_t byte = offset; byte < offset + bytes; byte++) {
        Cell& cell = cells_[byte];
        if (cell.object) {
            fail_object(access, byte);
        }
        bool again = !access.write && cell.reader == agent.number && cell.read_step == agent.step && cell.readers < 0;
        if (again) {
            continue;
        }
        if (!access.write || access.atomic) {
            check_written(access, cell, byte);
        }
        check_writer(access, cell, byte);
        check_proxy(access, cell, byte);
        if (access.write) {
            check_readers(access, cell, byte);
            record_write(access, cell);
        } else {
            record_read(access, cell);
        }
    }
}

void ShadowCells::fail_object(const Access& access, uint32_t offset) const {
    auto place = objects_.upper_bound(offset);
    const char* name = place == objects_.begin() ? "object" : std::prev(place)->second.name;
    fail_access(access, text("%s of %s, which holds a living %s", access.what, name_of_byte(offset).c_str(), name));
}

void ShadowCells::check_written(const Access& access, const Cell& cell, uint32_t offset) const {
    if (!cell.written) {
        fail_access(access, text("%s of uninitialised memory: %s", access.what, name_of_byte(offset).c_str()));
    }
}

void ShadowCells::check_writer(const Access& access, const Cell& cell, uint32_t offset) const {
    bool both_atomic = access.atomic && cell.written_atomic;
    if (cell.written && !both_atomic && cell.writer != access.agent.number &&
        cell.write_step > access.agent.seen.of(cell.writer)) {
        race(access, offset, cell.written_atomic ? "an atomic" : "a store", cell.writer, cell.write_place);
    }
}

void ShadowCells::check_proxy(const Access& access, const Cell& cell, uint32_t offset) const {
    if (access.proxy == Proxy::async && cell.written && cell.written_generic &&
        cell.write_step > access.agent.fenced.of(cell.writer)) {
        fail_access(access, text("%s of %s, stored by %s at %s: a fence.proxy.async is missing between", access.what,
                                 name_of_byte(offset).c_str(), name_of_agent(*block_, cell.writer).c_str(),
                                 name_of(cell.write_place).c_str()));
    }
}

void ShadowCells::check_readers(const Access& access, const Cell& cell, uint32_t offset) const {
    if (cell.readers < 0) {
        check_reader(access, {cell.read_step, cell.read_place, cell.reader}, offset);
        return;
    }
    for (const Reader& reader : read_sets_[size_t(cell.readers)]) {
        check_reader(access, reader, offset);
    }
}

void ShadowCells::check_reader(const Access& access, const Reader& reader, uint32_t offset) const {
    if (reader.step != 0 && reader.agent != access.agent.number && reader.step > access.agent.seen.of(reader.agent)) {
        race(access, offset, "a load", reader.agent, reader.place);
    }
}

void ShadowCells::record_read(const Access& access, Cell& cell) {
    const Agent& agent = access.agent;
    Reader reader{agent.step, access.place, uint16_t(agent.number)};
    bool replaces = cell.read_step == 0 || cell.reader == agent.number || cell.read_step <= agent.seen.of(cell.reader);
    if (cell.readers < 0 && replaces) {
        cell.reader = reader.agent;
        cell.read_step = reader.step;
        cell.read_place = reader.place;
        return;
    }
    if (cell.readers < 0) {
        cell.readers = int32_t(read_sets_.size());
        read_sets_.emplace_back();
        read_sets_.back()[0] = {cell.read_step, cell.read_place, cell.reader};
    }
    ReadSet& set = read_sets_[size_t(cell.readers)];
    auto place = std::find_if(set.begin(), set.end(), [&](const Reader& other) {
        return other.agent == reader.agent || other.step <= agent.seen.of(other.agent);
    });
    if (place == set.end()) {
        place = set.begin() + next_victim_++ % max_readers;
    }
    *place = reader;
}

void ShadowCells::record_write(const Access& access, Cell& cell) {
    cell.writer = uint16_t(access.agent.number);
    cell.write_step = access.agent.step;
    cell.write_place = access.place;
    cell.written = true;
    cell.written_atomic = access.atomic;
    cell.written_generic = access.proxy == Proxy::generic;
    cell.read_step = 0;
    if (cell.readers >= 0) {
        read_sets_[size_t(cell.readers)].fill(Reader());
    }
}

void ShadowCells::race(const Access& access, uint32_t offset, const char* earlier, uint32_t agent, Place place) const {
    std::string where = name_of(place);
    fail_access(access, text("race on %s: %s by %s after %s by %s%s%s, and nothing orders the two",
                             name_of_byte(offset).c_str(), access.what,
                             name_of_agent(*block_, access.agent.number).c_str(), earlier,
                             name_of_agent(*block_, agent).c_str(), where.empty() ? "" : " at ", where.c_str()));
}

}  // namespace emulator

#endif
