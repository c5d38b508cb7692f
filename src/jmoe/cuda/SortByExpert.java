package jmoe.cuda;

import jmoe.ops.Routing;

/** {@code rowToSlot = argsort(topkIds)}: in one block where that suffices, else in chunks. */
final class SortByExpert {
    private final CudaContext context;
    private final CudaModule module;

    SortByExpert(CudaContext context) {
        this.context = context;
        module = context.module("sort_by_expert");
    }

    void queue(Operands on, Routing routing) {
        int slots = (int) routing.topkIds().numElements();
        CudaKernel small = module.kernel("sort_by_expert_small");
        Addresses at =
                new Addresses(
                        on.in(routing.topkIds()),
                        on.out(routing.tokensPerExpert()),
                        on.out(routing.expertOffsets()),
                        on.rowsOut(routing.rowToSlot()),
                        on.out(routing.slotToRow()));
        if (slots > small.itemsPerBlock()) {
            sortInChunks(at, slots, routing.numExperts());
            return;
        }
        context.launch()
                .of(small)
                .pointer(at.topkIds)
                .pointer(at.tokensPerExpert)
                .pointer(at.expertOffsets)
                .pointer(at.rowToSlot)
                .pointer(at.slotToRow)
                .int32(slots)
                .int32(routing.numExperts())
                .run(1);
    }

    /** The tensors of a routing on the device. */
    private record Addresses(
            long topkIds,
            long tokensPerExpert,
            long expertOffsets,
            long rowToSlot,
            long slotToRow) {}

    private void sortInChunks(Addresses at, int slots, int numExperts) {
        CudaKernel counting = module.kernel("sort_by_expert_count");
        int chunkSlots = counting.itemsPerBlock();
        int chunks = (int) counting.blocks(slots);
        long counts = context.scratch().address(4L * chunks * numExperts);
        context.launch()
                .of(counting)
                .pointer(at.topkIds)
                .pointer(counts)
                .int32(slots)
                .int32(numExperts)
                .int32(chunkSlots)
                .run(chunks);
        context.launch()
                .of(module.kernel("sort_by_expert_scan"))
                .pointer(counts)
                .pointer(at.tokensPerExpert)
                .pointer(at.expertOffsets)
                .int32(numExperts)
                .int32(chunks)
                .run(1);
        context.launch()
                .of(module.kernel("sort_by_expert_scatter"))
                .pointer(at.topkIds)
                .pointer(counts)
                .pointer(at.rowToSlot)
                .pointer(at.slotToRow)
                .int32(slots)
                .int32(numExperts)
                .int32(chunkSlots)
                .run(chunks);
    }
}
