#include "collective.h"

#include <cstring>

#include "cluster.h"
#include "fail.h"

namespace emulator {

namespace {

uint32_t existing_lanes(const Block& block, int warp) {
    int lanes = int(block.threads.size()) - warp * warp_lanes;
    return lanes >= warp_lanes ? 0xffffffffu : (1u << lanes) - 1;
}

uint32_t lanes_that_came(const Meeting& meeting) {
    uint32_t lanes = 0;
    for (int i = 0; i < meeting.num_arrived; i++) {
        lanes |= 1u << meeting.arrived[size_t(i)]->lane();
    }
    return lanes;
}

std::string describe_meeting(const Thread&, const void* object, uint64_t) {
    const Meeting& meeting = *static_cast<const Meeting*>(object);
    if (meeting.warpgroup) {
        return text("%d of %d threads of the warpgroup have come", meeting.num_arrived, warpgroup_threads);
    }
    return text("mask %08x, lanes %08x have come", meeting.mask, lanes_that_came(meeting));
}

Meeting& warp_meeting(Thread& thread, uint32_t mask, const char* operation) {
    Block& block = *thread.block;
    if ((mask >> thread.lane() & 1) == 0) {
        fail("%s: lane %d is not in its own mask %08x", operation, thread.lane(), mask);
    }
    uint32_t existing = existing_lanes(block, thread.warp());
    if ((mask & ~existing) != 0) {
        fail("%s: mask %08x names lanes that this warp does not have (it has %08x)", operation, mask, existing);
    }
    std::deque<Meeting>& meetings = block.warps[size_t(thread.warp())].meetings;
    Meeting* unused = nullptr;
    for (Meeting& meeting : meetings) {
        if (meeting.num_arrived == 0) {
            unused = &meeting;
        } else if (meeting.mask == mask) {
            return meeting;
        }
    }
    return unused != nullptr ? *unused : meetings.emplace_back();
}

Meeting& warpgroup_meeting(Thread& thread, const char* operation) {
    Block& block = *thread.block;
    size_t group = size_t(thread.linear / warpgroup_threads);
    if (group >= block.warpgroups.size()) {
        fail("%s: this thread's warpgroup is not whole; the block has %zu threads", operation, block.threads.size());
    }
    return block.warpgroups[group];
}

uint32_t exited_lanes(const Meeting& meeting, const Block& block, int first_warp) {
    uint32_t exited = 0;
    int warps = meeting.warpgroup ? warpgroup_threads / warp_lanes : 1;
    for (int warp = first_warp; warp < first_warp + warps; warp++) {
        exited |= block.warps[size_t(warp)].exited;
    }
    return exited & meeting.mask;
}

void check_agreement(const Meeting& meeting, const char* operation, Site site, bool same_place) {
    const Site& first = meeting.site;
    const Thread& other = *meeting.arrived[0];
    if (meeting.operation != operation && std::strcmp(meeting.operation, operation) != 0) {
        fail("%s here meets %s of %s at %s:%d", operation, meeting.operation, name_of(other).c_str(),
             short_name(first.file), first.line);
    }
    if (same_place && (first.line != site.line || std::strcmp(first.file, site.file) != 0)) {
        fail("%s is reached at two places: here, and by %s at %s:%d", operation, name_of(other).c_str(),
             short_name(first.file), first.line);
    }
}

bool is_complete(const Meeting& meeting, uint32_t exited) {
    return meeting.warpgroup ? meeting.num_arrived == warpgroup_threads
                             : lanes_that_came(meeting) == (meeting.mask & ~exited);
}

void complete_meeting(Meeting& meeting) {
    if (has_shadow && meeting.rules.orders_memory) {
        SyncPoint sync;
        for (int i = 0; i < meeting.num_arrived; i++) {
            sync.release(meeting.arrived[size_t(i)]->agent);
        }
        for (int i = 0; i < meeting.num_arrived; i++) {
            sync.acquire(meeting.arrived[size_t(i)]->agent);
        }
    }
    if (meeting.finish != nullptr) {
        meeting.finish(meeting.operands.data(), meeting.warpgroup ? 0xffffffffu : lanes_that_came(meeting));
    }
    int num_arrived = meeting.num_arrived;
    meeting.num_arrived = 0;
    meeting.operands.fill(nullptr);
    for (int i = 0; i < num_arrived; i++) {
        if (meeting.arrived[size_t(i)] != current_thread) {
            wake(*meeting.arrived[size_t(i)]);
        }
    }
}

}  // namespace

void collective(Scope scope, uint32_t mask, const char* operation, Site site, void* operands, Finish finish,
                CollectiveRules rules) {
    Thread& thread = *current_thread;
    Block& block = *thread.block;
    thread.site = site;
    bool warpgroup = scope == Scope::warpgroup;
    Meeting& meeting = warpgroup ? warpgroup_meeting(thread, operation) : warp_meeting(thread, mask, operation);
    if (meeting.num_arrived == 0) {
        meeting.mask = warpgroup ? 0xffffffffu : mask;
        meeting.warpgroup = warpgroup;
        meeting.operation = operation;
        meeting.site = site;
        meeting.finish = finish;
        meeting.rules = rules;
    } else {
        check_agreement(meeting, operation, site, warpgroup || rules.same_place);
    }
    int first_warp = warpgroup ? thread.linear / warpgroup_threads * (warpgroup_threads / warp_lanes) : thread.warp();
    uint32_t exited = exited_lanes(meeting, block, first_warp);
    if (exited != 0 && (warpgroup || rules.nobody_exited)) {
        fail("%s: lanes %08x have exited, all must take part", operation, exited);
    }
    size_t member = size_t(warpgroup ? thread.linear % warpgroup_threads : thread.lane());
    meeting.operands[member] = operands;
    meeting.arrived[size_t(meeting.num_arrived++)] = &thread;
    if (is_complete(meeting, exited)) {
        complete_meeting(meeting);
        maybe_preempt();
    } else {
        block_on({operation, site, describe_meeting, &meeting, 0});
    }
}

void leave_meetings(Thread& thread) {
    Block& block = *thread.block;
    WarpMeetings& warp = block.warps[size_t(thread.warp())];
    size_t group = size_t(thread.linear / warpgroup_threads);
    if (group < block.warpgroups.size() && block.warpgroups[group].num_arrived > 0) {
        const Meeting& meeting = block.warpgroups[group];
        fail_at(meeting.site, "%s exits while others of its warpgroup wait in %s", name_of(thread).c_str(),
                meeting.operation);
    }
    for (Meeting& meeting : warp.meetings) {
        if (meeting.num_arrived == 0 || (meeting.mask >> thread.lane() & 1) == 0) {
            continue;
        }
        if (meeting.rules.nobody_exited) {
            fail_at(meeting.site, "%s exits while others of its warp wait in %s", name_of(thread).c_str(),
                    meeting.operation);
        }
        if (is_complete(meeting, warp.exited)) {
            complete_meeting(meeting);
        }
    }
}

}  // namespace emulator
