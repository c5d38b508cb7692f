// The only file that knows both compilers: nvcc, and g++ with the emulator's device language.
#pragma once

#ifdef JMOE_EMULATOR
#include "simt.h"
#else
#include <cstddef>
#include <cstdint>
#endif

// Code that needs an instruction of sm_90a stands inside #ifdef JMOE_SM90, except in sources that are compiled for nothing else.
// __CUDA_ARCH__ >= 900 would let it into sm_90 and sm_100a builds, which reject it. nvcc's host pass, which has no architecture,
// generates nothing of it, but has to find its names.
#if defined(JMOE_EMULATOR) || defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)
#define JMOE_SM90 1
#endif

// What a host needs to launch a kernel, beside the arguments. It stands beside the kernel so that a tile size exists
// once.
struct LaunchInfo {
    int threads;          // threads per block
    int items_per_block;  // tokens, rows or slots that one block handles
    int shared_bytes;     // dynamic shared memory, 0 if none
    int cluster;          // blocks of a cluster, of which the grid is a multiple; 1 for none
};

#ifdef JMOE_EMULATOR

#define JMOE_SHARED(type, name, dims) EMULATOR_SHARED(type, name, dims)
#define JMOE_DYNAMIC_SHARED(name) unsigned char* const name = ::emulator::dynamic_shared()
#define JMOE_EXPORT_CLUSTER(kernel, threads, items_per_block, shared_bytes, cluster)                     \
    static const LaunchInfo kernel##_launch = {(threads), (items_per_block), (shared_bytes), (cluster)}; \
    EMULATOR_EXPORT(kernel, threads)

#else

// A static shared array, as in JMOE_SHARED(float, row_max, [32]).
#define JMOE_SHARED(type, name, dims) __shared__ type name dims
// 1024 bytes is the alignment of a tile with the 128-byte swizzle.
#define JMOE_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define JMOE_EXPORT_CLUSTER(kernel, threads, items_per_block, shared_bytes, cluster) \
    extern "C" __constant__ LaunchInfo kernel##_launch = {(threads), (items_per_block), (shared_bytes), (cluster)}

#endif

// Stands after every extern "C" kernel. Java reads <kernel>_launch with cuModuleGetGlobal.
#define JMOE_EXPORT(kernel, threads, items_per_block, shared_bytes) \
    JMOE_EXPORT_CLUSTER(kernel, threads, items_per_block, shared_bytes, 1)
