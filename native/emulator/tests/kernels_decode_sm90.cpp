// The experts of the decode path by TMA and wgmma, against plain loops.
#include "decode_layer.h"

int main() {
    decode_layer::check_layers(true, decode_layer::common_layers());
    return check::result();
}
