#include "async.h"

#include <algorithm>

#include "cluster.h"

namespace emulator {

AsyncTicket defer(const char* what, Site site, const void* chain, std::function<void(AsyncOperation&)> action,
                  const SyncPoint* after) {
    Cluster& cluster = *current_cluster;
    auto operation = std::make_shared<AsyncOperation>();
    operation->what = what;
    operation->site = site;
    operation->block = current_thread->block;
    operation->issuer = current_thread;
    operation->chain = chain;
    operation->action = std::move(action);
    start_async_agent(operation->agent, current_thread->agent);
    if (after != nullptr) {
        after->acquire(operation->agent);
    }
    cluster.async().add(operation);
    int timing = cluster.schedule().async;
    if (timing == async_early || (timing == async_random && cluster.random().one_in(3))) {
        complete(operation);
    }
    return operation;
}

void complete(const AsyncTicket& operation) {
    if (!operation->done) {
        current_cluster->async().run_up_to(*current_cluster, operation);
    }
}

void AsyncQueue::add(AsyncTicket operation) { pending_.push_back(std::move(operation)); }

void AsyncQueue::run(Cluster& cluster, std::list<AsyncTicket>::iterator place) {
    AsyncTicket operation = *place;
    pending_.erase(place);
    const AsyncOperation* interrupted = cluster.running_operation;
    cluster.running_operation = operation.get();
    operation->action(*operation);
    operation->finished.release(operation->agent);
    operation->done = true;
    operation->action = nullptr;
    cluster.running_operation = interrupted;
}

void AsyncQueue::run_one(Cluster& cluster) {
    auto place = pending_.begin();
    if (cluster.schedule().async == async_random) {
        std::advance(place, long(cluster.random().below(pending_.size())));
    }
    const void* chain = (*place)->chain;
    if (chain != nullptr) {
        place = std::find_if(pending_.begin(), place, [&](const AsyncTicket& other) { return other->chain == chain; });
    }
    run(cluster, place);
}

void AsyncQueue::run_up_to(Cluster& cluster, const AsyncTicket& operation) {
    for (auto place = pending_.begin(); place != pending_.end() && !operation->done;) {
        auto next = std::next(place);
        if (*place == operation || (operation->chain != nullptr && (*place)->chain == operation->chain)) {
            run(cluster, place);
        }
        place = next;
    }
}

const AsyncOperation* AsyncQueue::first_of(const Block& block) const {
    for (const AsyncTicket& operation : pending_) {
        if (operation->block == &block) {
            return operation.get();
        }
    }
    return nullptr;
}

}  // namespace emulator
