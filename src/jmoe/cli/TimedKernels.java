package jmoe.cli;

import jmoe.ops.Activation;
import jmoe.ops.Bank;
import jmoe.ops.ConstantExperts;
import jmoe.ops.ExpertWeights;
import jmoe.ops.InputTransform;
import jmoe.ops.Kernels;
import jmoe.ops.RouteInputs;
import jmoe.ops.Router;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.ops.Routing;
import jmoe.ops.ShapeInputs;
import jmoe.ops.SingletonExperts;
import jmoe.ops.TokenInputs;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.EnumMap;
import java.util.Map;

/**
 * Another backend with a clock around each operation, which is waited for. Bytes are those that an
 * operation must touch once: inputs, outputs and the weights of experts that have rows. Counting
 * happens outside the measured time.
 *
 * <p>One pass at a time: the figures of concurrent passes would mix.
 */
final class TimedKernels implements Kernels {
    /**
     * The operations; products with one group (router, shared down, projections) are dense. A
     * backend that computes the router or the experts in kernels of its own has those as a stage;
     * what it does in it are not the others.
     */
    enum Stage {
        DENSE,
        ROUTE,
        SORT,
        ROUTER,
        PERMUTE,
        GATE_UP,
        GEMM,
        SWIGLU,
        UNPERMUTE,
        EXPERTS,
        SHAPE,
        NEURONS
    }

    /** Subtract the maximum, exponential, sum, compare. */
    private static final long FLOPS_PER_LOGIT = 4;

    /** Exponential, add, divide, multiply by the up half. */
    private static final long FLOPS_PER_ACTIVATION = 4;

    /** What the calls of one stage came to. */
    static final class Meter {
        private long calls;
        private long nanos;
        private long bytes;
        private long flops;

        long calls() {
            return calls;
        }

        long nanos() {
            return nanos;
        }

        long bytes() {
            return bytes;
        }

        long flops() {
            return flops;
        }
    }

    private final Kernels kernels;
    private final Map<Stage, Meter> meters = new EnumMap<>(Stage.class);

    /**
     * Wraps a backend.
     *
     * @param kernels closed together with this
     */
    TimedKernels(Kernels kernels) {
        this.kernels = kernels;
        reset();
    }

    /** Forgets what was measured. */
    void reset() {
        for (Stage stage : Stage.values()) {
            meters.put(stage, new Meter());
        }
    }

    Meter meter(Stage stage) {
        return meters.get(stage);
    }

    private void add(Stage stage, double nanos, long touchedBytes, long operations) {
        Meter meter = meters.get(stage);
        meter.calls++;
        meter.nanos += Math.round(nanos);
        meter.bytes += touchedBytes;
        meter.flops += operations;
    }

    /** With the logits: what stands around the router's product. */
    @Override
    public void jitter(Tensor x, InputTransform.Jitter jitter, @Nullable Tensor step, Tensor y) {
        double nanos = kernels.nanos(() -> kernels.jitter(x, jitter, step, y));
        add(Stage.SHAPE, nanos, x.numBytes() + bytes(step) + y.numBytes(), x.numElements());
    }

    @Override
    public void shapeLogits(Tensor logits, RouterConfig config, ShapeInputs inputs) {
        double nanos = kernels.nanos(() -> kernels.shapeLogits(logits, config, inputs));
        long touched = 2 * logits.numBytes() + bytes(inputs.named());
        add(Stage.SHAPE, nanos, touched, 0);
    }

    @Override
    public void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        double nanos = kernels.nanos(() -> kernels.route(logits, config, inputs, routing));
        long touched =
                logits.numBytes()
                        + bytes(inputs.named())
                        + routing.topkIds().numBytes()
                        + routing.topkWeights().numBytes();
        add(Stage.ROUTE, nanos, touched, FLOPS_PER_LOGIT * logits.numElements());
    }

    @Override
    public void sortByExpert(Routing routing) {
        double nanos = kernels.nanos(() -> kernels.sortByExpert(routing));
        long touched =
                routing.topkIds().numBytes()
                        + routing.tokensPerExpert().numBytes()
                        + routing.expertOffsets().numBytes()
                        + rows(onHost(routing.expertOffsets())) * Integer.BYTES
                        + routing.slotToRow().numBytes();
        add(Stage.SORT, nanos, touched, 0);
    }

    /** On a device in one kernel; elsewhere it is what it is made of. */
    @Override
    public void routeSort(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        if (!logits.isDevice()) {
            Kernels.super.routeSort(logits, config, inputs, routing);
            return;
        }
        double nanos = kernels.nanos(() -> kernels.routeSort(logits, config, inputs, routing));
        long touched = logits.numBytes() + bytes(inputs.named()) + bytes(routing);
        add(Stage.ROUTE, nanos, touched, FLOPS_PER_LOGIT * logits.numElements());
    }

    @Override
    public void router(
            Tensor x,
            Router router,
            TokenInputs tokens,
            Routing dense,
            Tensor scratch,
            Tensor logits,
            Routing routing) {
        if (!kernels.fusesRouter(x, router, routing)) {
            Kernels.super.router(x, router, tokens, dense, scratch, logits, routing);
            return;
        }
        double nanos =
                kernels.nanos(
                        () -> kernels.router(x, router, tokens, dense, scratch, logits, routing));
        RouterWeights weights = router.weights();
        long touched =
                x.numBytes()
                        + weights.weight().numBytes()
                        + bytes(weights.bias())
                        + bytes(weights.selectionBias())
                        + bytes(router.sharedGate())
                        + bytes(tokens.tokenTypes())
                        + logits.numBytes()
                        + bytes(routing);
        long products = weights.weight().numElements();
        if (router.sharedGate() != null) {
            products += x.dim(1);
        }
        long flops = 2 * x.dim(0) * products + FLOPS_PER_LOGIT * logits.numElements();
        add(Stage.ROUTER, nanos, touched, flops);
    }

    @Override
    public boolean fusesRouter(Tensor x, Router router, Routing routing) {
        return kernels.fusesRouter(x, router, routing);
    }

    @Override
    public long routerScratch(DType x, Router router, long tokens) {
        return kernels.routerScratch(x, router, tokens);
    }

    @Override
    public void experts(
            Tensor x,
            Bank routed,
            @Nullable Bank shared,
            Residual residual,
            DType rowType,
            Tensor scratch,
            Tensor y) {
        if (!kernels.fusesExperts(x, routed, shared, rowType)) {
            Kernels.super.experts(x, routed, shared, residual, rowType, scratch, y);
            return;
        }
        double nanos =
                kernels.nanos(
                        () -> kernels.experts(x, routed, shared, residual, rowType, scratch, y));
        long touched = x.numBytes() + bytes(residual.addend()) + y.numBytes() + weightBytes(routed);
        long flops = flops(routed);
        if (shared != null) {
            touched += weightBytes(shared);
            flops += flops(shared);
        }
        add(Stage.EXPERTS, nanos, touched, flops);
    }

    @Override
    public boolean fusesExperts(Tensor x, Bank routed, @Nullable Bank shared, DType rowType) {
        return kernels.fusesExperts(x, routed, shared, rowType);
    }

    @Override
    public long expertsScratch(DType rowType, Bank routed, @Nullable Bank shared) {
        return kernels.expertsScratch(rowType, routed, shared);
    }

    /** Both weights of the experts that have rows. */
    private long weightBytes(Bank bank) {
        Tensor gateUp = bank.experts().gateUp();
        long groups = groupsWithRows(onHost(bank.routing().expertOffsets()), gateUp);
        long elements = matrixElements(bank.experts());
        return gateUp.dtype().numBytes(groups * elements) + bytes(bank.outputWeights());
    }

    private long flops(Bank bank) {
        Tensor offsets = onHost(bank.routing().expertOffsets());
        long rows = offsets.getInt(bank.experts().numExperts());
        long activations = FLOPS_PER_ACTIVATION * bank.experts().intermediate();
        return rows * (2 * matrixElements(bank.experts()) + activations);
    }

    /** Of one expert. */
    private static long matrixElements(ExpertWeights experts) {
        return experts.hidden() * (experts.gateUp().dim(1) + experts.intermediate());
    }

    @Override
    public void permute(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows) {
        double nanos = kernels.nanos(() -> kernels.permute(x, routing, weights, rows));
        long numRows = rows(onHost(routing.expertOffsets()));
        long elements = numRows * x.dim(1);
        long touched =
                x.dtype().numBytes(elements)
                        + rows.dtype().numBytes(elements)
                        + numRows * Integer.BYTES
                        + bytes(weights);
        add(Stage.PERMUTE, nanos, touched, weights == null ? 0 : elements);
    }

    @Override
    public void groupedGemm(
            Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y) {
        double nanos = kernels.nanos(() -> kernels.groupedGemm(x, weight, bias, expertOffsets, y));
        long outputs = weight.dim(1);
        long inputs = weight.dim(2);
        Tensor offsets = onHost(expertOffsets);
        long rows = rows(offsets);
        long groups = groupsWithRows(offsets, weight);
        long touched =
                x.dtype().numBytes(rows * inputs)
                        + y.dtype().numBytes(rows * outputs)
                        + weight.dtype().numBytes(groups * outputs * inputs)
                        + (bias == null ? 0 : bias.dtype().numBytes(groups * outputs));
        Stage stage = weight.dim(0) == 1 ? Stage.DENSE : Stage.GEMM;
        add(stage, nanos, touched, 2 * rows * outputs * inputs);
    }

    @Override
    public Tensor allocate(Arena arena, DType dtype, long... shape) {
        return kernels.allocate(arena, dtype, shape);
    }

    @Override
    public void copy(Tensor from, Tensor to) {
        kernels.copy(from, to);
    }

    @Override
    public void fill(Tensor tensor, int value) {
        kernels.fill(tensor, value);
    }

    @Override
    public void synchronise() {
        kernels.synchronise();
    }

    @Override
    public double nanos(Runnable operations) {
        return kernels.nanos(operations);
    }

    @Override
    public Tensor prepare(Tensor weight, Arena arena) {
        return kernels.prepare(weight, arena);
    }

    @Override
    public ExpertWeights prepare(ExpertWeights experts, Arena arena) {
        return kernels.prepare(experts, arena);
    }

    @Override
    public long gateUpSwigluScratch(DType x, long slots, ExpertWeights experts) {
        return kernels.gateUpSwigluScratch(x, slots, experts);
    }

    @Override
    public void gateUpSwiglu(
            Tensor x,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor scratch,
            Tensor hidden) {
        double nanos =
                kernels.nanos(
                        () -> kernels.gateUpSwiglu(x, routing, weights, experts, scratch, hidden));
        Tensor offsets = onHost(routing.expertOffsets());
        Tensor weight = experts.gateUp();
        long rows = rows(offsets.slice(0, experts.numExperts() + 1L));
        long matrixElements = weight.dim(1) * weight.dim(2);
        long touched =
                x.numBytes()
                        + hidden.dtype().numBytes(rows * hidden.dim(1))
                        + weight.dtype().numBytes(groupsWithRows(offsets, weight) * matrixElements)
                        + bytes(weights);
        long flops = 2 * matrixElements + FLOPS_PER_ACTIVATION * hidden.dim(1);
        add(Stage.GATE_UP, nanos, touched, rows * flops);
    }

    @Override
    public void swiglu(Tensor gateUp, Activation activation, Tensor expertOffsets, Tensor hidden) {
        double nanos =
                kernels.nanos(() -> kernels.swiglu(gateUp, activation, expertOffsets, hidden));
        long rows = rows(onHost(expertOffsets));
        long elements = rows * hidden.dim(1);
        long touched =
                gateUp.dtype().numBytes(rows * gateUp.dim(1)) + hidden.dtype().numBytes(elements);
        add(Stage.SWIGLU, nanos, touched, FLOPS_PER_ACTIVATION * elements);
    }

    @Override
    public void unpermute(
            Tensor rows, Routing routing, @Nullable Tensor weights, Residual residual, Tensor y) {
        double nanos = kernels.nanos(() -> kernels.unpermute(rows, routing, weights, residual, y));
        long elements = rows(onHost(routing.expertOffsets())) * y.dim(1);
        long touched =
                rows.dtype().numBytes(elements)
                        + routing.slotToRow().numBytes()
                        + bytes(weights)
                        + bytes(residual.addend())
                        + y.numBytes();
        add(Stage.UNPERMUTE, nanos, touched, 2 * elements);
    }

    /** Bytes of neurons are those of all slots, though several may ask for the same. */
    @Override
    public void singletonExperts(
            Tensor x,
            Tensor topkIds,
            @Nullable Tensor weights,
            SingletonExperts experts,
            Tensor y) {
        double nanos =
                kernels.nanos(() -> kernels.singletonExperts(x, topkIds, weights, experts, y));
        long elements = 2 * topkIds.numElements() * experts.hidden();
        long touched =
                x.numBytes()
                        + topkIds.numBytes()
                        + bytes(weights)
                        + experts.up().dtype().numBytes(elements)
                        + y.numBytes();
        add(Stage.NEURONS, nanos, touched, 2 * elements);
    }

    /** Not measured, as what follows: no layer that has stages calls it. */
    @Override
    public void constantExperts(
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y) {
        double nanos =
                kernels.nanos(
                        () -> kernels.constantExperts(x, routing, experts, firstId, residual, y));
        long touched = x.numBytes() + bytes(residual.addend()) + y.numBytes();
        add(Stage.UNPERMUTE, nanos, touched, 4 * x.numElements());
    }

    @Override
    public void normaliseRows(Tensor x, double factor, double epsilon, Tensor y) {
        double nanos = kernels.nanos(() -> kernels.normaliseRows(x, factor, epsilon, y));
        add(Stage.SHAPE, nanos, x.numBytes() + y.numBytes(), 3 * x.numElements());
    }

    @Override
    public void softDispatch(Tensor x, Tensor logits, Tensor rows) {
        kernels.softDispatch(x, logits, rows);
    }

    @Override
    public void softCombine(Tensor rows, Tensor logits, Tensor y) {
        kernels.softCombine(rows, logits, y);
    }

    @Override
    public void close() {
        kernels.close();
    }

    /** The offsets, copied if they are on a device. */
    private Tensor onHost(Tensor offsets) {
        if (!offsets.isDevice()) {
            return offsets;
        }
        Tensor copy = Tensor.allocate(Arena.ofAuto(), offsets.dtype(), offsets.shape());
        kernels.copy(offsets, copy);
        return copy;
    }

    private static long groupsWithRows(Tensor expertOffsets, Tensor weight) {
        long groups = 0;
        for (long group = 0; group < weight.dim(0); group++) {
            groups += expertOffsets.getInt(group + 1) > expertOffsets.getInt(group) ? 1 : 0;
        }
        return groups;
    }

    private static long rows(Tensor expertOffsets) {
        long end = expertOffsets.getInt(expertOffsets.numElements() - 1);
        return end - expertOffsets.getInt(0);
    }

    private static long bytes(Map<String, Tensor> inputs) {
        long bytes = 0;
        for (Tensor tensor : inputs.values()) {
            bytes += tensor.numBytes();
        }
        return bytes;
    }

    /** What routing and sorting write. */
    private static long bytes(Routing routing) {
        return routing.topkIds().numBytes()
                + routing.topkWeights().numBytes()
                + routing.tokensPerExpert().numBytes()
                + routing.expertOffsets().numBytes()
                + routing.rowToSlot().numBytes()
                + routing.slotToRow().numBytes();
    }

    private static long bytes(@Nullable Tensor tensor) {
        return tensor == null ? 0 : tensor.numBytes();
    }
}
