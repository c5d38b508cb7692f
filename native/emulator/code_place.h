// Places in the source, small enough to be remembered for every byte.
#pragma once

#include <cstdint>
#include <string>

#include "site.h"

namespace emulator {

// 0: not known.
using Place = uint32_t;

// For a return address inside of the library's own code.
Place place_at(const void* return_address);

Place place_at(Site site);

// "router.cu:41": of code inlined from the device language's own headers, the line that called it. Empty if the line
// cannot be told (no debug information, or no library to read it).
std::string name_of(Place place);

std::string name_of_code(const void* return_address);

}  // namespace emulator
