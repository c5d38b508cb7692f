// Every function this library exports, under the symbol names of the real driver. Result codes and structures stand in
// driver_abi.h; what a call does, and what it refuses, stands where it is defined.
#pragma once

#include "driver_abi.h"

namespace driver {

#pragma GCC visibility push(default)
extern "C" {

// Control surface: jmoe only (driver_control.cpp)
const char* jmoeEmulatorName();
void jmoeEmulatorSchedule(int policy, unsigned long long seed, int async, int preempt);
void jmoeEmulatorFault(const char* name, int countdown, int result);
void jmoeEmulatorSet(const char* key, long long value);
long long jmoeEmulatorGet(const char* key);

// Initialisation and devices
Result cuInit(unsigned flags);
Result cuDriverGetVersion(int* version);
Result cuDeviceGetCount(int* count);
Result cuDeviceGet(CUdevice* device, int ordinal);
Result cuDeviceGetName(char* name, int bytes, CUdevice device);
Result cuDeviceGetAttribute(int* value, int attribute, CUdevice device);
Result cuDeviceTotalMem_v2(size_t* bytes, CUdevice device);
Result cuDeviceGetUuid(CUuuid* uuid, CUdevice device);
Result cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device);
Result cuDeviceComputeCapability(int* major, int* minor, CUdevice device);
Result cuDeviceGetPCIBusId(char* name, int bytes, CUdevice device);

// Contexts
Result cuCtxCreate_v2(CUcontext* context, unsigned flags, CUdevice device);
Result cuCtxCreate_v4(CUcontext* context, CUctxCreateParams* params, unsigned flags, CUdevice device);
Result cuCtxDestroy_v2(CUcontext context);
Result cuCtxSetCurrent(CUcontext context);
Result cuCtxGetCurrent(CUcontext* context);
Result cuCtxPushCurrent_v2(CUcontext context);
Result cuCtxPopCurrent_v2(CUcontext* context);
Result cuCtxSynchronize();
Result cuCtxGetDevice(CUdevice* device);
Result cuCtxGetFlags(unsigned* flags);
Result cuCtxGetId(CUcontext context, unsigned long long* id);
Result cuCtxGetApiVersion(CUcontext context, unsigned* version);
Result cuCtxGetStreamPriorityRange(int* least, int* greatest);

// Primary contexts
Result cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device);
Result cuDevicePrimaryCtxRelease_v2(CUdevice device);
Result cuDevicePrimaryCtxReset_v2(CUdevice device);
Result cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active);
Result cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags);

// Modules
Result cuModuleLoad(CUmodule* module, const char* file);
Result cuModuleLoadData(CUmodule* module, const void* image);
Result cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned num_options, int* options, void** values);
Result cuModuleLoadFatBinary(CUmodule* module, const void* image);
Result cuModuleUnload(CUmodule handle);
Result cuModuleGetFunction(CUfunction* function, CUmodule handle, const char* name);
Result cuModuleGetGlobal_v2(CUdeviceptr* address, size_t* bytes, CUmodule handle, const char* name);

// Functions
Result cuFuncGetAttribute(int* value, int attribute, CUfunction function);
Result cuFuncSetAttribute(CUfunction function, int attribute, int value);
Result cuFuncGetParamInfo(CUfunction handle, size_t index, size_t* offset, size_t* bytes);
Result cuFuncGetModule(CUmodule* module, CUfunction function);
Result cuFuncGetName(const char** name, CUfunction function);
Result cuFuncSetCacheConfig(CUfunction function, int);
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int block_threads,
                                                   size_t dynamic_shared);
Result cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction function, int block_threads,
                                                            size_t dynamic_shared, unsigned);
Result cuOccupancyMaxActiveClusters(int* clusters, CUfunction handle, const CUlaunchConfig* config);

// Device memory
Result cuMemAlloc_v2(CUdeviceptr* address, size_t bytes);
Result cuMemFree_v2(CUdeviceptr address);
Result cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream);
Result cuMemAllocFromPoolAsync(CUdeviceptr* address, size_t bytes, CUmemoryPool pool, CUstream stream);
Result cuMemFreeAsync(CUdeviceptr address, CUstream stream_handle);
Result cuMemGetInfo_v2(size_t* free, size_t* total);
Result cuMemGetAddressRange_v2(CUdeviceptr* base, size_t* bytes, CUdeviceptr address);

// Memory pools
Result cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device);
Result cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice device);
Result cuDeviceSetMemPool(CUdevice device, CUmemoryPool handle);
Result cuMemPoolCreate(CUmemoryPool* handle, const CUmemPoolProps* properties);
Result cuMemPoolDestroy(CUmemoryPool handle);
Result cuMemPoolTrimTo(CUmemoryPool handle, size_t bytes_to_keep);
Result cuMemPoolGetAttribute(CUmemoryPool handle, int attribute, void* value);
Result cuMemPoolSetAttribute(CUmemoryPool handle, int attribute, void* value);

// Page-locked memory and pointers
Result cuMemAllocHost_v2(void** memory, size_t bytes);
Result cuMemHostAlloc(void** memory, size_t bytes, unsigned flags);
Result cuMemFreeHost(void* memory);
Result cuMemHostRegister_v2(void* memory, size_t bytes, unsigned flags);
Result cuMemHostUnregister(void* memory);
Result cuMemHostGetFlags(unsigned* flags, void* memory);
Result cuPointerGetAttribute(void* data, int attribute, CUdeviceptr address);
Result cuPointerGetAttributes(unsigned count, int* attributes, void** data, CUdeviceptr address);

// Copies
Result cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes);
Result cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream);
Result cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes);
Result cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream);
Result cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes);
Result cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);
Result cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes);
Result cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream);

// Memset
Result cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count);
Result cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count);
Result cuMemsetD32_v2(CUdeviceptr to, unsigned value, size_t count);
Result cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream);
Result cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream);
Result cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream);

// Streams
Result cuStreamCreate(CUstream* stream, unsigned flags);
Result cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int priority);
Result cuStreamDestroy_v2(CUstream handle);
Result cuStreamSynchronize(CUstream handle);
Result cuStreamQuery(CUstream handle);
Result cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned flags);
Result cuStreamGetPriority(CUstream handle, int* priority);
Result cuStreamGetFlags(CUstream handle, unsigned* flags);
Result cuStreamGetId(CUstream handle, unsigned long long* id);
Result cuStreamGetCtx(CUstream handle, CUcontext* context);

// Stream capture
Result cuStreamBeginCapture_v2(CUstream handle, int mode);
Result cuStreamEndCapture(CUstream handle, CUgraph* graph);
Result cuStreamIsCapturing(CUstream handle, int* status);
Result cuThreadExchangeStreamCaptureMode(int* mode);

// Events
Result cuEventCreate(CUevent* handle, unsigned flags);
Result cuEventDestroy_v2(CUevent handle);
Result cuEventRecord(CUevent event, CUstream stream);
Result cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags);
Result cuEventSynchronize(CUevent handle);
Result cuEventQuery(CUevent handle);
Result cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end);
Result cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end);

// Graphs
Result cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long flags);
Result cuGraphLaunch(CUgraphExec handle, CUstream stream_handle);
Result cuGraphUpload(CUgraphExec handle, CUstream stream);
Result cuGraphExecDestroy(CUgraphExec handle);
Result cuGraphDestroy(CUgraph handle);
Result cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count);
Result cuGraphNodeGetType(CUgraphNode node, int* type);

// Launches
Result cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned dynamic_shared, CUstream stream, void** params,
                      void** extra);
Result cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** params, void** extra);
Result cuLaunchHostFunc(CUstream stream, CUhostFn function, void* user_data);

// Tensor maps
Result cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* address, const uint64_t* dims,
                              const uint64_t* strides, const unsigned* box, const unsigned* element_strides,
                              int interleave, int swizzle, int l2_promotion, int out_of_bounds_fill);

// Errors, symbols, profiler
Result cuGetErrorName(int code, const char** name);
Result cuGetErrorString(int code, const char** text);
Result cuGetProcAddress(const char* symbol, void** address, int, uint64_t);
Result cuGetProcAddress_v2(const char* symbol, void** address, int, uint64_t, int* status);
Result cuProfilerStart();
Result cuProfilerStop();

}  // extern "C"
#pragma GCC visibility pop

}  // namespace driver
