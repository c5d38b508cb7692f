// The text of a deadlock: which groups of threads wait where, and for what.
#include <algorithm>

#include "cluster.h"
#include "fail.h"

namespace emulator {

namespace {

constexpr size_t max_groups = 16;

struct Group {
    const Thread* first;
    const Thread* last;
    size_t num_threads;
};

// Threads that differ in nothing but who they are.
bool waits_alike(const Thread& a, const Thread& b) {
    return a.block == b.block && a.state == b.state && a.wait.what == b.wait.what && a.wait.object == b.wait.object &&
           a.wait.detail == b.wait.detail && a.wait.site.line == b.wait.site.line &&
           a.wait.site.file == b.wait.site.file;
}

std::string describe(const Group& group) {
    const Thread& thread = *group.first;
    std::string line = "\n  ";
    if (group.num_threads > 1) {
        line += text("%zu threads from ", group.num_threads);
    }
    line += name_of(thread);
    if (group.num_threads > 1) {
        line += " to " + name_of(*group.last);
    }
    if (thread.state == ThreadState::exited) {
        return line + (group.num_threads > 1 ? " have exited" : " has exited");
    }
    line += thread.state == ThreadState::blocked ? text(" wait in %s", thread.wait.what)
                                                 : text(" poll in %s", thread.wait.what);
    if (thread.wait.site.known()) {
        line += text(" at %s:%d", short_name(thread.wait.site.file), thread.wait.site.line);
    }
    if (thread.wait.describe != nullptr) {
        line += ": " + thread.wait.describe(thread, thread.wait.object, thread.wait.detail);
    }
    return line;
}

}  // namespace

std::string Cluster::who_waits() const {
    std::vector<Group> groups;
    for (const auto& block : blocks_) {
        for (const Thread& thread : block->threads) {
            auto alike = std::find_if(groups.begin(), groups.end(), [&](const Group& group) {
                bool both_exited = thread.state == ThreadState::exited && group.first->state == thread.state;
                return thread.block == group.first->block && (both_exited || waits_alike(thread, *group.first));
            });
            if (alike == groups.end()) {
                groups.push_back({&thread, &thread, 1});
            } else {
                alike->last = &thread;
                alike->num_threads++;
            }
        }
    }
    std::string result;
    for (size_t i = 0; i < std::min(groups.size(), max_groups); i++) {
        result += describe(groups[i]);
    }
    if (groups.size() > max_groups) {
        result += text("\n  and %zu more groups", groups.size() - max_groups);
    }
    return result;
}

}  // namespace emulator
