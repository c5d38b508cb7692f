package jmoe.cuda;

import jmoe.ops.ExpertWeights;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.List;
import java.util.Locale;
import java.util.function.IntConsumer;

/**
 * The products of one size on matrix units. The operands may have been filled by other kernels of
 * the same device than those that are timed.
 */
final class Products {
    /** Operation of the log: the first product of the experts, with its activation. */
    static final String GATE_UP = "gate_up_swiglu";

    /** Operation of the log: the second product of the experts. */
    static final String DOWN = "grouped_gemm";

    private final CudaKernels kernels;
    private final DeviceTimer timer;
    private final TimingLog log;
    private final TimedShape shape;
    private final int tokens;
    private final @Nullable Tile tile;
    private final TimedOperands operands;
    private final long rows;

    /**
     * Nothing is timed yet.
     *
     * @param kernels what is timed
     * @param timer of these kernels
     * @param log gets the results
     * @param shape sizes
     * @param tokens T
     * @param tile that the kernels were opened with, or null if they choose
     * @param operands on the same device
     */
    Products(
            CudaKernels kernels,
            DeviceTimer timer,
            TimingLog log,
            TimedShape shape,
            int tokens,
            @Nullable Tile tile,
            TimedOperands operands) {
        this.kernels = kernels;
        this.timer = timer;
        this.log = log;
        this.shape = shape;
        this.tokens = tokens;
        this.tile = tile;
        this.operands = operands;
        rows = (long) tokens * shape.topK();
    }

    /** The kernel of operation and types as the log has it. */
    static String typed(String kernel, DType x, DType weight) {
        return (kernel + "_" + x + "_" + weight).toLowerCase(Locale.ROOT);
    }

    private void time(String kernel, int sets, long bytes, double flops, IntConsumer product) {
        operands.synchronise();
        log.time(timer, new TimedWork(kernel, shape, tokens, tile, sets, bytes, flops), product);
    }

    /** At few tokens, so many sets that every expert of every layer has its turn. */
    private int sets(long rowBytes, int layers) {
        int sets = operands.sets(rowBytes);
        return tokens == 1 ? Math.max(sets, layers * TimedOperands.turn(shape)) : sets;
    }

    /** The next layer when all experts of one had their turn. */
    private ExpertWeights of(List<ExpertWeights> weights, int set) {
        return weights.get(set / TimedOperands.turn(shape) % weights.size());
    }

    private long weightBytes(List<Routing> routings, Tensor bank) {
        return Math.round(operands.experts(routings) / shape.numExperts() * bank.numBytes());
    }

    /** {@code gateUpSwiglu} on one layer or several of them in turn. */
    void gateUp(List<ExpertWeights> weights) {
        DType type = weights.getFirst().gateUp().dtype();
        long x = type.numBytes((long) tokens * shape.hidden());
        long rowBytes = x + type.numBytes(rows * shape.intermediate()) + 4 * rows;
        int sets = sets(rowBytes, weights.size());
        List<Routing> routings = operands.routings(sets, shape, tokens);
        List<Tensor> in = operands.random(sets, type, tokens, shape.hidden());
        List<Tensor> out = operands.random(sets, type, rows, shape.intermediate());
        Tensor scratch = operands.random(1, DType.F32, 1).getFirst();
        time(
                typed(GATE_UP, type, type),
                sets,
                rowBytes + weightBytes(routings, weights.getFirst().gateUp()),
                4.0 * rows * shape.intermediate() * shape.hidden(),
                set ->
                        kernels.gateUpSwiglu(
                                in.get(set),
                                routings.get(set),
                                null,
                                of(weights, set),
                                scratch,
                                out.get(set)));
    }

    /** {@code groupedGemm} of the second half of the experts. */
    void down(List<ExpertWeights> weights) {
        DType type = weights.getFirst().down().dtype();
        long rowBytes = type.numBytes(rows * (shape.intermediate() + shape.hidden()));
        int sets = sets(rowBytes, weights.size());
        List<Routing> routings = operands.routings(sets, shape, tokens);
        List<Tensor> in = operands.random(sets, type, rows, shape.intermediate());
        List<Tensor> out = operands.random(sets, type, rows, shape.hidden());
        time(
                typed(DOWN, type, type),
                sets,
                rowBytes + weightBytes(routings, weights.getFirst().down()),
                2.0 * rows * shape.intermediate() * shape.hidden(),
                set ->
                        kernels.groupedGemm(
                                in.get(set),
                                of(weights, set).down(),
                                null,
                                routings.get(set).expertOffsets(),
                                out.get(set)));
    }

    /** A product of one group with all tokens. */
    void single(String kernel, DType x, DType weight, DType y, int outputs) {
        long bytes =
                x.numBytes((long) tokens * shape.hidden())
                        + weight.numBytes((long) outputs * shape.hidden())
                        + y.numBytes((long) tokens * outputs);
        int sets = operands.sets(bytes);
        List<Tensor> in = operands.random(sets, x, tokens, shape.hidden());
        List<Tensor> weights = operands.random(sets, weight, 1, outputs, shape.hidden());
        List<Tensor> out = operands.random(sets, y, tokens, outputs);
        Tensor offsets = operands.offsets(tokens);
        time(
                typed(kernel, x, weight),
                sets,
                bytes,
                2.0 * tokens * outputs * shape.hidden(),
                set ->
                        kernels.groupedGemm(
                                in.get(set), weights.get(set), null, offsets, out.get(set)));
    }
}
