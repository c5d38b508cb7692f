package jmoe.ops;

import jmoe.ops.Activation.Kind;
import jmoe.ops.Cases.Case;
import jmoe.ops.Kernels.Residual;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/**
 * What {@link Kernels#experts} is given.
 *
 * @param x tokens
 * @param routed bank
 * @param shared bank, or null
 * @param residual what else is added
 * @param rowType of rows
 */
record ExpertsProblem(
        Tensor x, Bank routed, @Nullable Bank shared, Residual residual, DType rowType) {
    /** Bound of the clamps in gpt-oss. */
    private static final float LIMIT = 7;

    static ExpertsProblem of(Arena arena, Case c, DType type) {
        Routing routing = Cases.routing(arena, c);
        Tensor x = Cases.normal(arena, type, c.seed(), c.tokens(), c.hidden());
        ExpertWeights experts =
                experts(arena, c.numExperts(), c.hidden(), c.intermediate(), type, Kind.SWIGLU);
        Bank routed = new Bank(experts, routing, null, routing.topkWeights());
        return new ExpertsProblem(x, routed, null, Residual.NONE, type);
    }

    private static ExpertWeights experts(
            Arena arena, long experts, long hidden, long width, DType type, Kind kind) {
        boolean clamped = kind == Kind.CLAMPED_SWIGLU;
        Activation activation = clamped ? Activation.clampedSwiglu(LIMIT) : Activation.of(kind);
        long columns = (activation.gated() ? 2 : 1) * width;
        Tensor gateUp = scaled(arena, type, hidden + width, experts, columns, hidden);
        Tensor down = scaled(arena, type, hidden * width + 1, experts, hidden, width);
        return new ExpertWeights(gateUp, down, null, null, activation);
    }

    /** So small that sums are about 1. */
    private static Tensor scaled(Arena arena, DType type, long seed, long... shape) {
        Tensor tensor = Cases.normal(arena, type, seed, shape);
        double scale = 1 / Math.sqrt(shape[2]);
        for (long i = 0; i < tensor.numElements(); i++) {
            tensor.setDouble(i, scale * tensor.getDouble(i));
        }
        return tensor;
    }

    private ExpertsProblem withBanks(Bank newRouted, @Nullable Bank newShared) {
        return new ExpertsProblem(x, newRouted, newShared, residual, rowType);
    }

    ExpertsProblem withBank(@Nullable Bank newShared) {
        return withBanks(routed, newShared);
    }

    ExpertsProblem withX(DType type) {
        Tensor other = Cases.normal(Arena.ofAuto(), type, 7, x.shape());
        return new ExpertsProblem(other, routed, shared, residual, type);
    }

    ExpertsProblem withRows(DType type) {
        return new ExpertsProblem(x, routed, shared, residual, type);
    }

    ExpertsProblem withActivation(Kind kind) {
        ExpertWeights old = routed.experts();
        return withExperts(
                experts(
                        Arena.ofAuto(),
                        old.numExperts(),
                        old.hidden(),
                        old.intermediate(),
                        old.gateUp().dtype(),
                        kind));
    }

    private ExpertsProblem withExperts(ExpertWeights experts) {
        Bank bank =
                new Bank(experts, routed.routing(), routed.inputWeights(), routed.outputWeights());
        return withBanks(bank, shared);
    }

    ExpertsProblem biased() {
        return withExperts(biased(routed.experts(), 3));
    }

    private static ExpertWeights biased(ExpertWeights experts, long seed) {
        Arena arena = Arena.ofAuto();
        Tensor gateUp = experts.gateUp();
        Tensor down = experts.down();
        return new ExpertWeights(
                gateUp,
                down,
                Cases.normal(arena, DType.F32, seed, gateUp.dim(0), gateUp.dim(1)),
                Cases.normal(arena, DType.F32, seed + 1, down.dim(0), down.dim(1)),
                experts.activation());
    }

    ExpertsProblem withInputWeights() {
        Tensor weights = routed.routing().topkWeights();
        return withBanks(new Bank(routed.experts(), routed.routing(), weights, null), shared);
    }

    ExpertsProblem withShared(int width) {
        Arena arena = Arena.ofAuto();
        Routing dense = dense(arena, x.dim(0));
        ExpertWeights old = routed.experts();
        Kind kind = old.activation().kind();
        ExpertWeights experts = experts(arena, 1, old.hidden(), width, old.gateUp().dtype(), kind);
        boolean bias = old.gateUpBias() != null;
        return withBank(new Bank(bias ? biased(experts, 5) : experts, dense, null, null));
    }

    ExpertsProblem withSharedWeights() {
        Routing dense = shared.routing();
        Cases.weights(dense.topkWeights(), 31);
        return withBank(new Bank(shared.experts(), dense, null, dense.topkWeights()));
    }

    ExpertsProblem withAddend(long rows, DType type) {
        Tensor addend = Cases.normal(Arena.ofAuto(), type, 17, rows, x.dim(1));
        Residual next =
                new Residual(
                        addend, residual.identity(), residual.firstIdentity(), residual.factor());
        return new ExpertsProblem(x, routed, shared, next, rowType);
    }

    /** Leaves weights of the first experts. */
    ExpertsProblem withIdentity(int experts, DType type) {
        ExpertWeights old = routed.experts();
        ExpertWeights fewer =
                new ExpertWeights(
                        old.gateUp().slice(0, experts),
                        old.down().slice(0, experts),
                        old.gateUpBias().slice(0, experts),
                        old.downBias().slice(0, experts),
                        old.activation());
        Tensor identity = Cases.normal(Arena.ofAuto(), type, 19, x.shape());
        Residual next = new Residual(residual.addend(), identity, experts, 0.5);
        ExpertsProblem some = withExperts(fewer);
        return new ExpertsProblem(x, some.routed, shared, next, rowType);
    }

    /** The first tokens alone. */
    ExpertsProblem first(Arena arena, long tokens) {
        Routing alone =
                Routing.allocate(
                        arena, tokens, routed.routing().topK(), routed.routing().numExperts());
        alone.topkIds().data().copyFrom(routed.routing().topkIds().slice(0, tokens).data());
        Tensor weights = routed.routing().topkWeights().slice(0, tokens);
        alone.topkWeights().data().copyFrom(weights.data());
        Cases.sort(alone);
        Bank bank = new Bank(routed.experts(), alone, null, alone.topkWeights());
        Bank sharedBank = null;
        if (shared != null) {
            Routing dense = dense(arena, tokens);
            boolean weighted = shared.outputWeights() != null;
            if (weighted) {
                Tensor first = shared.outputWeights().slice(0, tokens);
                dense.topkWeights().data().copyFrom(first.data());
            }
            sharedBank =
                    new Bank(shared.experts(), dense, null, weighted ? dense.topkWeights() : null);
        }
        Tensor addend = residual.addend() == null ? null : residual.addend().slice(0, tokens);
        return new ExpertsProblem(
                x.slice(0, tokens), bank, sharedBank, Residual.of(addend), rowType);
    }

    private static Routing dense(Arena arena, long tokens) {
        Routing dense = Routing.allocate(arena, tokens, 1, 1);
        Cases.sort(dense);
        return dense;
    }

    boolean fusedBy(Kernels kernels) {
        return kernels.fusesExperts(x, routed, shared, rowType);
    }

    /** Terms of the longest sum: both products, and the slots. */
    double terms() {
        ExpertWeights experts = routed.experts();
        long width = experts.intermediate();
        if (shared != null) {
            width = Math.max(width, shared.experts().intermediate());
        }
        return 4.0 * (experts.hidden() + width + routed.routing().topK() + 4);
    }

    /** Of what is stored in the type of rows: hidden, and rows. */
    double[] squares(Kernels reference) {
        double[] squares = new double[(int) x.numElements()];
        add(squares, routed, residual.factor(), reference);
        if (shared != null) {
            add(squares, shared, 1, reference);
        }
        return squares;
    }

    private void add(double[] squares, Bank bank, double factor, Kernels reference) {
        ExpertWeights experts = bank.experts();
        long width = experts.intermediate();
        int hidden = (int) experts.hidden();
        Routing routing = bank.routing();
        try (Arena arena = Arena.ofConfined()) {
            Tensor inner = Tensor.allocate(arena, DType.F64, bank.slots(), width);
            long elements = reference.gateUpSwigluScratch(x.dtype(), bank.slots(), experts);
            Tensor scratch = Tensor.allocate(arena, DType.F32, elements);
            reference.gateUpSwiglu(x, routing, bank.inputWeights(), experts, scratch, inner);
            for (int slot = 0; slot < bank.slots(); slot++) {
                int row = routing.slotToRow().getInt(slot);
                int expert = routing.topkIds().getInt(slot);
                if (row < 0 || expert >= experts.numExperts()) {
                    continue;
                }
                Tensor weights = bank.outputWeights();
                double weight = factor * (weights == null ? 1 : weights.getDouble(slot));
                int at = slot / routing.topK() * hidden;
                for (int h = 0; h < hidden; h++) {
                    long first = ((long) expert * hidden + h) * width;
                    double sum = bias(experts, expert, h);
                    double terms = 0;
                    for (int i = 0; i < width; i++) {
                        double term =
                                experts.down().getDouble(first + i)
                                        * inner.getDouble(row * width + i);
                        sum += term;
                        terms += term * term;
                    }
                    squares[at + h] += weight * weight * (sum * sum + terms);
                }
            }
        }
    }

    private static double bias(ExpertWeights experts, int expert, int h) {
        Tensor bias = experts.downBias();
        return bias == null ? 0 : bias.row(expert).getDouble(h);
    }

    long scratchElements(Kernels kernels) {
        return kernels.expertsScratch(rowType, routed, shared);
    }

    void run(Kernels kernels, Tensor y) {
        DType type = rowType.isFloating() ? rowType : DType.F32;
        long elements = withRows(type).scratchElements(kernels);
        try (Arena arena = Arena.ofConfined()) {
            run(kernels, Poisoned.allocate(arena, DType.F32, elements).tensor(), y);
        }
    }

    void run(Kernels kernels, Tensor scratch, Tensor y) {
        kernels.experts(x, routed, shared, residual, rowType, scratch, y);
    }

    @Override
    public String toString() {
        return "x %s, %s, shared %s, rows %s"
                .formatted(x.describe(), routed.experts(), shared, rowType);
    }
}
