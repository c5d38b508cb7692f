// Instructions that the lanes of a warp, or the threads of a warpgroup, execute together.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "site.h"

namespace emulator {

struct Thread;

enum class Scope : uint8_t { warp, warpgroup };

// What an operation asks of its participants beyond "the same operation with the same mask".
struct CollectiveRules {
    bool orders_memory = false;   // __syncwarp: what lanes did before is seen by all after
    bool same_place = false;      // .aligned: all at the same line (always so for a warpgroup)
    bool nobody_exited = false;   // undefined if a named lane has exited (ldmatrix, mma, wgmma)
};

// Runs once, on the last arriver, for all: operands[lane] is what that lane passed (0..31; 0..127 in a warpgroup),
// null for lanes that take no part; `present` has a bit for each lane of the warp that came (all ones in a warpgroup).
// Results go into the operands. It may fail().
using Finish = void (*)(void* const* operands, uint32_t present);

// Every lane of `mask` calls this with the same operation; returns when all have come and `finish` has run. Lanes that
// have exited are not waited for. It is an error if the caller is not in its own mask, if the mask names lanes the
// block does not have, if lanes of one mask meet in different operations, or if a lane waited for can never come.
// For a warpgroup the mask is ignored: its 128 threads must all come. `finish` may be null.
void collective(Scope scope, uint32_t mask, const char* operation, Site site, void* operands, Finish finish,
                CollectiveRules rules = {});

// One such operation while its participants gather.
struct Meeting {
    uint32_t mask = 0;
    bool warpgroup = false;
    const char* operation = nullptr;
    Site site;
    Finish finish = nullptr;
    CollectiveRules rules;
    int num_arrived = 0;
    std::array<void*, 128> operands{};
    std::array<Thread*, 128> arrived{};
};

// The lanes of one warp may be in several meetings at once, with different masks.
struct WarpMeetings {
    std::deque<Meeting> meetings;
    uint32_t exited = 0;
};

// Called when a thread exits: it may be the one that others were waiting for.
void leave_meetings(Thread& thread);

}  // namespace emulator
