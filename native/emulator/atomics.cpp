#include "atomics.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <cstring>

#include "cluster.h"
#include "fail.h"
#include "memory.h"
#include "shadow.h"
#include "worker.h"

namespace emulator {

namespace {

template <class Bits>
Bits combine(AtomicOperation operation, Bits old, Bits value, Bits compare) {
    using Signed = std::make_signed_t<Bits>;
    switch (operation) {
        case AtomicOperation::add:
            return old + value;
        case AtomicOperation::min_signed:
            return Bits(std::min(Signed(old), Signed(value)));
        case AtomicOperation::min_unsigned:
            return std::min(old, value);
        case AtomicOperation::max_signed:
            return Bits(std::max(Signed(old), Signed(value)));
        case AtomicOperation::max_unsigned:
            return std::max(old, value);
        case AtomicOperation::bit_and:
            return old & value;
        case AtomicOperation::bit_or:
            return old | value;
        case AtomicOperation::bit_xor:
            return old ^ value;
        case AtomicOperation::exchange:
            return value;
        case AtomicOperation::compare_exchange:
            return old == compare ? value : old;
        case AtomicOperation::increment:
            return old >= value ? 0 : old + 1;
        case AtomicOperation::decrement:
            return old == 0 || old > value ? value : old - 1;
    }
    __builtin_unreachable();
}

// Checks the address before the store, and lets others run after it.
void check(const void* address, size_t bytes, Site site) {
    current_thread->site = site;
    if (uintptr_t(address) % bytes != 0) {
        fail("atomic of %zu bytes at %p, which is not aligned to them", bytes, address);
    }
    bool shared = current_cluster->worker().rank_of(address) >= 0;
    if (!shared && !in_device_range(DeviceAddress(address))) {
        fail("atomic at %p, which is neither shared nor device memory", address);
    }
    atomic_access(address, bytes, "atomic", site);
}

// Blocks may run on several OS threads, so the host operation has to be atomic too.
template <class Bits, class Update>
Bits update(Bits* address, Update next) {
    Bits old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(address, &old, next(old), false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    }
    return old;
}

template <class Bits>
Bits atomic(AtomicOperation operation, void* address, Bits value, Bits compare, Site site) {
    check(address, sizeof(Bits), site);
    Bits old = update(static_cast<Bits*>(address),
                      [&](Bits before) { return combine(operation, before, value, compare); });
    count_atomic("an atomic", site);
    return old;
}

float flush_subnormal(float value) {
    return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}

template <class Bits, class Float, class Sum>
Float atomic_float(Float* address, Site site, Sum sum) {
    check(address, sizeof(Float), site);
    Bits old = update(reinterpret_cast<Bits*>(address), [&](Bits before) {
        Float value;
        std::memcpy(&value, &before, sizeof value);
        value = sum(value);
        Bits after;
        std::memcpy(&after, &value, sizeof after);
        return after;
    });
    count_atomic("an atomic", site);
    Float result;
    std::memcpy(&result, &old, sizeof result);
    return result;
}

}  // namespace

uint32_t atomic_32(AtomicOperation operation, void* address, uint32_t value, uint32_t compare, Site site) {
    return atomic<uint32_t>(operation, address, value, compare, site);
}

uint64_t atomic_64(AtomicOperation operation, void* address, uint64_t value, uint64_t compare, Site site) {
    return atomic<uint64_t>(operation, address, value, compare, site);
}

float atomic_add_float(float* address, float value, Site site) {
    bool shared = current_cluster->worker().rank_of(address) >= 0;
    return atomic_float<uint32_t>(address, site, [&](float old) {
        return shared ? old + value : flush_subnormal(flush_subnormal(old) + flush_subnormal(value));
    });
}

double atomic_add_double(double* address, double value, Site site) {
    return atomic_float<uint64_t>(address, site, [&](double old) { return old + value; });
}

}  // namespace emulator
