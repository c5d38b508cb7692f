// Every instruction that C++ cannot express, as one named function in namespace ptx. Under the emulator the same names
// are twins that compute and check what the PTX ISA says.
#pragma once

#include "device.cuh"

namespace ptx {

// A tensor map as cuTensorMapEncodeTiled writes it. Kernels take it as const __grid_constant__ ptx::TensorMap and pass
// its address on; without __grid_constant__ the compiler copies it to local memory, where TMA reads garbage.
struct alignas(64) TensorMap {
    uint64_t words[16];
};

}  // namespace ptx

#ifdef JMOE_EMULATOR
#include "ptx.h"
#else
#include "ptx_clock.cuh"
#include "ptx_convert.cuh"
#include "ptx_copy.cuh"
#include "ptx_grid.cuh"
#include "ptx_matrix.cuh"
#ifdef JMOE_SM90
#include "ptx_barrier.cuh"
#include "ptx_bulk.cuh"
#include "ptx_cluster.cuh"
#include "ptx_stmatrix.cuh"
#include "ptx_wgmma.cuh"
#endif
#endif

#ifdef JMOE_SM90
#include "ptx_descriptor.cuh"
#endif
