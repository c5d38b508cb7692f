package jmoe.cuda;

import jmoe.ops.Activation;
import jmoe.ops.ConstantExperts;
import jmoe.ops.InputTransform.Jitter;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.Routing;
import jmoe.ops.SingletonExperts;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * The operations that take rows as they come: jitter, permute, swiglu, unpermute, singletonExperts,
 * constantExperts.
 */
final class RowKernels {
    /** Columns that keep a block busy. */
    private static final long MIN_COLUMNS = 1024;

    private final CudaContext context;
    private final CudaModule jitter;
    private final CudaModule permute;
    private final CudaModule swiglu;
    private final CudaModule unpermute;
    private final CudaModule singletonExperts;
    private final CudaModule constantExperts;

    RowKernels(CudaContext context) {
        this.context = context;
        jitter = context.module("jitter");
        permute = context.module("permute");
        swiglu = context.module("swiglu");
        unpermute = context.module("unpermute");
        singletonExperts = context.module("singleton_experts");
        constantExperts = context.module("constant_experts");
    }

    void queueJitter(Operands on, Tensor x, Jitter transform, @Nullable Tensor step, Tensor y) {
        int tokens = Launch.int32("tokens", x.dim(0));
        int hidden = Launch.int32("hidden", x.dim(1));
        CudaKernel kernel = jitter.kernel(x.dtype(), y.dtype());
        Launch launch =
                context.launch()
                        .of(kernel)
                        .pointer(on.in(x))
                        .pointer(on.in(step))
                        .pointer(on.out(y))
                        .int32(tokens)
                        .int32(hidden)
                        .int64(transform.seed())
                        .float64(transform.epsilon());
        run(launch, kernel, tokens, hidden);
    }

    void queuePermute(
            Operands on, Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows) {
        int hidden = Launch.int32("hidden", x.dim(1));
        int maxRows = (int) rows.dim(0);
        boolean copies = weights == null && x.dtype() == rows.dtype();
        CudaKernel kernel =
                copies ? permute.kernel("permute_copy") : permute.kernel(x.dtype(), rows.dtype());
        Launch launch =
                context.launch()
                        .of(kernel)
                        .pointer(on.in(x))
                        .pointer(on.in(routing.rowToSlot()))
                        .pointer(on.in(routing.expertOffsets()))
                        .int32(routing.numExperts());
        if (copies) {
            launch.pointer(on.rowsOut(rows)).int32(maxRows);
            launch.int64(x.dtype().numBytes(hidden)).int32(routing.topK());
        } else {
            launch.pointer(on.in(weights)).pointer(on.rowsOut(rows));
            launch.int32(maxRows).int32(hidden).int32(routing.topK());
        }
        run(launch, kernel, maxRows, hidden);
    }

    void queueSwiglu(
            Operands on,
            Tensor gateUp,
            Activation activation,
            Tensor expertOffsets,
            Tensor hidden) {
        int maxRows = Launch.int32("rows", gateUp.dim(0));
        int intermediate = Launch.int32("intermediate", hidden.dim(1));
        CudaKernel kernel = swiglu.kernel(gateUp.dtype(), hidden.dtype());
        Launch launch =
                context.launch()
                        .of(kernel)
                        .pointer(on.in(gateUp))
                        .pointer(on.in(expertOffsets))
                        .int32((int) expertOffsets.numElements() - 1)
                        .pointer(on.rowsOut(hidden))
                        .int32(maxRows)
                        .int32(intermediate)
                        .int32(KernelCodes.of(activation.kind()))
                        .float32(activation.limit());
        run(launch, kernel, maxRows, intermediate);
    }

    void queueUnpermute(
            Operands on,
            Tensor rows,
            Routing routing,
            @Nullable Tensor weights,
            Residual residual,
            Tensor y) {
        Tensor addend = residual.addend();
        Tensor identity = residual.identity();
        int tokens = (int) routing.tokens();
        int hidden = Launch.int32("hidden", y.dim(1));
        CudaKernel kernel = unpermute.kernel(rows.dtype(), y.dtype());
        Launch launch =
                context.launch()
                        .of(kernel)
                        .pointer(on.in(rows))
                        .pointer(on.in(routing.slotToRow()))
                        .pointer(on.in(routing.topkIds()))
                        .pointer(on.in(weights))
                        .pointer(on.in(addend))
                        .pointer(on.in(identity))
                        .pointer(on.out(y))
                        .int32(tokens)
                        .int32(hidden)
                        .int32(routing.topK())
                        .int32(addend == null ? 0 : KernelCodes.of(addend.dtype()))
                        .int32(addend == null ? 1 : (int) addend.dim(0))
                        .int32(identity == null ? 0 : KernelCodes.of(identity.dtype()))
                        .int32(residual.firstIdentity())
                        .float32((float) residual.factor());
        run(launch, kernel, tokens, hidden);
    }

    /** The neurons, then the sum over the rows of their experts: unpermute with ids for rows. */
    void queueSingletonExperts(
            Operands on,
            Tensor x,
            Tensor topkIds,
            @Nullable Tensor weights,
            SingletonExperts experts,
            Tensor y) {
        int tokens = (int) topkIds.dim(0);
        int topK = (int) topkIds.dim(1);
        int hidden = Launch.int32("hidden", y.dim(1));
        int slots = tokens * topK;
        long ids = on.in(topkIds);
        long neurons = context.scratch().address(4L * slots);
        CudaKernel computing = singletonExperts.kernel(x.dtype(), experts.up().dtype());
        context.launch()
                .of(computing)
                .pointer(on.in(x))
                .pointer(ids)
                .pointer(on.in(weights))
                .pointer(on.in(experts.up()))
                .pointer(neurons)
                .int32(slots)
                .int32(Launch.int32("numExperts", experts.numExperts()))
                .int32(hidden)
                .int32(topK)
                .int32(KernelCodes.of(experts.activation().kind()))
                .run(computing.blocks(slots));
        CudaKernel adding = unpermute.kernel(experts.down().dtype(), y.dtype());
        Launch launch =
                context.launch()
                        .of(adding)
                        .pointer(on.in(experts.down()))
                        .pointer(ids)
                        .pointer(ids)
                        .pointer(neurons)
                        .pointer(0)
                        .pointer(0)
                        .pointer(on.out(y))
                        .int32(tokens)
                        .int32(hidden)
                        .int32(topK)
                        .int32(0)
                        .int32(1)
                        .int32(0)
                        .int32(Integer.MAX_VALUE)
                        .float32(1);
        run(launch, adding, tokens, hidden);
    }

    /** What each slot takes of x and of its constant, then the sums. */
    void queueConstantExperts(
            Operands on,
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y) {
        Tensor addend = residual.addend();
        int tokens = (int) routing.tokens();
        int topK = routing.topK();
        int hidden = Launch.int32("hidden", y.dim(1));
        int slots = tokens * topK;
        long ids = on.in(routing.topkIds());
        long input = on.in(x);
        long shares = context.scratch().address(2 * 4L * slots);
        CudaKernel computing = constantExperts.kernel("constant_experts_shares");
        context.launch()
                .of(computing)
                .pointer(input)
                .pointer(ids)
                .pointer(on.in(routing.topkWeights()))
                .pointer(on.in(experts.mixing()))
                .pointer(shares)
                .int32(slots)
                .int32(firstId)
                .int32(experts.numConstants())
                .int32(hidden)
                .int32(topK)
                .int32(KernelCodes.of(x.dtype()))
                .run(computing.blocks(slots));
        CudaKernel adding = constantExperts.kernel(x.dtype(), y.dtype());
        Launch launch =
                context.launch()
                        .of(adding)
                        .pointer(input)
                        .pointer(ids)
                        .pointer(shares)
                        .pointer(on.in(experts.vectors()))
                        .pointer(on.in(addend))
                        .pointer(on.out(y))
                        .int32(tokens)
                        .int32(hidden)
                        .int32(topK)
                        .int32(firstId)
                        .int32(addend == null ? 0 : KernelCodes.of(addend.dtype()))
                        .int32(addend == null ? 1 : (int) addend.dim(0))
                        .float32((float) residual.factor());
        run(launch, adding, tokens, hidden);
    }

    /** Blocks take some rows each; where these are too few for the device, they share columns. */
    private void run(Launch launch, CudaKernel kernel, long rows, long columns) {
        long blocks = kernel.blocks(rows);
        long unused = context.device().multiprocessors() / Math.max(1, blocks);
        long useful = columns / MIN_COLUMNS;
        launch.run(blocks, Math.max(1, Math.min(unused, useful)));
    }
}
