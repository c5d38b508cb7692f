package jmoe.vector;

import jmoe.ops.Activation;
import jmoe.ops.Arguments;
import jmoe.ops.ConstantArguments;
import jmoe.ops.ConstantExperts;
import jmoe.ops.ExpertWeights;
import jmoe.ops.InputArguments;
import jmoe.ops.InputTransform;
import jmoe.ops.Kernels;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.ops.ShapeInputs;
import jmoe.ops.SingletonArguments;
import jmoe.ops.SingletonExperts;
import jmoe.ops.SoftArguments;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/**
 * The operations with the Vector API on several threads. Arguments are host tensors of F32, F16 or
 * BF16; weights that have a scale are refused: widened to F32 panels they would take four times
 * their memory, and as much time as F32. Several threads share memory of a confined arena only
 * where native access is enabled.
 */
public final class VectorKernels implements Kernels {
    private static final String NAME = "the vector backend";

    private final Workers workers;
    private final Jitter jitter;
    private final ShapeLogits shapeLogits;
    private final Route route;
    private final Permute permute;
    private final GroupedGemm groupedGemm;
    private final Swiglu swiglu;
    private final Unpermute unpermute;
    private final Singletons singletons;
    private final Constants constants;
    private final NormaliseRows normaliseRows;
    private final SoftMix softMix;

    /**
     * Starts the threads, which sleep between operations until {@link #close}.
     *
     * @param threads how many threads compute, the caller's among them; at least 1
     */
    public VectorKernels(int threads) {
        this(new Workers("vector", threads));
    }

    /**
     * Computes on threads that are there already.
     *
     * @param workers the threads; closed by {@link #close}, or if this fails
     */
    public VectorKernels(Workers workers) {
        this.workers = workers;
        try {
            Chunks chunks = new Chunks(workers);
            jitter = new Jitter(workers);
            shapeLogits = new ShapeLogits(workers);
            route = new Route(workers);
            permute = new Permute(workers, chunks);
            groupedGemm = new GroupedGemm(workers);
            swiglu = new Swiglu(workers, chunks);
            unpermute = new Unpermute(workers, chunks);
            singletons = new Singletons(workers, chunks);
            constants = new Constants(workers, chunks);
            normaliseRows = new NormaliseRows(workers);
            softMix = new SoftMix(workers);
        } catch (Throwable e) {
            workers.close();
            throw e;
        }
    }

    /**
     * The vectors of this machine.
     *
     * @return bits of one vector
     */
    public static int vectorBits() {
        return Lanes.FLOATS.vectorBitSize();
    }

    @Override
    public void jitter(Tensor x, InputTransform.Jitter transform, @Nullable Tensor step, Tensor y) {
        workers.checkOpen();
        InputArguments.jitter(x, step, y);
        computable("jitter", "x", x);
        host("step", step);
        host("y", y);
        workers.exclusively(() -> jitter.jitter(x, transform, step, y));
    }

    @Override
    public void shapeLogits(Tensor logits, RouterConfig config, ShapeInputs inputs) {
        workers.checkOpen();
        Arguments.shapeLogits(logits, config, inputs);
        host("logits", logits);
        inputs.named().forEach(this::host);
        workers.exclusively(() -> shapeLogits.shape(logits, config, inputs));
    }

    @Override
    public void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        workers.checkOpen();
        Arguments.route(logits, config, inputs, routing);
        computable("route", "logits", logits);
        inputs.named().forEach(this::host);
        host("topkIds", routing.topkIds());
        host("topkWeights", routing.topkWeights());
        workers.exclusively(() -> route.route(logits, config, inputs, routing));
    }

    @Override
    public void sortByExpert(Routing routing) {
        workers.checkOpen();
        Arguments.sortByExpert(routing);
        host("topkIds", routing.topkIds());
        host("tokensPerExpert", routing.tokensPerExpert());
        host("expertOffsets", routing.expertOffsets());
        host("rowToSlot", routing.rowToSlot());
        host("slotToRow", routing.slotToRow());
        workers.exclusively(() -> SortByExpert.sort(routing));
    }

    @Override
    public void permute(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows) {
        workers.checkOpen();
        Arguments.permute(x, routing, weights, rows);
        computable("permute", "x", x);
        computable("permute", "rows", rows);
        host("weights", weights);
        host("rowToSlot", routing.rowToSlot());
        host("expertOffsets", routing.expertOffsets());
        workers.exclusively(() -> permute.gather(x, routing, weights, rows));
    }

    @Override
    public Tensor prepare(Tensor weight, Arena arena) {
        return prepare("weight", weight, 1, arena);
    }

    @Override
    public ExpertWeights prepare(ExpertWeights experts, Arena arena) {
        Tensor gateUp =
                prepare("gateUp", experts.gateUp(), experts.activation().gated() ? 2 : 1, arena);
        if (gateUp.equals(experts.gateUp())) {
            return experts;
        }
        Tensor gateUpBias = experts.gateUpBias();
        Tensor downBias = experts.downBias();
        return new ExpertWeights(
                gateUp,
                prepare("down", experts.down(), 1, arena),
                gateUpBias == null ? null : gateUpBias.copy(arena),
                downBias == null ? null : downBias.copy(arena),
                experts.activation());
    }

    /** What is prepared already, or cannot be computed with, stays as it is. */
    private Tensor prepare(String name, Tensor weight, int parts, Arena arena) {
        workers.checkOpen();
        Check.weight(name, weight, "[groups, outputs, inputs]");
        Check.unscaled("prepare", name, weight, NAME);
        if (weight.layout() != null || weight.dtype() == DType.F64 || weight.isDevice()) {
            return weight;
        }
        host(name, weight);
        Tensor[] prepared = new Tensor[1];
        workers.exclusively(() -> prepared[0] = groupedGemm.prepare(weight, parts, arena));
        return prepared[0];
    }

    @Override
    public void groupedGemm(
            Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y) {
        workers.checkOpen();
        Arguments.groupedGemm(x, weight, bias, expertOffsets, y);
        computable("groupedGemm", "x", x);
        weight("groupedGemm", "weight", weight);
        computable("groupedGemm", "y", y);
        host("bias", bias);
        host("expertOffsets", expertOffsets);
        workers.exclusively(() -> groupedGemm.multiply(x, weight, bias, expertOffsets, y));
    }

    @Override
    public void gateUpSwiglu(
            Tensor x,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor scratch,
            Tensor hidden) {
        workers.checkOpen();
        Arguments.gateUpSwiglu(x, routing, weights, experts, hidden);
        computable("gateUpSwiglu", "x", x);
        weight("gateUpSwiglu", "gateUp", experts.gateUp());
        computable("gateUpSwiglu", "hidden", hidden);
        host("weights", weights);
        host("gateUpBias", experts.gateUpBias());
        host("rowToSlot", routing.rowToSlot());
        host("expertOffsets", routing.expertOffsets());
        workers.exclusively(() -> groupedGemm.gateUpSwiglu(x, routing, weights, experts, hidden));
    }

    @Override
    public long gateUpSwigluScratch(DType x, long slots, ExpertWeights experts) {
        return 0;
    }

    @Override
    public void swiglu(Tensor gateUp, Activation activation, Tensor expertOffsets, Tensor hidden) {
        workers.checkOpen();
        Arguments.swiglu(gateUp, activation, expertOffsets, hidden);
        computable("swiglu", "gateUp", gateUp);
        computable("swiglu", "hidden", hidden);
        host("expertOffsets", expertOffsets);
        workers.exclusively(() -> swiglu.apply(gateUp, activation, expertOffsets, hidden));
    }

    @Override
    public void unpermute(
            Tensor rows, Routing routing, @Nullable Tensor weights, Residual residual, Tensor y) {
        workers.checkOpen();
        Arguments.unpermute(rows, routing, weights, residual, y);
        computable("unpermute", "rows", rows);
        computable("unpermute", "addend", residual.addend());
        computable("unpermute", "identity", residual.identity());
        computable("unpermute", "y", y);
        host("weights", weights);
        host("slotToRow", routing.slotToRow());
        host("topkIds", routing.topkIds());
        workers.exclusively(() -> unpermute.reduce(rows, routing, weights, residual, y));
    }

    @Override
    public void singletonExperts(
            Tensor x,
            Tensor topkIds,
            @Nullable Tensor weights,
            SingletonExperts experts,
            Tensor y) {
        workers.checkOpen();
        SingletonArguments.singletonExperts(x, topkIds, weights, experts, y);
        computable("singletonExperts", "x", x);
        host("topkIds", topkIds);
        host("weights", weights);
        computable("singletonExperts", "up", experts.up());
        computable("singletonExperts", "down", experts.down());
        computable("singletonExperts", "y", y);
        workers.exclusively(() -> singletons.sum(x, topkIds, weights, experts, y));
    }

    @Override
    public void constantExperts(
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y) {
        workers.checkOpen();
        ConstantArguments.constantExperts(x, routing, experts, firstId, residual, y);
        computable("constantExperts", "x", x);
        host("topkIds", routing.topkIds());
        host("topkWeights", routing.topkWeights());
        host("mixing", experts.mixing());
        host("vectors", experts.vectors());
        computable("constantExperts", "addend", residual.addend());
        computable("constantExperts", "y", y);
        workers.exclusively(() -> constants.add(x, routing, experts, firstId, residual, y));
    }

    @Override
    public void normaliseRows(Tensor x, double factor, double epsilon, Tensor y) {
        workers.checkOpen();
        SoftArguments.normaliseRows(x, factor, epsilon, y);
        computable("normaliseRows", "x", x);
        computable("normaliseRows", "y", y);
        workers.exclusively(() -> normaliseRows.normalise(x, factor, epsilon, y));
    }

    @Override
    public void softDispatch(Tensor x, Tensor logits, Tensor rows) {
        workers.checkOpen();
        SoftArguments.softDispatch(x, logits, rows);
        computable("softDispatch", "x", x);
        computable("softDispatch", "logits", logits);
        computable("softDispatch", "rows", rows);
        workers.exclusively(() -> softMix.dispatch(x, logits, rows));
    }

    @Override
    public void softCombine(Tensor rows, Tensor logits, Tensor y) {
        workers.checkOpen();
        SoftArguments.softCombine(rows, logits, y);
        computable("softCombine", "rows", rows);
        computable("softCombine", "logits", logits);
        computable("softCombine", "y", y);
        workers.exclusively(() -> softMix.combine(rows, logits, y));
    }

    /** Waits for the running operation, then ends the threads. */
    @Override
    public void close() {
        workers.close();
    }

    private void host(String name, @Nullable Tensor tensor) {
        if (tensor != null) {
            Check.host(name, tensor);
            workers.checkViewable(name, tensor.data());
        }
    }

    private void weight(String operation, String name, Tensor weight) {
        Check.unscaled(operation, name, weight, NAME);
        if (!(weight.layout() instanceof Panels)) {
            Check.rowMajor(name, weight);
        }
        computable(operation, name, weight);
    }

    private void computable(String operation, String name, @Nullable Tensor tensor) {
        if (tensor != null && tensor.dtype() == DType.F64) {
            throw new UnsupportedOperationException(
                    operation
                            + ": "
                            + name
                            + " of type F64 is not supported by the "
                            + workers.name()
                            + " backend; use F32, F16 or BF16, or the reference backend");
        }
        host(name, tensor);
    }
}
