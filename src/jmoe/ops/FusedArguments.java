package jmoe.ops;

import jmoe.ops.Kernels.Residual;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The argument checks of the operations of {@link Kernels} that stand for several others, the same
 * for every backend.
 */
public final class FusedArguments {
    private FusedArguments() {}

    /**
     * Checks the arguments of {@link Kernels#routeSort}.
     *
     * @param logits as there
     * @param config as there
     * @param inputs as there
     * @param routing as there
     */
    public static void routeSort(
            Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        put(tensors, "logits", logits);
        routeSort(logits, config, inputs, routing, tensors);
        Map<String, Tensor> outputs = new LinkedHashMap<>();
        putAll(outputs, routing);
        disjoint(outputs, tensors);
    }

    private static void routeSort(
            Tensor logits,
            RouterConfig config,
            RouteInputs inputs,
            Routing routing,
            Map<String, Tensor> tensors) {
        Arguments.route(logits, config, inputs, routing);
        Arguments.sortByExpert(routing);
        if (routing.numExperts() > config.numExperts()) {
            throw Check.mismatch(
                    "tokensPerExpert",
                    "I32 [at most numExperts=" + config.numExperts() + "]",
                    routing.tokensPerExpert());
        }
        tensors.putAll(inputs.named());
    }

    /**
     * Checks the arguments of {@link Kernels#router}.
     *
     * @param x as there
     * @param router as there
     * @param inputsOfTokens as there
     * @param dense as there
     * @param scratch as there
     * @param scratchElements that are needed
     * @param logits as there
     * @param routing as there
     */
    public static void router(
            Tensor x,
            Router router,
            TokenInputs inputsOfTokens,
            Routing dense,
            Tensor scratch,
            long scratchElements,
            Tensor logits,
            Routing routing) {
        RouterWeights weights = router.weights();
        long tokens = routing.tokens();
        requireDense("dense", dense, tokens);
        Check.floatMatrix("x", x, "tokens", tokens, "hidden", weights.hidden());
        Check.accessible("weight", weights.weight());
        Tensor bias = weights.bias();
        if (bias != null) {
            Check.accessible("bias", bias);
        }
        Arguments.hostOffsets(dense.expertOffsets(), tokens);
        Arguments.hostOffsetsFromZero(dense.expertOffsets());
        int numLogits = router.rule().numLogits();
        Check.matrix("logits", logits, DType.F32, "tokens", tokens, "numLogits", numLogits);
        Check.writable("logits", logits);
        Map<String, Tensor> inputs = new LinkedHashMap<>();
        RouteInputs ofRoute = RouteInputs.of(router, inputsOfTokens);
        routeSort(logits, router.rule(), ofRoute, routing, inputs);
        scratch(scratch, scratchElements);
        put(inputs, "x", x);
        put(inputs, "weight", weights.weight());
        put(inputs, "bias", bias);
        put(inputs, "expertOffsets", dense.expertOffsets());
        besides(router, inputs);
        Tensor gate = router.sharedGate();
        Map<String, Tensor> outputs = new LinkedHashMap<>();
        if (gate != null) {
            Check.accessible("sharedGate", gate);
            put(inputs, "sharedGate", gate);
            Check.accessible("sharedWeights", dense.topkWeights());
            Check.writable("sharedWeights", dense.topkWeights());
            put(outputs, "sharedWeights", dense.topkWeights());
        }
        put(outputs, "scratch", scratch);
        put(outputs, "logits", logits);
        putAll(outputs, routing);
        disjoint(outputs, inputs);
    }

    private static void besides(Router router, Map<String, Tensor> inputs) {
        Tensor projection = router.weights().projection();
        if (projection != null) {
            Check.accessible("projection", projection);
        }
        put(inputs, "projection", projection);
        Tensor noiseWeight = router.weights().noiseWeight();
        if (noiseWeight != null) {
            Check.accessible("noiseWeight", noiseWeight);
        }
        Tensor noiseStep = router.noiseStep();
        if (noiseStep != null) {
            Check.accessible("noiseStep", noiseStep);
        }
        put(inputs, "noiseWeight", noiseWeight);
        put(inputs, "noiseStep", noiseStep);
    }

    /**
     * Checks the arguments of {@link Kernels#experts}.
     *
     * @param x as there
     * @param routed as there
     * @param shared as there
     * @param residual as there
     * @param rowType as there
     * @param scratch as there
     * @param scratchElements that are needed
     * @param y as there
     */
    public static void experts(
            Tensor x,
            Bank routed,
            @Nullable Bank shared,
            Residual residual,
            DType rowType,
            Tensor scratch,
            long scratchElements,
            Tensor y) {
        if (!rowType.isFloating()) {
            throw new IllegalArgumentException(
                    "rowType: expected F32, F16, BF16 or F64, got " + rowType);
        }
        Check.floating("x", x, "[tokens, hidden]", 2);
        Map<String, Tensor> inputs = new LinkedHashMap<>();
        put(inputs, "x", x);
        bank(x, routed, inputs);
        long tokens = routed.routing().tokens();
        if (shared != null) {
            requireDense("shared", shared.routing(), tokens);
            Map<String, Tensor> ofShared = new LinkedHashMap<>();
            bank(x, shared, ofShared);
            ofShared.forEach((name, tensor) -> inputs.put("shared " + name, tensor));
        }
        Check.floatMatrix("y", y, "tokens", tokens, "hidden", x.dim(1));
        Arguments.residual(residual, tokens, y);
        Check.writable("y", y);
        scratch(scratch, scratchElements);
        Map<String, Tensor> outputs = new LinkedHashMap<>();
        put(outputs, "y", y);
        put(outputs, "scratch", scratch);
        disjoint(outputs, inputs);
        disjoint("scratch", scratch, "addend", residual.addend());
        disjoint("scratch", scratch, "identity", residual.identity());
    }

    private static void bank(Tensor x, Bank bank, Map<String, Tensor> inputs) {
        Routing routing = bank.routing();
        if (bank.numExperts() > routing.numExperts()) {
            throw new IllegalArgumentException(
                    "experts: expected at most the numExperts="
                            + routing.numExperts()
                            + " of the routing, got "
                            + bank.numExperts());
        }
        Arguments.hostOffsetsFromZero(routing.expertOffsets());
        int first = 0;
        for (ExpertWeights experts : bank.classes()) {
            Routing some = routing.experts(first, experts.numExperts());
            Arguments.bank(x, some, bank.inputWeights(), experts);
            weights(experts, bank.hasOneSize() ? "" : " of expert " + first, inputs);
            first += experts.numExperts();
        }
        Arguments.slots(routing);
        Arguments.weights(bank.outputWeights(), routing);
        put(inputs, "inputWeights", bank.inputWeights());
        put(inputs, "outputWeights", bank.outputWeights());
        put(inputs, "topkIds", routing.topkIds());
        put(inputs, "expertOffsets", routing.expertOffsets());
        put(inputs, "rowToSlot", routing.rowToSlot());
        put(inputs, "slotToRow", routing.slotToRow());
    }

    private static void weights(ExpertWeights experts, String suffix, Map<String, Tensor> inputs) {
        Check.accessible("gateUp" + suffix, experts.gateUp());
        Check.accessible("down" + suffix, experts.down());
        put(inputs, "gateUp" + suffix, experts.gateUp());
        put(inputs, "down" + suffix, experts.down());
        put(inputs, "gateUpBias" + suffix, experts.gateUpBias());
        put(inputs, "downBias" + suffix, experts.downBias());
    }

    private static void requireDense(String name, Routing routing, long tokens) {
        if (routing.tokens() != tokens || routing.topK() != 1 || routing.numExperts() != 1) {
            throw new IllegalArgumentException(
                    name
                            + ": expected a routing of tokens="
                            + tokens
                            + " to one expert, got "
                            + routing.tokens()
                            + " tokens, topK="
                            + routing.topK()
                            + ", numExperts="
                            + routing.numExperts());
        }
    }

    private static void scratch(Tensor scratch, long elements) {
        boolean enough =
                scratch.dtype() == DType.F32
                        && scratch.rank() == 1
                        && scratch.numElements() >= elements;
        if (!enough) {
            throw Check.mismatch("scratch", "F32 [at least elements=" + elements + "]", scratch);
        }
        Check.accessible("scratch", scratch);
        Check.rowMajor("scratch", scratch);
        Check.writable("scratch", scratch);
    }

    private static void putAll(Map<String, Tensor> tensors, Routing routing) {
        tensors.put("topkIds", routing.topkIds());
        tensors.put("topkWeights", routing.topkWeights());
        tensors.put("tokensPerExpert", routing.tokensPerExpert());
        tensors.put("expertOffsets", routing.expertOffsets());
        tensors.put("rowToSlot", routing.rowToSlot());
        tensors.put("slotToRow", routing.slotToRow());
    }

    private static void put(Map<String, Tensor> tensors, String name, @Nullable Tensor tensor) {
        if (tensor != null) {
            tensors.put(name, tensor);
        }
    }

    private static void disjoint(Map<String, Tensor> outputs, Map<String, Tensor> inputs) {
        outputs.forEach((name, output) -> {
            inputs.forEach((inputName, input) -> Check.disjoint(name, output, inputName, input));
            outputs.forEach((otherName, other) -> {
                if (other != output) {
                    Check.disjoint(name, output, otherName, other);
                }
            });
        });
    }

    private static void disjoint(
            String name, Tensor output, String inputName, @Nullable Tensor input) {
        if (input != null) {
            Check.disjoint(name, output, inputName, input);
        }
    }
}
