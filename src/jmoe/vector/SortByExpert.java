package jmoe.vector;

import jmoe.ops.Routing;
import jmoe.tensor.Tensor;

/**
 * {@code rowToSlot = argsort(topkIds)}: a counting sort on the calling thread, which moves a few
 * bytes per slot and so takes little of a layer's time.
 */
final class SortByExpert {
    private SortByExpert() {}

    static void sort(Routing routing) {
        Tensor ids = routing.topkIds();
        Tensor counts = routing.tokensPerExpert();
        Tensor offsets = routing.expertOffsets();
        int numExperts = routing.numExperts();
        long slots = ids.numElements();
        counts.data().fill((byte) 0);
        for (long slot = 0; slot < slots; slot++) {
            int id = ids.getInt(slot);
            if (id >= 0 && id < numExperts) {
                counts.setInt(id, counts.getInt(id) + 1);
            }
        }
        // While slots are placed, offsets[e + 1] is the next row of expert e; afterwards it is
        // where expert e ends, which is what it has to be.
        offsets.setInt(0, 0);
        int row = 0;
        for (int expert = 0; expert < numExperts; expert++) {
            offsets.setInt(expert + 1L, row);
            row += counts.getInt(expert);
        }
        for (long slot = 0; slot < slots; slot++) {
            int id = ids.getInt(slot);
            int next = -1;
            if (id >= 0 && id < numExperts) {
                next = offsets.getInt(id + 1L);
                offsets.setInt(id + 1L, next + 1);
                routing.rowToSlot().setInt(next, (int) slot);
            }
            routing.slotToRow().setInt(slot, next);
        }
    }
}
