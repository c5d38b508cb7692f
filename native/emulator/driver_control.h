// Reads JMOE_EMULATOR, once, for cuInit or what comes before it.
#pragma once

namespace driver {

// Called under the lock. Throws Refusal if the variable cannot be understood.
void read_environment();

}  // namespace driver
