// Tables from handles to objects. A handle is a number that is never used twice, so a destroyed one is recognised.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "driver_errors.h"

namespace driver {

// `kind` goes into the high bits: a stream passed for an event is no valid handle, and no handle is a valid address.
template <class Object, class Handle, unsigned kind>
class Handles {
public:
    explicit Handles(const char* noun) : noun_(noun) {}

    Handle add(std::shared_ptr<Object> object) {
        uintptr_t number = first_ + 16 * ++count_;
        objects_[number] = std::move(object);
        return reinterpret_cast<Handle>(number);
    }

    std::shared_ptr<Object> find(Handle handle) const {
        auto number = reinterpret_cast<uintptr_t>(handle);
        auto found = objects_.find(number);
        if (found == objects_.end()) {
            bool was_valid = number > first_ && number <= first_ + 16 * count_ && number % 16 == 0;
            refuse(CUDA_ERROR_INVALID_HANDLE, "%s handle 0x%llx %s", noun_, static_cast<unsigned long long>(number),
                   was_valid ? "was destroyed" : "was never given out");
        }
        return found->second;
    }

    std::shared_ptr<Object> remove(Handle handle) {
        std::shared_ptr<Object> object = find(handle);
        objects_.erase(reinterpret_cast<uintptr_t>(handle));
        return object;
    }

    template <class Condition>
    void remove_if(Condition condition) {
        std::erase_if(objects_, [&](const auto& entry) { return condition(*entry.second); });
    }

    std::vector<std::shared_ptr<Object>> all() const {
        std::vector<std::shared_ptr<Object>> objects;
        objects.reserve(objects_.size());
        for (const auto& entry : objects_) {
            objects.push_back(entry.second);
        }
        return objects;
    }

private:
    static constexpr uintptr_t first_ = uintptr_t{0x00C0 + kind} << 48;
    const char* noun_;
    uintptr_t count_ = 0;
    std::unordered_map<uintptr_t, std::shared_ptr<Object>> objects_;
};

}  // namespace driver
