// The device arena, and what every build notices about addresses.
#include "check.h"
#include "simt.h"

using check::Buffer;
using emulator::Allocation;
using emulator::DeviceAddress;

namespace {

void check_arena() {
    uint64_t live_before = emulator::live_allocations();
    DeviceAddress small = emulator::allocate(1000);
    DeviceAddress huge = emulator::allocate(20ull << 30);
    check::report("20 GiB cost nothing until touched", huge != 0 && huge % 256 == 0);
    check::equal("live allocations", emulator::live_allocations() - live_before, 2u);
    Allocation found = emulator::find(huge + (19ull << 30));
    check::report("an address inside is found", found.base == huge && found.alive && found.bytes == 20ull << 30);
    auto bytes = reinterpret_cast<unsigned char*>(small);
    check::report("fresh memory is poisoned", bytes[0] == 0xff && bytes[999] == 0xff);
    check::report("bounds", emulator::is_device(small, 1000) && !emulator::is_device(small, 1001) &&
                                !emulator::is_device(small - 1, 1));
    check::report("free", emulator::free(small) && !emulator::free(small) && !emulator::free(huge + 256));
    check::report("a freed address is named", emulator::describe_address(small, 4).find("freed") != std::string::npos);
    DeviceAddress again = emulator::allocate(1000);
    check::report("addresses are not used again soon", again != small);
    check::report("host memory is no device memory", !emulator::in_device_range(DeviceAddress(&found)));
    check::report("nothing is refused", emulator::allocate(0) == 0 && emulator::allocate(1ull << 60) == 0);
    emulator::free(again);
    emulator::free(huge);
    check::equal("live bytes", emulator::live_bytes(), 0u);
}

void check_reuse() {
    bool good = true;
    for (int i = 0; good && i < 40; i++) {
        DeviceAddress block = emulator::allocate(100ull << 30);
        good = block != 0 && emulator::free(block);
    }
    check::report("the range is used again when it has run out", good);
    DeviceAddress kept = emulator::allocate(400ull << 30);
    DeviceAddress hole = emulator::allocate(400ull << 30);
    check::report("a full range says so", kept != 0 && hole != 0 && emulator::allocate(400ull << 30) == 0);
    check::report("and has room again after a free", emulator::free(hole) && emulator::allocate(300ull << 30) != 0);
    emulator::free(kept);
}

__global__ void store_at(int* out, long long index) { out[index] = 1; }

void check_bounds() {
    if (std::string(emulator::build_name()) == "asan") {
        return;  // AddressSanitizer ends the process there
    }
    emulator::set_schedule({});
    Buffer<int> out(10);
    bool race = check::is_race_build();
    std::string error = check::run<store_at>({1, 1}, out.data(), 10ll);
    const char* expected = race ? "0 bytes past the end of the 40 bytes" : "0 bytes past the end of allocation";
    check::report("a store past the end", error.find(expected) != std::string::npos, error);
    error = check::run<store_at>({1, 1}, out.data(), -1ll);
    check::report("a store before the start", !error.empty(), error);
    error = check::run<store_at>({1, 1}, out.data(), 9ll);
    check::report("a store inside, after that", error.empty(), error);
    int host = 0;
    error = check::run<store_at>({1, 1}, &host, 0ll);
    check::report("a host pointer as argument", error.find("no device memory") != std::string::npos, error);
    if (race) {
        error = check::run<store_at>({1, 1}, static_cast<int*>(nullptr), 0ll);
        check::report("a null pointer", error.find("null pointer") != std::string::npos, error);
    }
}

}  // namespace

int main() {
    check_arena();
    check_bounds();
    check_reuse();
    return check::result();
}
