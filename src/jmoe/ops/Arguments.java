package jmoe.ops;

import jmoe.ops.Kernels.Residual;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.Arrays;
import java.util.Map;

/**
 * The argument checks of {@link Kernels}, the same for every backend; each method mirrors one
 * operation.
 */
public final class Arguments {
    private Arguments() {}

    /**
     * Checks the arguments of {@link Kernels#copy}.
     *
     * @param from as there
     * @param to as there
     */
    public static void copy(Tensor from, Tensor to) {
        if (from.dtype() != to.dtype() || !Arrays.equals(from.shape(), to.shape())) {
            throw new IllegalArgumentException(
                    "to: expected " + from.describe() + " as from, got " + to.describe());
        }
        if (from.scale() != null || to.scale() != null) {
            throw new IllegalArgumentException(
                    (from.scale() != null ? "from" : "to")
                            + ": expected elements without a scale, got "
                            + (from.scale() != null ? from : to)
                            + "; copy it by Tensor.copy");
        }
        Check.accessible("from", from);
        Check.rowMajor("from", from);
        Check.accessible("to", to);
        Check.rowMajor("to", to);
        Check.writable("to", to);
        Check.disjoint("to", to, "from", from);
    }

    /**
     * Checks the argument of {@link Kernels#fill}.
     *
     * @param tensor as there
     */
    public static void fill(Tensor tensor) {
        if (tensor.dtype() != DType.I32) {
            throw Check.mismatch("tensor", "I32 of any shape", tensor);
        }
        Check.accessible("tensor", tensor);
        Check.rowMajor("tensor", tensor);
        Check.writable("tensor", tensor);
    }

    /**
     * Checks the arguments of {@link Kernels#route}.
     *
     * @param logits as there
     * @param config as there
     * @param inputs as there
     * @param routing as there
     */
    public static void route(
            Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        long tokens = routing.tokens();
        if (logits.dtype() != DType.F64) {
            Check.matrix(
                    "logits", logits, DType.F32, "tokens", tokens, "numLogits", config.numLogits());
        } else {
            Check.floatMatrix("logits", logits, "tokens", tokens, "numLogits", config.numLogits());
        }
        RouteChecks.inputs(config, inputs, tokens);
        tokenTypes(inputs.tokenTypes(), config, tokens);
        outputI32("topkIds", routing.topkIds(), tokens, config.topK());
        Check.matrix(
                "topkWeights",
                routing.topkWeights(),
                DType.F32,
                "tokens",
                tokens,
                "topK",
                config.topK());
        Check.writable("topkWeights", routing.topkWeights());
        Map<String, Tensor> read = inputs.named();
        read.put("logits", logits);
        read.forEach((name, tensor) -> {
            disjoint("topkIds", routing.topkIds(), name, tensor);
            disjoint("topkWeights", routing.topkWeights(), name, tensor);
        });
        disjoint("topkWeights", routing.topkWeights(), "topkIds", routing.topkIds());
    }

    private static void tokenTypes(@Nullable Tensor tokenTypes, RouterConfig config, long tokens) {
        if (tokenTypes != null) {
            Check.vector("tokenTypes", tokenTypes, DType.I32, "tokens", tokens);
        } else if (config.tokenType() != RouterConfig.ALL_TOKENS) {
            throw new IllegalArgumentException(
                    "tokenTypes: expected I32 [tokens="
                            + tokens
                            + "] because the router serves tokens of type "
                            + config.tokenType()
                            + " only, got none");
        }
    }

    /**
     * Checks the arguments of {@link Kernels#shapeLogits}.
     *
     * @param logits as there
     * @param config as there
     * @param inputs as there
     */
    public static void shapeLogits(Tensor logits, RouterConfig config, ShapeInputs inputs) {
        Check.floating("logits", logits, "[tokens, numLogits]", 2);
        long tokens = logits.dim(0);
        int numLogits = config.numLogits();
        Check.matrix("logits", logits, DType.F32, "tokens", tokens, "numLogits", numLogits);
        Check.writable("logits", logits);
        tokenTypes(inputs.tokenTypes(), config, tokens);
        Tensor noiseLogits = inputs.noiseLogits();
        if (noiseLogits != null) {
            Check.matrix(
                    "noiseLogits",
                    noiseLogits,
                    DType.F32,
                    "tokens",
                    tokens,
                    "numLogits",
                    numLogits);
        } else if (config.learnsNoise()) {
            throw new IllegalArgumentException(
                    "noiseLogits: expected F32 [tokens="
                            + tokens
                            + ", numLogits="
                            + numLogits
                            + "] because the rule has LearnedNoise, got none; multiply the tokens"
                            + " by the noise weight, or take the transform out of the rule");
        }
        Tensor step = inputs.step();
        if (step != null) {
            Check.vector("step", step, DType.I32, "steps", 1);
        }
        inputs.named().forEach((name, tensor) -> disjoint("logits", logits, name, tensor));
    }

    /**
     * Checks the arguments of {@link Kernels#sortByExpert}.
     *
     * @param routing as there
     */
    public static void sortByExpert(Routing routing) {
        long tokens = routing.tokens();
        long topK = routing.topK();
        long experts = routing.numExperts();
        Check.matrix("topkIds", routing.topkIds(), DType.I32, "tokens", tokens, "topK", topK);
        Check.vector(
                "tokensPerExpert", routing.tokensPerExpert(), DType.I32, "numExperts", experts);
        Check.vector(
                "expertOffsets", routing.expertOffsets(), DType.I32, "numExperts + 1", experts + 1);
        Check.vector("rowToSlot", routing.rowToSlot(), DType.I32, "tokens * topK", tokens * topK);
        outputI32("slotToRow", routing.slotToRow(), tokens, topK);
        Check.writable("tokensPerExpert", routing.tokensPerExpert());
        Check.writable("expertOffsets", routing.expertOffsets());
        Check.writable("rowToSlot", routing.rowToSlot());
        disjoint("tokensPerExpert", routing.tokensPerExpert(), "topkIds", routing.topkIds());
        disjoint("expertOffsets", routing.expertOffsets(), "topkIds", routing.topkIds());
        disjoint(
                "expertOffsets",
                routing.expertOffsets(),
                "tokensPerExpert",
                routing.tokensPerExpert());
        disjoint("rowToSlot", routing.rowToSlot(), "topkIds", routing.topkIds());
        disjoint("rowToSlot", routing.rowToSlot(), "tokensPerExpert", routing.tokensPerExpert());
        disjoint("rowToSlot", routing.rowToSlot(), "expertOffsets", routing.expertOffsets());
        disjoint("slotToRow", routing.slotToRow(), "topkIds", routing.topkIds());
        disjoint("slotToRow", routing.slotToRow(), "tokensPerExpert", routing.tokensPerExpert());
        disjoint("slotToRow", routing.slotToRow(), "expertOffsets", routing.expertOffsets());
        disjoint("slotToRow", routing.slotToRow(), "rowToSlot", routing.rowToSlot());
    }

    /**
     * Checks the arguments of {@link Kernels#permute}.
     *
     * @param x as there
     * @param routing as there
     * @param weights as there
     * @param rows as there
     */
    public static void permute(Tensor x, Routing routing, @Nullable Tensor weights, Tensor rows) {
        Check.floating("x", x, "[tokens, hidden]", 2);
        Check.floatMatrix("x", x, "tokens", routing.tokens(), "hidden", x.dim(1));
        maps(routing);
        Tensor offsets = routing.expertOffsets();
        if (!offsets.isDevice()) {
            int last = offsets.getInt(routing.numExperts());
            hostSlots(routing.rowToSlot(), offsets.getInt(0), last);
        }
        weights(weights, routing);
        Check.floatMatrix(
                "rows",
                rows,
                "tokens * topK",
                routing.tokens() * routing.topK(),
                "hidden",
                x.dim(1));
        Check.writable("rows", rows);
        disjoint("rows", rows, "x", x);
        disjoint("rows", rows, "weights", weights);
        disjoint("rows", rows, "rowToSlot", routing.rowToSlot());
        disjoint("rows", rows, "expertOffsets", routing.expertOffsets());
    }

    /**
     * Checks the arguments of {@link Kernels#groupedGemm}.
     *
     * @param x as there
     * @param weight as there
     * @param bias as there
     * @param expertOffsets as there
     * @param y as there
     */
    public static void groupedGemm(
            Tensor x, Tensor weight, @Nullable Tensor bias, Tensor expertOffsets, Tensor y) {
        Check.weight("weight", weight, "[groups, outputs, inputs]");
        long groups = weight.dim(0);
        Check.floating("x", x, "[rows, inputs]", 2);
        Check.floatMatrix("x", x, "rows", x.dim(0), "inputs", weight.dim(2));
        if (bias != null) {
            Check.matrix("bias", bias, DType.F32, "groups", groups, "outputs", weight.dim(1));
        }
        Check.vector("expertOffsets", expertOffsets, DType.I32, "groups + 1", groups + 1);
        Check.floatMatrix("y", y, "rows", x.dim(0), "outputs", weight.dim(1));
        Check.writable("y", y);
        disjoint("y", y, "x", x);
        disjoint("y", y, "weight", weight);
        disjoint("y", y, "bias", bias);
        disjoint("y", y, "expertOffsets", expertOffsets);
        hostOffsets(expertOffsets, x.dim(0));
    }

    /**
     * Checks the arguments of {@link Kernels#gateUpSwiglu}, except the scratch.
     *
     * @param x as there
     * @param routing as there
     * @param weights as there
     * @param experts as there
     * @param hidden as there
     */
    public static void gateUpSwiglu(
            Tensor x,
            Routing routing,
            @Nullable Tensor weights,
            ExpertWeights experts,
            Tensor hidden) {
        bank(x, routing, weights, experts);
        long slots = routing.tokens() * routing.topK();
        Check.floatMatrix(
                "hidden", hidden, "tokens * topK", slots, "intermediate", experts.intermediate());
        Check.writable("hidden", hidden);
        disjoint("hidden", hidden, "x", x);
        disjoint("hidden", hidden, "weights", weights);
        disjoint("hidden", hidden, "gateUp", experts.gateUp());
        disjoint("hidden", hidden, "gateUpBias", experts.gateUpBias());
        disjoint("hidden", hidden, "rowToSlot", routing.rowToSlot());
        disjoint("hidden", hidden, "expertOffsets", routing.expertOffsets());
    }

    /** The inputs of a bank of experts. */
    static void bank(Tensor x, Routing routing, @Nullable Tensor weights, ExpertWeights experts) {
        Check.floatMatrix("x", x, "tokens", routing.tokens(), "hidden", experts.hidden());
        if (experts.numExperts() > routing.numExperts()) {
            throw new IllegalArgumentException(
                    "experts: expected at most the numExperts="
                            + routing.numExperts()
                            + " of the routing, got "
                            + experts.numExperts());
        }
        maps(routing);
        Tensor offsets = routing.expertOffsets();
        if (!offsets.isDevice()) {
            int last = offsets.getInt(experts.numExperts());
            hostSlots(routing.rowToSlot(), offsets.getInt(0), last);
        }
        weights(weights, routing);
    }

    /**
     * Checks the arguments of {@link Kernels#swiglu}.
     *
     * @param gateUp as there
     * @param activation as there
     * @param expertOffsets as there
     * @param hidden as there
     */
    public static void swiglu(
            Tensor gateUp, Activation activation, Tensor expertOffsets, Tensor hidden) {
        Check.floating("gateUp", gateUp, "[rows, gateUp]", 2);
        Check.floating("hidden", hidden, "[rows, intermediate]", 2);
        long rows = gateUp.dim(0);
        Check.floatMatrix("hidden", hidden, "rows", rows, "intermediate", hidden.dim(1));
        long columns = activation.gated() ? 2 * hidden.dim(1) : hidden.dim(1);
        Check.floatMatrix("gateUp", gateUp, "rows", rows, "gateUp", columns);
        Check.vector(
                "expertOffsets",
                expertOffsets,
                DType.I32,
                "groups + 1",
                Math.max(1, expertOffsets.numElements()));
        Check.writable("hidden", hidden);
        disjoint("hidden", hidden, "gateUp", gateUp);
        disjoint("hidden", hidden, "expertOffsets", expertOffsets);
        hostOffsets(expertOffsets, rows);
    }

    /**
     * Checks the arguments of {@link Kernels#unpermute}.
     *
     * @param rows as there
     * @param routing as there
     * @param weights as there
     * @param residual as there
     * @param y as there
     */
    public static void unpermute(
            Tensor rows, Routing routing, @Nullable Tensor weights, Residual residual, Tensor y) {
        long tokens = routing.tokens();
        Check.floating("y", y, "[tokens, hidden]", 2);
        long hidden = y.dim(1);
        Check.floatMatrix("y", y, "tokens", tokens, "hidden", hidden);
        Check.floatMatrix("rows", rows, "tokens * topK", tokens * routing.topK(), "hidden", hidden);
        maps(routing);
        slots(routing);
        weights(weights, routing);
        residual(residual, tokens, y);
        Check.writable("y", y);
        disjoint("y", y, "rows", rows);
        disjoint("y", y, "weights", weights);
        disjoint("y", y, "slotToRow", routing.slotToRow());
        disjoint("y", y, "topkIds", routing.topkIds());
    }

    /** What else belongs to the sums in y. */
    static void residual(Residual residual, long tokens, Tensor y) {
        long hidden = y.dim(1);
        Tensor addend = residual.addend();
        if (addend != null) {
            Check.floating("addend", addend, "[tokens or 1, hidden]", 2);
            Check.rowMajor("addend", addend);
            long addendRows = addend.dim(0) == 1 ? 1 : tokens;
            Check.floatMatrix("addend", addend, "tokens", addendRows, "hidden", hidden);
            boolean inPlace =
                    addend.data().address() == y.data().address()
                            && addend.dtype() == y.dtype()
                            && addend.dim(0) == tokens;
            if (!inPlace) {
                disjoint("y", y, "addend", addend);
            }
        }
        Tensor identity = residual.identity();
        if (identity != null) {
            Check.floatMatrix("identity", identity, "tokens", tokens, "hidden", hidden);
            disjoint("y", y, "identity", identity);
        }
    }

    /** The rows of all slots. */
    static void slots(Routing routing) {
        long slots = routing.tokens() * routing.topK();
        hostIndices("slotToRow", routing.slotToRow(), 0, slots, -1, slots);
    }

    private static void maps(Routing routing) {
        long tokens = routing.tokens();
        long topK = routing.topK();
        Check.matrix("topkIds", routing.topkIds(), DType.I32, "tokens", tokens, "topK", topK);
        Check.vector("rowToSlot", routing.rowToSlot(), DType.I32, "tokens * topK", tokens * topK);
        Check.matrix("slotToRow", routing.slotToRow(), DType.I32, "tokens", tokens, "topK", topK);
        hostOffsets(routing.expertOffsets(), tokens * topK);
    }

    private static void hostSlots(Tensor rowToSlot, long from, long to) {
        hostIndices("rowToSlot", rowToSlot, from, to, 0, rowToSlot.numElements());
    }

    /** Maps on a device are not read: that would stop the stream. */
    private static void hostIndices(
            String name, Tensor indices, long from, long to, long lowest, long limit) {
        if (indices.isDevice()) {
            return;
        }
        for (long i = from; i < to; i++) {
            int index = indices.getInt(i);
            if (index < lowest || index >= limit) {
                throw new IllegalArgumentException(
                        name
                                + ": expected "
                                + lowest
                                + " to "
                                + (limit - 1)
                                + ", got "
                                + index
                                + " at "
                                + i
                                + "; run sortByExpert first");
            }
        }
    }

    /** Of what writes every row that is routed. */
    static void hostOffsetsFromZero(Tensor expertOffsets) {
        if (!expertOffsets.isDevice() && expertOffsets.getInt(0) != 0) {
            throw new IllegalArgumentException(
                    "expertOffsets: expected 0 first, got "
                            + expertOffsets.getInt(0)
                            + "; only single products take some of the experts");
        }
    }

    static void weights(@Nullable Tensor weights, Routing routing) {
        if (weights != null) {
            Check.matrix(
                    "weights",
                    weights,
                    DType.F32,
                    "tokens",
                    routing.tokens(),
                    "topK",
                    routing.topK());
        }
    }

    private static void disjoint(
            String name, Tensor output, String inputName, @Nullable Tensor input) {
        if (input != null) {
            Check.disjoint(name, output, inputName, input);
        }
    }

    private static void outputI32(String name, Tensor tensor, long tokens, long topK) {
        Check.matrix(name, tensor, DType.I32, "tokens", tokens, "topK", topK);
        Check.writable(name, tensor);
    }

    /** Offsets on a device are not read: that would stop the stream. */
    static void hostOffsets(Tensor expertOffsets, long maxRows) {
        if (expertOffsets.isDevice()) {
            return;
        }
        int previous = 0;
        for (long e = 0; e < expertOffsets.numElements(); e++) {
            int offset = expertOffsets.getInt(e);
            if (offset < previous || offset > maxRows) {
                throw new IllegalArgumentException(
                        "expertOffsets: expected to rise from at least 0 to at most rows="
                                + maxRows
                                + ", got "
                                + offset
                                + " at "
                                + e
                                + "; run sortByExpert first");
            }
            previous = offset;
        }
    }
}
