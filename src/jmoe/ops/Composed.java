package jmoe.ops;

import jmoe.ops.Kernels.Residual;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.Objects;

/**
 * {@link Kernels#router} and {@link Kernels#experts} as the six operations, one after the other.
 */
final class Composed {
    /** The gate of a shared expert is a router with one expert: its weight is sigmoid(x g). */
    private static final RouterConfig SHARED_GATE =
            new RouterConfig(
                    1,
                    1,
                    RouterConfig.Score.SIGMOID,
                    new Selection.TopK(),
                    new RouterConfig.Normalisation.None(),
                    1,
                    false,
                    null,
                    RouterConfig.ALL_TOKENS);

    /** Where pieces of scratch begin: at whole vectors, and lines of caches. */
    private static final long ALIGNED_ELEMENTS = 16;

    private Composed() {}

    static void router(
            Kernels kernels,
            Tensor x,
            Router router,
            TokenInputs tokens,
            Routing dense,
            Tensor scratch,
            Tensor logits,
            Routing routing) {
        long count = routing.tokens();
        long needed = kernels.routerScratch(x.dtype(), router, count);
        FusedArguments.router(x, router, tokens, dense, scratch, needed, logits, routing);
        RouterWeights weights = router.weights();
        Tensor offsets = dense.expertOffsets();
        Tensor gate = router.sharedGate();
        if (gate != null) {
            Tensor gateLogits = scratch.slice(0, count).reshape(count, 1);
            kernels.groupedGemm(x, gate, null, offsets, gateLogits);
            kernels.route(gateLogits, SHARED_GATE, RouteInputs.NONE, dense);
        }
        // A hash has no logits.
        if (logits.numElements() > 0) {
            Pieces pieces = new Pieces(scratch, aligned(DType.F32, logitsElements(router, count)));
            Tensor input = RouterInput.of(kernels, x, router, offsets, pieces);
            kernels.groupedGemm(input, weights.weight(), weights.bias(), offsets, logits);
            shape(kernels, input, router, tokens.tokenTypes(), offsets, scratch, logits);
        }
        kernels.routeSort(logits, router.rule(), RouteInputs.of(router, tokens), routing);
    }

    private static void shape(
            Kernels kernels,
            Tensor input,
            Router router,
            @Nullable Tensor tokenTypes,
            Tensor offsets,
            Tensor scratch,
            Tensor logits) {
        RouterConfig rule = router.rule();
        if (rule.logitTransforms().isEmpty()) {
            return;
        }
        Tensor noiseLogits = null;
        if (rule.learnsNoise()) {
            noiseLogits = scratch.slice(0, logits.numElements()).reshape(logits.shape());
            Tensor noiseWeight = Objects.requireNonNull(router.weights().noiseWeight());
            kernels.groupedGemm(input, noiseWeight, null, offsets, noiseLogits);
        }
        ShapeInputs inputs = new ShapeInputs(tokenTypes, noiseLogits, router.noiseStep());
        kernels.shapeLogits(logits, rule, inputs);
    }

    static long routerScratch(Router router, long tokens) {
        long ofLogits = logitsElements(router, tokens);
        return router.rule().inputTransforms().isEmpty()
                ? ofLogits
                : aligned(DType.F32, ofLogits) + RouterInput.scratchElements(router, tokens);
    }

    /** Room for the logits of the gate or, when they are used up, those of the noise. */
    private static long logitsElements(Router router, long tokens) {
        long ofNoise = router.rule().learnsNoise() ? tokens * router.rule().numLogits() : 0;
        return Math.max(router.sharedGate() == null ? 0 : tokens, ofNoise);
    }

    static void experts(
            Kernels kernels,
            Tensor x,
            Bank routed,
            @Nullable Bank shared,
            Residual residual,
            DType rowType,
            Tensor scratch,
            Tensor y) {
        long needed = kernels.expertsScratch(rowType, routed, shared);
        FusedArguments.experts(x, routed, shared, residual, rowType, scratch, needed, y);
        Pieces pieces = new Pieces(scratch, 0);
        Residual rest = residual;
        if (shared != null) {
            Tensor base = shared(kernels, x, shared, residual.addend(), rowType, pieces);
            rest =
                    new Residual(
                            base, residual.identity(), residual.firstIdentity(), residual.factor());
        }
        Tensor rows = feedForward(kernels, x, routed, rowType, pieces);
        kernels.unpermute(rows, routed.routing(), routed.outputWeights(), rest, y);
    }

    /** What the routed experts are added to. */
    private static Tensor shared(
            Kernels kernels,
            Tensor x,
            Bank shared,
            @Nullable Tensor addend,
            DType rowType,
            Pieces pieces) {
        Tensor rows = feedForward(kernels, x, shared, rowType, pieces);
        if (shared.outputWeights() == null && addend == null) {
            return rows;
        }
        Tensor sum = pieces.next(DType.F32, rows.dim(0), rows.dim(1));
        Residual residual = Residual.of(addend);
        kernels.unpermute(rows, shared.routing(), shared.outputWeights(), residual, sum);
        return sum;
    }

    /** Output of each row's expert; what it needs besides is free again. */
    private static Tensor feedForward(
            Kernels kernels, Tensor x, Bank bank, DType rowType, Pieces pieces) {
        long slots = bank.slots();
        Tensor rows = pieces.next(rowType, slots, bank.hidden());
        long mark = pieces.used;
        int first = 0;
        for (ExpertWeights experts : bank.classes()) {
            // Rows of identity experts come last and have no weights: the offsets end before them.
            Routing routing = bank.routing().experts(first, experts.numExperts());
            Tensor hidden = pieces.next(rowType, slots, experts.intermediate());
            long elements = kernels.gateUpSwigluScratch(x.dtype(), slots, experts);
            Tensor rest = pieces.next(DType.F32, elements);
            kernels.gateUpSwiglu(x, routing, bank.inputWeights(), experts, rest, hidden);
            Tensor offsets = routing.expertOffsets();
            kernels.groupedGemm(hidden, experts.down(), experts.downBias(), offsets, rows);
            first += experts.numExperts();
            pieces.used = mark;
        }
        return rows;
    }

    static long expertsScratch(Kernels kernels, DType rowType, Bank routed, @Nullable Bank shared) {
        long rows = rowElements(rowType, routed);
        long besides = besidesElements(kernels, rowType, routed);
        if (shared == null) {
            return rows + besides;
        }
        long sharedRows = rowElements(rowType, shared);
        long sum = aligned(DType.F32, shared.slots() * shared.hidden());
        long first = besidesElements(kernels, rowType, shared);
        return sharedRows + Math.max(first, sum + rows + besides);
    }

    private static long rowElements(DType rowType, Bank bank) {
        return aligned(rowType, bank.slots() * bank.hidden());
    }

    /** What a bank needs besides its rows: one class after the other has the same memory. */
    private static long besidesElements(Kernels kernels, DType rowType, Bank bank) {
        long most = 0;
        for (ExpertWeights experts : bank.classes()) {
            most = Math.max(most, besidesElements(kernels, rowType, bank.slots(), experts));
        }
        return most;
    }

    private static long besidesElements(
            Kernels kernels, DType rowType, long slots, ExpertWeights experts) {
        long hidden = aligned(rowType, slots * experts.intermediate());
        // Rows of F32 may come from any type of x, and another one may need more.
        long scratch = kernels.gateUpSwigluScratch(rowType, slots, experts);
        if (rowType == DType.F32) {
            for (DType x : new DType[] {DType.F16, DType.BF16}) {
                long ofType = kernels.gateUpSwigluScratch(x, slots, experts);
                scratch = Math.max(scratch, ofType);
            }
        }
        return hidden + aligned(DType.F32, scratch);
    }

    /** F32 elements of a piece. */
    static long aligned(DType dtype, long elements) {
        long words = Math.ceilDiv(dtype.numBytes(elements), (long) Float.BYTES);
        return Math.ceilDiv(words, ALIGNED_ELEMENTS) * ALIGNED_ELEMENTS;
    }

    /** Parts of a scratch tensor, one behind the other. */
    static final class Pieces {
        private final Tensor scratch;

        /** F32 elements. */
        private long used;

        private Pieces(Tensor scratch, long used) {
            this.scratch = scratch;
            this.used = used;
        }

        Tensor next(DType dtype, long... shape) {
            long elements = 1;
            for (long dim : shape) {
                elements *= dim;
            }
            long words = aligned(dtype, elements);
            Tensor piece = scratch.slice(used, words);
            used += words;
            return piece.isDevice()
                    ? Tensor.device(piece.data().address(), dtype, shape)
                    : Tensor.of(piece.data(), dtype, shape);
        }
    }
}
