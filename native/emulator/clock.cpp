#include "shadow.h"

#if JMOE_EMULATOR_SHADOW

#include <algorithm>

namespace emulator {

namespace {

using Steps = std::vector<uint32_t>;

uint32_t step_in(const Clock::Table& table, uint32_t agent) {
    return table != nullptr && agent < table->size() ? (*table)[agent] : 0;
}

void take_later(Steps& steps, const Steps& other) {
    if (steps.size() < other.size()) {
        steps.resize(other.size());
    }
    for (size_t agent = 0; agent < other.size(); agent++) {
        steps[agent] = std::max(steps[agent], other[agent]);
    }
}

bool contains(const Steps& steps, const Steps& other) {
    if (steps.size() < other.size()) {
        return false;
    }
    bool all = true;
    for (size_t agent = 0; agent < other.size(); agent++) {
        all &= steps[agent] >= other[agent];
    }
    return all;
}

Clock::Table joined(const Clock::Table& a, const Clock::Table& b) {
    if (b == nullptr || a == b || (a != nullptr && contains(*a, *b))) {
        return a;
    }
    if (a == nullptr || contains(*b, *a)) {
        return b;
    }
    auto steps = std::make_shared<Steps>(*a);
    take_later(*steps, *b);
    return steps;
}

Clock::Table with_step(const Clock::Table& table, uint32_t agent, uint32_t step) {
    auto steps = table == nullptr ? std::make_shared<Steps>() : std::make_shared<Steps>(*table);
    if (steps->size() <= agent) {
        steps->resize(agent + 1);
    }
    (*steps)[agent] = std::max((*steps)[agent], step);
    return steps;
}

Clock::Others joined(const Clock::Others& a, const Clock::Others& b) {
    if (b == nullptr || a == b) {
        return a;
    }
    if (a == nullptr) {
        return b;
    }
    auto others = std::make_shared<std::map<uint64_t, Clock>>(*a);
    for (const auto& [cluster, clock] : *b) {
        (*others)[cluster].join(clock);
    }
    return others;
}

}  // namespace

uint32_t Clock::of(uint32_t agent) const {
    uint32_t step = step_in(table_, agent);
    return agent == own_agent_ ? std::max(step, own_step_) : step;
}

uint32_t Clock::of_other(uint64_t cluster, uint32_t agent) const {
    if (others_ == nullptr) {
        return 0;
    }
    auto place = others_->find(cluster);
    return place == others_->end() ? 0 : place->second.of(agent);
}

void Clock::advance(uint32_t agent, uint32_t step) {
    if (step <= of(agent)) {
        return;
    }
    if (own_step_ == 0 || own_agent_ == agent) {
        own_agent_ = agent;
        own_step_ = step;
    } else {
        table_ = with_step(table_, agent, step);
    }
}

void Clock::join(const Clock& other) {
    table_ = joined(table_, other.table_);
    if (other.own_step_ != 0) {
        advance(other.own_agent_, other.own_step_);
    }
    waited_ |= other.waited_;
    others_ = joined(others_, other.others_);
}

void Clock::join_other(uint64_t cluster, const Clock& theirs) {
    auto others = others_ == nullptr ? std::make_shared<std::map<uint64_t, Clock>>()
                                     : std::make_shared<std::map<uint64_t, Clock>>(*others_);
    (*others)[cluster].join(theirs);
    others_ = others;
    waited_ |= theirs.waited_;
}

void ClockSum::add(const Clock& clock) {
    fresh_ = false;
    if (clock.table_ != nullptr && clock.table_ != last_table_) {
        take_later(steps_, *clock.table_);
        last_table_ = clock.table_;
    }
    if (clock.own_step_ != 0) {
        if (steps_.size() <= clock.own_agent_) {
            steps_.resize(clock.own_agent_ + 1);
        }
        steps_[clock.own_agent_] = std::max(steps_[clock.own_agent_], clock.own_step_);
    }
    waited_ |= clock.waited_;
    others_ = joined(others_, clock.others_);
}

void ClockSum::clear() {
    steps_.clear();
    last_table_ = nullptr;
    others_ = nullptr;
    waited_ = false;
    fresh_ = false;
}

const Clock& ClockSum::clock() const {
    if (!fresh_) {
        result_ = Clock();
        result_.table_ = steps_.empty() ? nullptr : std::make_shared<Steps>(steps_);
        result_.others_ = others_;
        result_.waited_ = waited_;
        fresh_ = true;
    }
    return result_;
}

// Most kernels never fence: their empty clocks cost nothing.
void SyncPoint::release(Agent& agent) {
    seen_.add(agent.seen);
    if (!agent.fenced.empty()) {
        fenced_.add(agent.fenced);
    }
    if (!agent.released.empty()) {
        released_.add(agent.released);
    }
    agent.next_step();
}

void SyncPoint::acquire(Agent& agent) const {
    agent.seen.join(seen_.clock());
    agent.fenced.join(fenced_.clock());
    agent.released.join(released_.clock());
}

void SyncPoint::add(const SyncPoint& other) {
    seen_.add(other.seen_.clock());
    fenced_.add(other.fenced_.clock());
    released_.add(other.released_.clock());
}

void SyncPoint::clear() {
    seen_.clear();
    fenced_.clear();
    released_.clear();
}

}  // namespace emulator

#endif
