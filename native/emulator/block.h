// A running block: its threads and its shared memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "barrier.h"
#include "collective.h"
#include "fiber.h"
#include "grid.h"
#include "shadow.h"
#include "site.h"

namespace emulator {

class Cluster;
struct Block;
struct Thread;

constexpr int warp_lanes = 32;
constexpr int warpgroup_threads = 128;
constexpr int max_block_threads = 1024;

enum class ThreadState : uint8_t { ready, running, blocked, exited };

// What a blocked thread waits for. `describe` (may be null) tells more when a deadlock is reported, from the state of
// that moment: "phase 1, pending 2, 4096 bytes outstanding".
struct Wait {
    const char* what = "";
    Site site;
    std::string (*describe)(const Thread& thread, const void* object, uint64_t detail) = nullptr;
    const void* object = nullptr;
    uint64_t detail = 0;
};

struct Thread {
    Dim3 thread_index;
    Dim3 block_index;
    Dim3 block_dim;
    Dim3 grid_dim;
    int linear = 0;  // threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)
    Block* block = nullptr;
    ThreadState state = ThreadState::ready;
    Wait wait;
    Site site;  // the last one passed
    Fiber fiber;
    Agent agent;
    int barrier_result = 0;
    uint64_t barriers_passed = 0;  // by this thread, those of the block
    uint64_t cluster_ticket = 0;  // the phase of the cluster barrier that lets this thread go; 0: has not arrived
    int atomics_in_turn = 0;  // since this thread last let others run

    int lane() const { return linear % warp_lanes; }
    int warp() const { return linear / warp_lanes; }
};

// State that the emulated instructions keep per block (mbarriers, copy groups, ...). Made when the block starts.
class InstructionState {
public:
    virtual ~InstructionState() = default;
    virtual void thread_exits(Thread&) {}  // on the thread's own fiber; may fail()
    virtual void block_ends(Block&) {}     // all threads have exited; may fail()
};

// Set once, from a static initialiser. Null: no state.
void set_instruction_state(std::unique_ptr<InstructionState> (*make)(Block& block));

// Shared memory, as offsets in a window of 256 KiB per block:
//     0x400 ..                dynamic shared memory (the hardware, too, keeps the first KiB for itself)
//     .. 0x40000              static arrays, from the end downwards, in the order in which they are first met
// A shared address is that offset; with rank+1 in the top byte it names the same offset in another block of the
// cluster (shared::cluster). Top byte 0 is the executing block itself.
constexpr uint32_t shared_window_bytes = 0x40000;
constexpr uint32_t dynamic_shared_offset = 0x400;
constexpr uint32_t max_static_shared = 48 * 1024;
constexpr uint32_t max_block_shared = 227 * 1024;
constexpr int shared_rank_shift = 24;

// One JMOE_SHARED array: a constant-initialised static object is its identity.
struct SharedArray {
    const char* name;
    uint32_t bytes;
    uint32_t alignment;
};

struct SharedRegion {
    const SharedArray* array;  // null: the dynamic part
    uint32_t begin;
    uint32_t end;
};

struct Block {
    Cluster* cluster = nullptr;
    unsigned rank = 0;  // in the cluster
    Dim3 index;
    std::vector<Thread> threads;
    int num_exited = 0;
    bool waited = false;  // some thread has executed griddepcontrol.wait
    std::byte* window = nullptr;
    uint32_t dynamic_shared = 0;
    uint32_t static_begin = shared_window_bytes;
    std::vector<SharedRegion> regions;  // [0] is the dynamic part
    std::vector<Barrier> barriers;      // 16
    std::vector<WarpMeetings> warps;
    std::vector<Meeting> warpgroups;
    std::unique_ptr<InstructionState> instructions;

    int num_warps() const { return (int(threads.size()) + warp_lanes - 1) / warp_lanes; }

    // The region that contains all these bytes, or null.
    const SharedRegion* region_of(uint32_t offset, size_t bytes) const;
};

// The CUDA thread that runs on this OS thread; null outside of kernels. A thread-local of the initial-exec kind costs
// one instruction, but there is little room for them in a library that a JVM loads: keep to these three (cluster.h).
extern __thread Thread* current_thread __attribute__((tls_model("initial-exec")));

unsigned char* dynamic_shared();
void* static_shared(const SharedArray& array);

// Shared address of a pointer into the shared memory of the running block; anything else fails.
uint32_t shared_address(const void* pointer, Site site = Site::here());

// The bytes at a shared address of the running block or, with a rank in the top byte, of a block of its cluster.
// Fails if they are not all inside of one array, or if that block has ended.
std::byte* shared_pointer(uint32_t address, size_t bytes, const char* what, Site site = Site::here());

// Same for code that runs on behalf of a block outside of its threads (asynchronous operations).
std::byte* shared_pointer(Block& block, uint32_t address, size_t bytes, const char* what, Site site);

// mapa: the address of the same offset in the block of that rank. Fails if the cluster has no such rank.
uint32_t map_shared_rank(uint32_t address, unsigned rank, Site site = Site::here());

// The block a shared address lies in, and the offset inside of its window.
Block& shared_owner(Block& from, uint32_t address, const char* what, Site site);
constexpr uint32_t shared_offset(uint32_t address) { return address & ((1u << shared_rank_shift) - 1); }

// "thread (17,0,0)", with the block where the cluster has more than one.
std::string name_of(const Thread& thread);

}  // namespace emulator
