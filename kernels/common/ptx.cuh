// Every instruction that C++ cannot express, as one named function in namespace ptx. Under the emulator the same names are
// twins that compute and check what the PTX ISA says.
#pragma once

#include "device.cuh"

#ifdef JMOE_EMULATOR
#include "ptx.h"
#else
#include "ptx_convert.cuh"
#include "ptx_copy.cuh"
#include "ptx_matrix.cuh"
#endif
