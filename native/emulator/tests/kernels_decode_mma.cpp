// The experts of the decode path by cp.async and mma.sync, against plain loops.
#include "decode_layer.h"

using namespace decode_layer;

int main() {
    std::vector<Layer> layers = common_layers();
    // Sizes and addresses that are no multiple of 16 bytes.
    layers.push_back({.tokens = 3, .experts = 4, .top_k = 2, .hidden = 75, .intermediate = 37, .shared = 21, .biased = true, .addend = true});
    layers.push_back({.tokens = 11, .experts = 4, .top_k = 2, .hidden = 64, .intermediate = 48, .kind = kSilu, .misaligned = 1});
    check_layers(false, layers);
    return check::result();
}
