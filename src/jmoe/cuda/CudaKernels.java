package jmoe.cuda;

import jcuda.driver.CUstream;

import jmoe.ops.Activation;
import jmoe.ops.Arguments;
import jmoe.ops.Bank;
import jmoe.ops.ConstantArguments;
import jmoe.ops.ConstantExperts;
import jmoe.ops.ExpertWeights;
import jmoe.ops.FusedArguments;
import jmoe.ops.InputArguments;
import jmoe.ops.InputTransform.Jitter;
import jmoe.ops.Kernels;
import jmoe.ops.Replay;
import jmoe.ops.RouteInputs;
import jmoe.ops.Router;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.ops.ShapeInputs;
import jmoe.ops.SingletonArguments;
import jmoe.ops.SingletonExperts;
import jmoe.ops.SoftArguments;
import jmoe.ops.TokenInputs;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.lang.foreign.Arena;
import java.lang.ref.Cleaner;
import java.util.function.Consumer;

/**
 * The operations on a GPU. Tensors may be on the device or on the host, each independently.
 *
 * <p>An operation whose tensors are all on the device is queued and returns at once; what goes
 * wrong on the device is thrown by a later call. Operations run in the order they were called;
 * {@link #synchronise} waits for them. If any tensor is on the host, it is copied there and back
 * and the operation has ended when the call returns: right, but slower than the copies allow.
 * Memory of the device follows an arena like any other:
 *
 * <pre>
 * try (CudaKernels kernels = new CudaKernels();
 *         Arena arena = Arena.ofShared()) {
 *     Tensor x = kernels.upload(arena, hostX);
 *     Tensor y = kernels.allocate(arena, DType.BF16, tokens, outputs);
 *     kernels.groupedGemm(x, weight, null, offsets, y);
 *     kernels.copy(y, hostY);
 * }
 * </pre>
 *
 * <p>Offsets, ids and maps on the device are not checked: that would stop the queue.
 *
 * <p>{@link #router} and {@link #experts} have kernels of their own for up to 128 tokens and 1024
 * slots, if x, weights and rows have one 16-bit type: three launches for a layer, through which the
 * weights are streamed once. Which way is taken is computed from the sizes and the device; the
 * system property {@code jmoe.cuda.path}, {@code decode} or {@code large}, forces one wherever it
 * suits, for measurements.
 */
public final class CudaKernels implements Kernels {
    private static final Logger LOG = System.getLogger("jmoe");
    private static final Cleaner CLEANER = Cleaner.create();

    private final CudaContext context;
    private final Operands operands;
    private final ShapeLogits shapeLogits;
    private final Route route;
    private final SortByExpert sortByExpert;
    private final GroupedGemm groupedGemm;
    private final RowKernels rowKernels;
    private final SoftMix softMix;
    private final DecodeRoute decodeRoute;
    private final DecodeExperts decodeExperts;

    /**
     * Opens the device that {@link CudaProbe#DEVICE_PROPERTY} names, or the first one.
     *
     * @throws UnsupportedOperationException if {@link CudaProbe#probe} finds something missing
     * @throws CudaException if the driver fails
     */
    public CudaKernels() {
        // Before anything is opened that would have to be closed.
        Tile forcedTile = GroupedGemm.forcedTile();
        DecodePath forcedPath = DecodePath.forced();
        context = new CudaContext(CudaProbe.usableDevice());
        operands = new Operands(context);
        shapeLogits = new ShapeLogits(context);
        route = new Route(context);
        sortByExpert = new SortByExpert(context);
        groupedGemm = new GroupedGemm(context, forcedTile);
        rowKernels = new RowKernels(context);
        softMix = new SoftMix(context);
        decodeRoute = new DecodeRoute(context, forcedPath);
        decodeExperts = new DecodeExperts(context, forcedPath);
        CudaContext opened = context;
        CLEANER.register(this, () -> reportUnreachable(opened));
    }

    private static void reportUnreachable(CudaContext context) {
        if (context.enterIfOpen()) {
            context.exit();
            LOG.log(
                    Level.WARNING,
                    "jmoe: a CUDA backend became unreachable without being closed; its memory"
                            + " stays taken");
        }
    }

    /**
     * Where the operations run.
     *
     * @return the device
     */
    public CudaDevice device() {
        return context.device();
    }

    /**
     * The queue of the operations, for JCuda: to capture them in a graph, to time them, or to queue
     * work of one's own among them. Every operation must have run once before it is captured, with
     * tensors of the same types and at least the same sizes, because loading a kernel and
     * allocating memory cannot be captured.
     *
     * @return the stream; valid until {@link #close}
     */
    public CUstream stream() {
        return context.stream().handle();
    }

    /**
     * Device allocations that are not freed yet, in all instances together.
     *
     * @return how many
     */
    public static long liveAllocations() {
        return CudaMemory.liveBlocks();
    }

    /**
     * Device memory that is not freed yet, in all instances together.
     *
     * @return how many bytes were asked for
     */
    public static long liveBytes() {
        return CudaMemory.liveBytes();
    }

    /**
     * Allocates device memory. It is freed when the arena is closed, after the operations queued
     * until then, or by {@link #close}.
     *
     * @throws CudaException if the memory does not suffice
     */
    @Override
    public Tensor allocate(Arena arena, DType dtype, long... shape) {
        context.enter();
        try {
            long bytes = Tensor.device(0, dtype, shape).numBytes();
            return Tensor.device(context.memory().allocate(arena, bytes), dtype, shape);
        } finally {
            context.exit();
        }
    }

    /**
     * Copies a tensor to the device, to stay there: weights, once.
     *
     * @param arena owner of the device memory
     * @param host what to copy
     * @return a device tensor of the same type and shape
     * @throws CudaException if the memory does not suffice
     */
    public Tensor upload(Arena arena, Tensor host) {
        Tensor device = allocate(arena, host.dtype(), host.shape());
        copy(host, device);
        return device;
    }

    /** A copy between host and device ends before the call returns; one within the device later. */
    @Override
    public void copy(Tensor from, Tensor to) {
        context.checkOpen();
        Arguments.copy(from, to);
        if (!from.isDevice() && !to.isDevice()) {
            to.data().copyFrom(from.data());
            return;
        }
        context.enter();
        try {
            long source = from.data().address();
            long target = to.data().address();
            if (!from.isDevice()) {
                context.staging().toDevice(from.data(), target);
            } else if (!to.isDevice()) {
                context.staging().toHost(source, to.data());
            } else if (from.numElements() > 0) {
                context.staging().within(source, target, from.numBytes());
            }
        } finally {
            context.exit();
        }
    }

    @Override
    public void fill(Tensor tensor, int value) {
        context.checkOpen();
        Arguments.fill(tensor);
        if (!tensor.isDevice()) {
            Kernels.super.fill(tensor, value);
            return;
        }
        context.enter();
        try {
            context.stream().fill(tensor.data().address(), value, tensor.numElements());
        } finally {
            context.exit();
        }
    }

    /**
     * Waits for everything queued so far.
     *
     * @throws CudaException if any of it failed
     */
    @Override
    public void synchronise() {
        context.enter();
        try {
            context.refuseInCapture("a wait for the device");
            context.stream().synchronise();
        } finally {
            context.exit();
        }
    }

    /** By events of the driver, so that what the host does before does not count. */
    @Override
    public double nanos(Runnable operations) {
        return CudaEvent.nanos(context, operations);
    }

    /**
     * Captures operations in a graph of the driver. The turn is this thread's until it is complete;
     * other threads wait.
     */
    @Override
    public Replay capture(Runnable operations) {
        context.enter();
        try {
            context.refuseInCapture("another capture");
            return new CudaGraph(context, operations);
        } finally {
            context.exit();
        }
    }

    /** Uploads the weight, in row-major order; F64 stays, because nothing here computes with it. */
    @Override
    public Tensor prepare(Tensor weight, Arena arena) {
        context.checkOpen();
        Check.weight("weight", weight, "[groups, outputs, inputs]");
        computableWeight("prepare", "weight", weight);
        return weight.dtype() == DType.F64 ? weight : onDevice(weight, arena);
    }

    /** Uploads weights and biases, in row-major order. */
    @Override
    public ExpertWeights prepare(ExpertWeights experts, Arena arena) {
        context.checkOpen();
        computableWeight("prepare", "gateUp", experts.gateUp());
        if (experts.gateUp().dtype() == DType.F64) {
            return experts;
        }
        Tensor gateUpBias = experts.gateUpBias();
        Tensor downBias = experts.downBias();
        ExpertWeights prepared =
                new ExpertWeights(
                        onDevice(experts.gateUp(), arena),
                        onDevice(experts.down(), arena),
                        gateUpBias == null ? null : onDevice(gateUpBias, arena),
                        downBias == null ? null : onDevice(downBias, arena),
                        experts.activation());
        return prepared.equals(experts) ? experts : prepared;
    }

    private Tensor onDevice(Tensor tensor, Arena arena) {
        return tensor.isDevice() ? tensor : upload(arena, tensor);
    }

    @Override
    public void jitter(Tensor x, Jitter jitter, @Nullable Tensor step, Tensor y) {
        context.checkOpen();
        InputArguments.jitter(x, step, y);
        computable("jitter", "x", x);
        queue(on -> rowKernels.queueJitter(on, x, jitter, step, y));
    }

    /** With operands that the kernels reach. */
    private void queue(Consumer<Operands> operation) {
        try (Operands on = operands.open()) {
            operation.accept(on);
            on.finish();
        }
    }

    @Override
    public void shapeLogits(Tensor logits, RouterConfig config, ShapeInputs inputs) {
        context.checkOpen();
        Arguments.shapeLogits(logits, config, inputs);
        if (!config.logitTransforms().isEmpty()) {
            queue(on -> shapeLogits.queue(on, logits, config, inputs));
        }
    }

    @Override
    public void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        context.checkOpen();
        Arguments.route(logits, config, inputs, routing);
        computable("route", "logits", logits);
        queue(on -> route.queue(on, logits, config, inputs, routing));
    }

    @Override
    public void sortByExpert(Routing routing) {
        context.checkOpen();
        Arguments.sortByExpert(routing);
        try (Operands on = operands.open()) {
            sortByExpert.queue(on, routing);
            on.finish(routing.expertOffsets());
        }
    }

    @Override
    public void routeSort(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        context.checkOpen();
        if (!DecodeRoute.sorts(config, inputs, routing)) {
            Kernels.super.routeSort(logits, config, inputs, routing);
            return;
        }
        FusedArguments.routeSort(logits, config, inputs, routing);
        computable("routeSort", "logits", logits);
        try (Operands on = operands.open()) {
            decodeRoute.queueSorted(on, logits, config, inputs, routing);
            on.finish(routing.expertOffsets());
        }
    }

    @Override
    public void permute(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows) {
        context.checkOpen();
        Arguments.permute(x, routing, weights, rows);
        computable("permute", "x", x);
        computable("permute", "rows", rows);
        try (Operands on = operands.open()) {
            rowKernels.queuePermute(on, x, routing, weights, rows);
            on.finish(routing.expertOffsets());
        }
    }

    @Override
    public void groupedGemm(
            Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y) {
        context.checkOpen();
        Arguments.groupedGemm(x, weight, bias, expertOffsets, y);
        computable("groupedGemm", "x", x);
        computable("groupedGemm", "weight", weight);
        computableWeight("groupedGemm", "weight", weight);
        Check.rowMajor("weight", weight);
        computable("groupedGemm", "y", y);
        try (Operands on = operands.open()) {
            groupedGemm.queue(on, x, weight, bias, expertOffsets, y);
            on.finish(expertOffsets);
        }
    }

    @Override
    public void gateUpSwiglu(
            Tensor x,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor scratch,
            Tensor hidden) {
        context.checkOpen();
        computableWeight("gateUpSwiglu", "gateUp", experts.gateUp());
        if (!GroupedGemm.onMatrixUnits(x.dtype(), experts.gateUp().dtype())) {
            Kernels.super.gateUpSwiglu(x, routing, weights, experts, scratch, hidden);
            return;
        }
        Arguments.gateUpSwiglu(x, routing, weights, experts, hidden);
        Check.rowMajor("gateUp", experts.gateUp());
        computable("gateUpSwiglu", "hidden", hidden);
        try (Operands on = operands.open()) {
            groupedGemm.queueGateUpSwiglu(on, x, routing, weights, experts, hidden);
            on.finish(routing.expertOffsets().slice(0, experts.numExperts() + 1L));
        }
    }

    @Override
    public long gateUpSwigluScratch(DType x, long slots, ExpertWeights experts) {
        return GroupedGemm.onMatrixUnits(x, experts.gateUp().dtype())
                ? 0
                : Kernels.super.gateUpSwigluScratch(x, slots, experts);
    }

    @Override
    public void swiglu(Tensor gateUp, Activation activation, Tensor expertOffsets, Tensor hidden) {
        context.checkOpen();
        Arguments.swiglu(gateUp, activation, expertOffsets, hidden);
        computable("swiglu", "gateUp", gateUp);
        computable("swiglu", "hidden", hidden);
        try (Operands on = operands.open()) {
            rowKernels.queueSwiglu(on, gateUp, activation, expertOffsets, hidden);
            on.finish(expertOffsets);
        }
    }

    @Override
    public void unpermute(
            Tensor rows, Routing routing, @Nullable Tensor weights, Residual residual, Tensor y) {
        context.checkOpen();
        Arguments.unpermute(rows, routing, weights, residual, y);
        computable("unpermute", "rows", rows);
        computable("unpermute", residual, y);
        queue(on -> rowKernels.queueUnpermute(on, rows, routing, weights, residual, y));
    }

    @Override
    public void singletonExperts(
            Tensor x,
            Tensor topkIds,
            @Nullable Tensor weights,
            SingletonExperts experts,
            Tensor y) {
        context.checkOpen();
        SingletonArguments.singletonExperts(x, topkIds, weights, experts, y);
        computable("singletonExperts", "x", x);
        computable("singletonExperts", "up", experts.up());
        computable("singletonExperts", "y", y);
        queue(on -> rowKernels.queueSingletonExperts(on, x, topkIds, weights, experts, y));
    }

    @Override
    public void constantExperts(
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y) {
        context.checkOpen();
        ConstantArguments.constantExperts(x, routing, experts, firstId, residual, y);
        computable("constantExperts", "x", x);
        computable("constantExperts", residual, y);
        try (Operands on = operands.open()) {
            rowKernels.queueConstantExperts(on, x, routing, experts, firstId, residual, y);
            on.finish();
        }
    }

    @Override
    public void normaliseRows(Tensor x, double factor, double epsilon, Tensor y) {
        context.checkOpen();
        SoftArguments.normaliseRows(x, factor, epsilon, y);
        computable("normaliseRows", "x", x);
        computable("normaliseRows", "y", y);
        queue(on -> softMix.queueNormaliseRows(on, x, factor, epsilon, y));
    }

    @Override
    public void softDispatch(Tensor x, Tensor logits, Tensor rows) {
        context.checkOpen();
        SoftArguments.softDispatch(x, logits, rows);
        computable("softDispatch", "x", x);
        computable("softDispatch", "rows", rows);
        queue(on -> softMix.queueDispatch(on, x, logits, rows));
    }

    @Override
    public void softCombine(Tensor rows, Tensor logits, Tensor y) {
        context.checkOpen();
        SoftArguments.softCombine(rows, logits, y);
        computable("softCombine", "rows", rows);
        computable("softCombine", "y", y);
        queue(on -> softMix.queueCombine(on, rows, logits, y));
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
        context.checkOpen();
        if (!fusesRouter(x, router, routing)) {
            Kernels.super.router(x, router, tokens, dense, scratch, logits, routing);
            return;
        }
        long needed = DecodeRoute.scratchElements(x.dtype(), router, routing.tokens());
        FusedArguments.router(x, router, tokens, dense, scratch, needed, logits, routing);
        Check.rowMajor("weight", router.weights().weight());
        try (Operands on = operands.open()) {
            decodeRoute.queue(on, x, router, tokens.tokenTypes(), dense, scratch, logits, routing);
            on.finish(routing.expertOffsets());
        }
    }

    @Override
    public boolean fusesRouter(Tensor x, Router router, Routing routing) {
        return decodeRoute.takes(x, router, routing);
    }

    @Override
    public long routerScratch(DType x, Router router, long tokens) {
        return Math.max(
                Kernels.super.routerScratch(x, router, tokens),
                DecodeRoute.scratchElements(x, router, tokens));
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
        context.checkOpen();
        if (!fusesExperts(x, routed, shared, rowType)) {
            Kernels.super.experts(x, routed, shared, residual, rowType, scratch, y);
            return;
        }
        long needed = decodeExperts.scratchElements(rowType, routed, shared);
        FusedArguments.experts(x, routed, shared, residual, rowType, scratch, needed, y);
        computable("experts", residual, y);
        try (Operands on = operands.open()) {
            decodeExperts.queue(on, x, routed, shared, residual, scratch, y);
            on.finish();
        }
    }

    @Override
    public boolean fusesExperts(Tensor x, Bank routed, @Nullable Bank shared, DType rowType) {
        return decodeExperts.takes(x.dtype(), routed, shared, rowType);
    }

    @Override
    public long expertsScratch(DType rowType, Bank routed, @Nullable Bank shared) {
        return Math.max(
                Kernels.super.expertsScratch(rowType, routed, shared),
                decodeExperts.scratchElements(rowType, routed, shared));
    }

    /**
     * Waits for the operations and frees what belongs to the device: also memory whose arena is
     * still open, which is said in the log.
     *
     * @throws CudaException if an operation failed that nobody has waited for
     */
    @Override
    public void close() {
        context.close();
    }

    private void computable(String operation, Residual residual, Tensor y) {
        computable(operation, "addend", residual.addend());
        computable(operation, "identity", residual.identity());
        computable(operation, "y", y);
    }

    private void computableWeight(String operation, String name, Tensor weight) {
        Check.unscaled(operation, name, weight, "the CUDA backend on " + context.device().name());
    }

    private void computable(String operation, String name, @Nullable Tensor tensor) {
        if (tensor != null && tensor.dtype() == DType.F64) {
            throw new UnsupportedOperationException(
                    operation
                            + ": "
                            + name
                            + " of type F64 is not supported by the CUDA backend on "
                            + context.device().name()
                            + "; use F32, F16 or BF16, or the reference backend");
        }
    }
}
