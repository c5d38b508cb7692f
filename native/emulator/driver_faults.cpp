#include "driver_faults.h"

#include <cctype>

namespace driver {

std::string without_version(const std::string& symbol) {
    size_t end = symbol.size();
    while (end > 0 && std::isdigit(static_cast<unsigned char>(symbol[end - 1]))) {
        end--;
    }
    bool versioned = end < symbol.size() && end >= 2 && symbol.compare(end - 2, 2, "_v") == 0;
    return versioned ? symbol.substr(0, end - 2) : symbol;
}

void Faults::arm(const std::string& call, int countdown, Result result) {
    if (call == "*clear*") {
        faults_.clear();
        return;
    }
    faults_[without_version(call)] = {countdown, result};
}

Result Faults::strike(const char* call) {
    if (faults_.empty()) {
        return CUDA_SUCCESS;
    }
    auto found = faults_.find(without_version(call));
    if (found == faults_.end() || --found->second.countdown > 0) {
        return CUDA_SUCCESS;
    }
    Result result = found->second.result;
    faults_.erase(found);
    return result;
}

}  // namespace driver
