#include "code_place.h"

#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "fail.h"

#if defined(JMOE_EMULATOR_LINES)
#include <backtrace.h>
#endif

namespace emulator {

namespace {

constexpr Place is_site = 0x80000000;

// Addresses are remembered as their distance from this one.
const char anchor = 0;

std::mutex mutex;
std::vector<Site> sites;
std::map<std::pair<const char*, int>, Place> known_sites;

#if defined(JMOE_EMULATOR_LINES)

void ignore_error(void*, const char*, int) {}

// Called for the innermost inlined function first.
int take_line(void* data, uintptr_t, const char* file, int line, const char*) {
    if (file == nullptr || line == 0) {
        return 0;
    }
    const char* name = short_name(file);
    *static_cast<std::string*>(data) = text("%s:%d", name, line);
    bool is_language = std::strncmp(name, "simt", 4) == 0 || std::strncmp(name, "ptx", 3) == 0 ||
                       std::strcmp(name, "export.h") == 0;
    return is_language ? 0 : 1;
}

#endif

}  // namespace

Place place_at(const void* return_address) {
    // The call is the instruction before the one it returns to.
    return Place(uintptr_t(return_address) - 1 - uintptr_t(&anchor)) & ~is_site;
}

Place place_at(Site site) {
    std::lock_guard lock(mutex);
    auto [place, is_new] = known_sites.try_emplace({site.file, site.line}, is_site | Place(sites.size()));
    if (is_new) {
        sites.push_back(site);
    }
    return place->second;
}

static std::string line_of([[maybe_unused]] uintptr_t code) {
    std::string line;
#if defined(JMOE_EMULATOR_LINES)
    static backtrace_state* state = backtrace_create_state(nullptr, 1, ignore_error, nullptr);
    if (state != nullptr) {
        backtrace_pcinfo(state, code, take_line, ignore_error, &line);
    }
#endif
    return line;
}

std::string name_of(Place place) {
    if (place == 0) {
        return {};
    }
    if ((place & is_site) != 0) {
        std::lock_guard lock(mutex);
        Site site = sites[place & ~is_site];
        return text("%s:%d", short_name(site.file), site.line);
    }
    // The library is smaller than a GiB, so 31 bits with their sign reach all of it.
    int32_t distance = int32_t(place << 1) >> 1;
    return line_of(uintptr_t(&anchor) + uintptr_t(intptr_t(distance)));
}

std::string name_of_code(const void* return_address) { return line_of(uintptr_t(return_address) - 1); }

}  // namespace emulator
