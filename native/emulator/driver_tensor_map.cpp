// cuTensorMapEncodeTiled: the checks and the 128 bytes are ptx_tensor_map.cpp's, where TMA reads them.
#include "driver_call.h"
#include "driver_calls.h"
#include "driver_device.h"
#include "memory.h"
#include "ptx_tensor_map.h"

namespace driver {

extern "C" {

Result cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* address, const uint64_t* dims,
                              const uint64_t* strides, const unsigned* box, const unsigned* element_strides,
                              int interleave, int swizzle, int l2_promotion, int out_of_bounds_fill) {
    return call("cuTensorMapEncodeTiled", Needs::driver, [&](Call&) {
        if (!device_limits().clusters) {
            refuse(CUDA_ERROR_NOT_SUPPORTED, "this device has no tensor memory access");
        }
        emulator::TensorMapRequest request;
        request.type = type;
        request.rank = rank;
        request.address = address;
        request.dims = dims;
        request.strides = strides;
        request.box = box;
        request.element_strides = element_strides;
        request.interleave = interleave;
        request.swizzle = swizzle;
        request.l2_promotion = l2_promotion;
        request.out_of_bounds_fill = out_of_bounds_fill;
        std::string fault = state().device_memory.fault(reinterpret_cast<CUdeviceptr>(address), 1, false);
        if (!fault.empty()) {
            refuse(CUDA_ERROR_INVALID_VALUE, "globalAddress: %s", fault.c_str());
        }
        std::string refused = emulator::encode_tensor_map(map, request);
        if (!refused.empty()) {
            refuse(CUDA_ERROR_INVALID_VALUE, "%s", refused.c_str());
        }
    });
}

}  // extern "C"
}  // namespace driver
