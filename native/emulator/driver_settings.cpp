#include "driver_settings.h"

#include <map>

namespace driver {

long long* Settings::find(const std::string& key) {
    static const std::map<std::string, long long Settings::*> fields = {
        {"driverVersion", &Settings::driver_version},
        {"deviceCount", &Settings::device_count},
        {"capability", &Settings::capability},
        {"multiprocessors", &Settings::multiprocessors},
        {"totalMemory", &Settings::total_memory},
        {"memoryPools", &Settings::memory_pools},
        {"discardLaunches", &Settings::discard_launches},
    };
    auto field = fields.find(key);
    return field == fields.end() ? nullptr : &(this->*field->second);
}

}  // namespace driver
