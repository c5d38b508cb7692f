// What the emulated machine is said to be: jmoeEmulatorSet and the variable JMOE_EMULATOR.
#pragma once

#include <string>

namespace driver {

struct Settings {
    long long driver_version = 13000;
    long long device_count = 1;
    long long capability = 90;
    long long multiprocessors = 132;
    long long total_memory = 140LL << 30;
    long long memory_pools = 1;     // 0: a driver without cuMemAllocAsync
    long long discard_launches = 0;  // 1: kernel launches are checked and dropped; 2: not even checked

    // nullptr if there is no such key.
    long long* find(const std::string& key);
};

}  // namespace driver
