// Kernels and constants by name. They register while the library is loaded, in no particular order.
#include <cstring>

#include "grid.h"

namespace emulator {

static std::vector<const Kernel*>& kernel_list() {
    static std::vector<const Kernel*>& list = *new std::vector<const Kernel*>;
    return list;
}

static std::vector<const Constant*>& constant_list() {
    static std::vector<const Constant*>& list = *new std::vector<const Constant*>;
    return list;
}

template <class Named>
static const Named* find_named(const std::vector<const Named*>& list, const char* name) {
    for (const Named* named : list) {
        if (std::strcmp(named->name, name) == 0) {
            return named;
        }
    }
    return nullptr;
}

void add_kernel(const Kernel* kernel) { kernel_list().push_back(kernel); }

void add_constant(const Constant* constant) { constant_list().push_back(constant); }

const Kernel* find_kernel(const char* name) { return find_named(kernel_list(), name); }

const Constant* find_constant(const char* name) { return find_named(constant_list(), name); }

const std::vector<const Kernel*>& kernels() { return kernel_list(); }

const std::vector<const Constant*>& constants() { return constant_list(); }

size_t Kernel::param_offset(int param) const {
    size_t end = 0;
    for (int i = 0;; i++) {
        end = (end + param_alignments[i] - 1) / param_alignments[i] * param_alignments[i];
        if (i == param) {
            return end;
        }
        end += param_bytes[i];
    }
}

size_t Kernel::params_bytes() const { return param_offset(num_params); }

}  // namespace emulator
