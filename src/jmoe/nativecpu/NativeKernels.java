package jmoe.nativecpu;

import jmoe.ops.Activation;
import jmoe.ops.Arguments;
import jmoe.ops.ConstantExperts;
import jmoe.ops.ExpertWeights;
import jmoe.ops.InputTransform;
import jmoe.ops.Kernels;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.ops.ShapeInputs;
import jmoe.ops.SingletonExperts;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.threads.Workers;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.function.LongSupplier;

/**
 * The products with AMX, AVX-512 or AVX2 in C, on several threads; what is not a product is done by
 * other kernels. Arguments are host tensors of F32, F16 or BF16, weights also scaled I8. Several
 * threads share memory of a confined arena only where native access is enabled, as it must be for
 * this backend.
 *
 * <p>AVX2 and AVX-512 multiply in F32, one rounding for each term. AMX multiplies BF16 by BF16 in
 * its own order, 32 inputs at a time, and takes subnormal numbers for zeros; where rows or weights
 * have another type, or rows have slot weights, AVX-512 computes. With I8 weights every row of x is
 * rounded to codes as well, as {@link Kernels#groupedGemm} allows, and all tiers give the same
 * bits.
 */
public final class NativeKernels implements Kernels {
    /** Sums of more products of codes than that could exceed I32. */
    private static final int MAX_CODES = 65_536;

    private final Workers workers;
    private final Kernels rest;
    private final NativeLibrary library;
    private final GroupedGemm groupedGemm;

    /**
     * Takes over threads and kernels.
     *
     * @param workers the threads that compute
     * @param rest computes what is not a product, on the same threads, which it closes; closed by
     *     {@link #close}, or if this fails
     * @param library from {@link NativeProbe}
     */
    public NativeKernels(Workers workers, Kernels rest, NativeLibrary library) {
        this.workers = workers;
        this.rest = rest;
        this.library = library;
        try {
            groupedGemm = new GroupedGemm(workers, library);
        } catch (Throwable e) {
            rest.close();
            throw e;
        }
    }

    @Override
    public void jitter(Tensor x, InputTransform.Jitter jitter, @Nullable Tensor step, Tensor y) {
        rest.jitter(x, jitter, step, y);
    }

    @Override
    public void shapeLogits(Tensor logits, RouterConfig config, ShapeInputs inputs) {
        rest.shapeLogits(logits, config, inputs);
    }

    @Override
    public void route(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        rest.route(logits, config, inputs, routing);
    }

    @Override
    public void sortByExpert(Routing routing) {
        rest.sortByExpert(routing);
    }

    @Override
    public void routeSort(Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        rest.routeSort(logits, config, inputs, routing);
    }

    @Override
    public void permute(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows) {
        rest.permute(x, routing, weights, rows);
    }

    @Override
    public Tensor prepare(Tensor weight, Arena arena) {
        return prepare("weight", weight, 1, arena);
    }

    @Override
    public ExpertWeights prepare(ExpertWeights experts, Arena arena) {
        int parts = GroupedGemm.parts(experts.activation());
        Tensor gateUp = prepare("gateUp", experts.gateUp(), parts, arena);
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
        if (weight.layout() != null || weight.dtype() == DType.F64 || weight.isDevice()) {
            return weight;
        }
        weight("prepare", name, weight);
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
        parts(experts);
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
        rest.swiglu(gateUp, activation, expertOffsets, hidden);
    }

    @Override
    public void unpermute(
            Tensor rows, Routing routing, @Nullable Tensor weights, Residual residual, Tensor y) {
        rest.unpermute(rows, routing, weights, residual, y);
    }

    @Override
    public void singletonExperts(
            Tensor x,
            Tensor topkIds,
            @Nullable Tensor weights,
            SingletonExperts experts,
            Tensor y) {
        rest.singletonExperts(x, topkIds, weights, experts, y);
    }

    @Override
    public void constantExperts(
            Tensor x,
            Routing routing,
            ConstantExperts experts,
            int firstId,
            Residual residual,
            Tensor y) {
        rest.constantExperts(x, routing, experts, firstId, residual, y);
    }

    @Override
    public void normaliseRows(Tensor x, double factor, double epsilon, Tensor y) {
        rest.normaliseRows(x, factor, epsilon, y);
    }

    @Override
    public void softDispatch(Tensor x, Tensor logits, Tensor rows) {
        rest.softDispatch(x, logits, rows);
    }

    @Override
    public void softCombine(Tensor rows, Tensor logits, Tensor y) {
        rest.softCombine(rows, logits, y);
    }

    @Override
    public LongSupplier multiplyAdds(DType x, DType weight) {
        MemorySegment product = Arena.ofAuto().allocate(Product.LAYOUT);
        Product.multiplying(x, weight).write(library.tier(), product);
        return () -> library.multiplyAdds(product);
    }

    /** Waits for the running operation, then ends the threads and frees the scratch. */
    @Override
    public void close() {
        rest.close();
        groupedGemm.close();
    }

    private void host(String name, @Nullable Tensor tensor) {
        if (tensor != null) {
            Check.host(name, tensor);
            workers.checkViewable(name, tensor.data());
        }
    }

    private void weight(String operation, String name, Tensor weight) {
        if (!(weight.layout() instanceof Panels)) {
            Check.rowMajor(name, weight);
        }
        computable(operation, name, weight);
        host(name, weight.scale());
        if (weight.dtype() == DType.I8 && weight.dim(2) > MAX_CODES) {
            throw new UnsupportedOperationException(
                    operation
                            + ": "
                            + name
                            + " has rows of "
                            + weight.dim(2)
                            + " codes; the native backend sums at most "
                            + MAX_CODES
                            + ", load the weights as BF16");
        }
    }

    /** Gate and up must lie side by side where the activation is gated, and only there. */
    private static void parts(ExpertWeights experts) {
        int parts = GroupedGemm.parts(experts.activation());
        if (experts.gateUp().layout() instanceof Panels panels && panels.parts() != parts) {
            throw new IllegalArgumentException(
                    "gateUp: expected panels for "
                            + experts.activation().kind()
                            + ", got a weight that was prepared by itself or for another"
                            + " activation; prepare the experts as a whole");
        }
    }

    private void computable(String operation, String name, Tensor tensor) {
        if (tensor.dtype() == DType.F64) {
            throw new UnsupportedOperationException(
                    operation
                            + ": "
                            + name
                            + " of type F64 is not supported by the native backend; use F32, F16 or"
                            + " BF16, or the reference backend");
        }
        host(name, tensor);
    }
}
