#include "grid.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <thread>

#include "cluster.h"
#include "fail.h"
#include "global_cells.h"
#include "memory.h"
#include "worker.h"

namespace emulator {

namespace {

constexpr uint64_t max_grid_x = 0x7fffffff;
constexpr uint64_t max_grid_yz = 65535;
constexpr unsigned max_block_z = 64;
constexpr size_t max_running_grids = 128;
constexpr size_t params_alignment = 128;  // a tensor map parameter needs 64

std::atomic<int> num_workers{1};

// Launches of several host threads run one after another: they share device memory and what is known of it.
std::mutex launch_mutex;
std::vector<std::unique_ptr<Worker>> idle_workers;
std::mutex idle_mutex;

std::unique_ptr<Worker> take_worker() {
    std::lock_guard lock(idle_mutex);
    if (idle_workers.empty()) {
        return std::make_unique<Worker>();
    }
    std::unique_ptr<Worker> worker = std::move(idle_workers.back());
    idle_workers.pop_back();
    return worker;
}

void give_back(std::unique_ptr<Worker> worker) {
    std::lock_guard lock(idle_mutex);
    idle_workers.push_back(std::move(worker));
}

// The parameters where kernels may copy them from with aligned instructions.
class AlignedParams {
public:
    explicit AlignedParams(const std::vector<std::byte>& params)
        : bytes_(static_cast<std::byte*>(operator new(params.size() + 1, std::align_val_t(params_alignment)))) {
        if (!params.empty()) {
            std::memcpy(bytes_, params.data(), params.size());
        }
    }

    ~AlignedParams() { operator delete(bytes_, std::align_val_t(params_alignment)); }
    AlignedParams(const AlignedParams&) = delete;
    AlignedParams& operator=(const AlignedParams&) = delete;

    const std::byte* data() const { return bytes_; }

private:
    std::byte* bytes_;
};

// In which order the clusters of a grid run: CUDA promises none.
class ClusterOrder {
public:
    ClusterOrder(const Schedule& schedule, uint64_t count) : count_(count) {
        if (schedule.policy == reverse_order || schedule.policy == newest_first) {
            start_ = count - 1;
            stride_ = count - 1;
        } else if (schedule.policy != in_order && count > 2) {
            Random random(schedule.seed);
            start_ = random.below(count);
            do {
                stride_ = 1 + random.below(count - 1);
            } while (std::gcd(stride_, count) != 1);
        }
    }

    uint64_t at(uint64_t position) const {
        return uint64_t((start_ + (unsigned __int128)position * stride_) % count_);
    }

private:
    uint64_t count_;
    uint64_t start_ = 0;
    uint64_t stride_ = 1;
};

// One grid, shared by the workers.
struct GridRun {
    const Launch& launch;
    const std::byte* params;
    Schedule schedule;
    uint64_t num_clusters;
    ClusterOrder order;
    std::atomic<uint64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex{};
    std::string error{};
};

void work(GridRun& grid) {
    std::unique_ptr<Worker> worker = take_worker();
    for (uint64_t position = grid.next++; position < grid.num_clusters && !grid.failed; position = grid.next++) {
        std::string error;
        try {
            Cluster cluster(grid.launch, grid.params, grid.schedule, grid.order.at(position), *worker);
            error = cluster.run();
        } catch (const std::bad_alloc&) {
            error = text("kernel %s: the system gives no memory for the emulated threads", grid.launch.kernel->name);
        }
        if (!error.empty()) {
            std::lock_guard lock(grid.mutex);
            grid.failed = true;
            if (grid.error.empty()) {
                grid.error = error;
            }
        }
    }
    give_back(std::move(worker));
}

bool is_multiple(const Dim3& grid, const Dim3& cluster) {
    return grid.x % cluster.x == 0 && grid.y % cluster.y == 0 && grid.z % cluster.z == 0;
}

// A pointer that leads into no device memory is a host pointer, or a device pointer cut off.
std::string wrong_pointer(const Launch& launch) {
    const Kernel& kernel = *launch.kernel;
    for (int param = 0; param < kernel.num_params; param++) {
        if (!kernel.param_is_pointer[param]) {
            continue;
        }
        DeviceAddress address;
        std::memcpy(&address, launch.params.data() + kernel.param_offset(param), sizeof address);
        if (address != 0 && !in_device_range(address)) {
            return text("kernel %s: parameter %d is the pointer %#lx, which is no device memory", kernel.name, param,
                        address);
        }
    }
    return {};
}

}  // namespace

std::string refusal(const Launch& launch) {
    const Dim3& grid = launch.grid;
    const Dim3& block = launch.block;
    const Dim3& cluster = launch.cluster;
    if (grid.count() == 0 || grid.x > max_grid_x || grid.y > max_grid_yz || grid.z > max_grid_yz) {
        return text("grid (%u,%u,%u): each part from 1 to 2147483647, 65535, 65535", grid.x, grid.y, grid.z);
    }
    if (block.x > max_block_threads || block.y > max_block_threads || block.z > max_block_z || block.count() == 0 ||
        block.count() > uint64_t(max_block_threads)) {
        return text("block (%u,%u,%u): 1 to %d threads, at most %u in z", block.x, block.y, block.z,
                    max_block_threads, max_block_z);
    }
    if (launch.kernel->max_threads > 0 && block.count() > uint64_t(launch.kernel->max_threads)) {
        return text("block of %lu threads: kernel %s is made for %d", block.count(), launch.kernel->name,
                    launch.kernel->max_threads);
    }
    if (cluster.x > max_cluster_blocks || cluster.y > max_cluster_blocks || cluster.z > max_cluster_blocks ||
        cluster.count() == 0 || cluster.count() > max_cluster_blocks || !is_multiple(grid, cluster)) {
        return text("cluster (%u,%u,%u): 1 to %u blocks that divide the grid (%u,%u,%u)", cluster.x, cluster.y,
                    cluster.z, max_cluster_blocks, grid.x, grid.y, grid.z);
    }
    if (launch.dynamic_shared > max_block_shared) {
        return text("%u bytes of dynamic shared memory: at most %u", launch.dynamic_shared, max_block_shared);
    }
    if (launch.params.size() < launch.kernel->params_bytes()) {
        return text("%zu bytes of parameters: kernel %s takes %zu", launch.params.size(), launch.kernel->name,
                    launch.kernel->params_bytes());
    }
    return {};
}

// Where the one in front was early too, those which that one may run beside may still be running as well.
void place_behind(const Launch* last, Launch& launch) {
    launch.run = std::make_shared<LaunchRun>(LaunchRun{launch.kernel});
    launch.before.clear();
    if (!launch.early || last == nullptr) {
        return;
    }
    launch.before = last->before;
    launch.before.push_back(last->run);
    if (launch.before.size() > max_running_grids) {
        launch.before.erase(launch.before.begin());
    }
}

std::string run(const Launch& launch) {
    std::string refused = refusal(launch);
    if (!refused.empty()) {
        return text("kernel %s: ", launch.kernel->name) + refused;
    }
    std::string pointer = wrong_pointer(launch);
    if (!pointer.empty()) {
        return pointer;
    }
    std::lock_guard lock(launch_mutex);
    AlignedParams params(launch.params);
    Schedule order = schedule();
    uint64_t num_clusters = launch.grid.count() / launch.cluster.count();
    GridRun grid{launch, params.data(), order, num_clusters, ClusterOrder(order, num_clusters)};
    start_global_cells(launch);
    std::vector<std::thread> helpers;
    for (int i = 1; i < num_workers && uint64_t(i) < num_clusters; i++) {
        helpers.emplace_back([&grid] { work(grid); });
    }
    work(grid);
    for (std::thread& helper : helpers) {
        helper.join();
    }
    if (grid.error.empty()) {
        std::string broken = find_broken_edge();
        if (!broken.empty()) {
            return text("kernel %s: %s", launch.kernel->name, broken.c_str());
        }
    }
    return grid.error;
}

void set_workers(int workers) { num_workers = has_shadow || workers < 1 ? 1 : workers; }

const char* build_name() {
#if defined(__SANITIZE_ADDRESS__)
    return "asan";
#else
    return has_shadow ? "race" : "fast";
#endif
}

}  // namespace emulator
