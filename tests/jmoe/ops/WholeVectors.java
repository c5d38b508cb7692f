package jmoe.ops;

import jmoe.ops.Activation.Kind;
import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;

/**
 * Products of rows and weights of one 16-bit type whose rows are whole vectors of 16 bytes: the
 * sizes that kernels with bulk copies take, which {@link Cases} hardly has. There are rows for
 * several tiles and for parts of one, columns of several tiles with a rest, results of whole
 * vectors and of others, and more inputs than fit the stages of a ring.
 */
public final class WholeVectors {
    /** Bound of the clamps in gpt-oss. */
    private static final float LIMIT = 7;

    private WholeVectors() {}

    /**
     * Compares {@link Kernels#groupedGemm} with the reference.
     *
     * @param backend under test
     * @param type of x and weight
     */
    public static void groupedGemm(Kernels backend, DType type) {
        groupedGemm(backend, type, DType.F32, 264, 392, 65, 0, 1, 130, 64);
        groupedGemm(backend, type, type, 200, 72, 3, 70);
        groupedGemm(backend, type, type, 37, 8, 2, 1);
    }

    private static void groupedGemm(
            Kernels backend, DType type, DType yType, int outputs, int inputs, int... counts) {
        String name = "%s rows, %d inputs, y %s".formatted(type, inputs, yType);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            Tensor offsets = Cases.offsets(arena, counts);
            int rows = Cases.rows(offsets);
            // More than are routed, which must stay as they are.
            Tensor x = Cases.normal(arena, type, 1, rows + 70, inputs);
            Tensor weight = Cases.normal(arena, type, 2, counts.length, outputs, inputs);
            Tensor bias = Cases.normal(arena, DType.F32, 3, counts.length, outputs);
            Tensor want = Tensor.allocate(arena, DType.F64, x.dim(0), outputs);
            reference.groupedGemm(x, weight, bias, offsets, want);
            Poisoned y = Poisoned.allocate(arena, yType, x.dim(0), outputs);
            backend.groupedGemm(x, weight, bias, offsets, y.tensor());
            Tolerance.assertClose("groupedGemm", name, y.tensor(), want.slice(0, rows), inputs + 1);
            y.assertUntouchedFrom("groupedGemm", name, rows);
        }
    }

    /**
     * Compares {@link Kernels#gateUpSwiglu} with the reference.
     *
     * @param backend under test
     * @param type of x and weight
     */
    public static void gateUpSwiglu(Kernels backend, DType type) {
        gateUpSwiglu(
                backend,
                new Case(90, 3, 2, 392, 136, Pattern.SKEWED),
                Activation.clampedSwiglu(LIMIT),
                type,
                type);
        gateUpSwiglu(
                backend,
                new Case(40, 4, 2, 72, 37, Pattern.SOME_NONE),
                Activation.SWIGLU,
                type,
                DType.F32);
        gateUpSwiglu(
                backend,
                new Case(130, 3, 1, 64, 24, Pattern.ALL_TO_ONE),
                Activation.of(Kind.SILU),
                type,
                type);
        for (Case none :
                new Case[] {
                    new Case(7, 3, 2, 72, 24, Pattern.ALL_NONE),
                    new Case(0, 3, 2, 72, 24, Pattern.UNIFORM)
                }) {
            gateUpSwiglu(backend, none, Activation.SWIGLU, type, type);
        }
    }

    private static void gateUpSwiglu(
            Kernels backend, Case c, Activation activation, DType type, DType hiddenType) {
        String name = "%s, %s rows, %s".formatted(c, type, activation);
        try (Arena arena = Arena.ofConfined();
                Kernels reference = new ReferenceKernels()) {
            int e = c.numExperts();
            long columns = (activation.gated() ? 2L : 1L) * c.intermediate();
            ExpertWeights experts =
                    new ExpertWeights(
                            Cases.normal(arena, type, 2, e, columns, c.hidden()),
                            Tensor.allocate(arena, type, e, c.hidden(), c.intermediate()),
                            Cases.normal(arena, DType.F32, 3, e, columns),
                            null,
                            activation);
            Routing routing = Cases.routing(arena, c);
            Tensor offsets = routing.expertOffsets();
            int rows = Cases.rows(offsets);
            Tensor x = Cases.normal(arena, type, 1, c.tokens(), c.hidden());
            Tensor permuted = Tensor.allocate(arena, DType.F32, c.slots(), c.hidden());
            Tensor gateUp = Tensor.allocate(arena, DType.F64, c.slots(), columns);
            Tensor want = Tensor.allocate(arena, DType.F64, c.slots(), c.intermediate());
            Tensor weights = routing.topkWeights();
            reference.permute(x, routing, weights, permuted);
            reference.groupedGemm(
                    permuted, experts.gateUp(), experts.gateUpBias(), offsets, gateUp);
            reference.swiglu(gateUp, activation, offsets, want);
            Poisoned hidden = Poisoned.allocate(arena, hiddenType, c.slots(), c.intermediate());
            long scratch = backend.gateUpSwigluScratch(type, c.slots(), experts);
            backend.gateUpSwiglu(
                    x,
                    routing,
                    weights,
                    experts,
                    Tensor.allocate(arena, DType.F32, scratch),
                    hidden.tensor());
            Tolerance.assertActivation(
                    "gateUpSwiglu",
                    name,
                    hidden.tensor(),
                    want.slice(0, rows),
                    gateUp.slice(0, rows),
                    activation,
                    c.hidden() + 1);
            hidden.assertUntouchedFrom("gateUpSwiglu", name, rows);
        }
    }
}
