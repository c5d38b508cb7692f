package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * All numbers of a MoE layer.
 *
 * @param routers one per token type
 * @param experts the routed experts, one bank per token type; where experts differ in size, one per
 *     {@link SizeClass}, in their order, those of the first token type first
 * @param shared the expert of every token, or null
 * @param sharedGate F32 [1, 1, H]: sigmoid(x g) multiplies the shared expert's output; or null
 * @param latentIn F32, F16 or BF16 [1, L, H]: routed experts see x latentIn^T; or null
 * @param latentOut same type [1, H, L]: brings the routed experts' sum back to H; null together
 *     with latentIn
 * @param outputBias F32 [1, H]: added to the output once per token, or null
 * @param constants constant experts, one bank per token type; empty if there are none
 */
public record MoeWeights(
        List<RouterWeights> routers,
        List<ExpertWeights> experts,
        @Nullable ExpertWeights shared,
        @Nullable Tensor sharedGate,
        @Nullable Tensor latentIn,
        @Nullable Tensor latentOut,
        @Nullable Tensor outputBias,
        List<ConstantExperts> constants) {
    /** Copies the lists. */
    public MoeWeights {
        routers = List.copyOf(routers);
        experts = List.copyOf(experts);
        constants = List.copyOf(constants);
    }

    /**
     * Weights without constant experts.
     *
     * @param routers as above
     * @param experts as above
     * @param shared as above
     * @param sharedGate as above
     * @param latentIn as above
     * @param latentOut as above
     * @param outputBias as above
     */
    public MoeWeights(
            List<RouterWeights> routers,
            List<ExpertWeights> experts,
            @Nullable ExpertWeights shared,
            @Nullable Tensor sharedGate,
            @Nullable Tensor latentIn,
            @Nullable Tensor latentOut,
            @Nullable Tensor outputBias) {
        this(routers, experts, shared, sharedGate, latentIn, latentOut, outputBias, List.of());
    }

    /**
     * Gives embeddings of experts the length 1, where a router's rule has an {@link
     * InputTransform.Cosine}: to be done once, before {@link #prepare}.
     *
     * @param config with the rules
     * @param kernels the backend; it must not have prepared routers yet
     * @param arena owner of the new weights
     * @return this if no rule has a cosine; otherwise weights that share what stays as it is
     */
    public MoeWeights normalised(MoeConfig config, Kernels kernels, Arena arena) {
        List<RouterWeights> unit = new ArrayList<>();
        for (int type = 0; type < routers.size(); type++) {
            RouterConfig rule = config.routers().get(type);
            unit.add(routers.get(type).normalised(rule, kernels, arena));
        }
        return unit.equals(routers)
                ? this
                : new MoeWeights(
                        unit, experts, shared, sharedGate, latentIn, latentOut, outputBias);
    }

    /**
     * Brings all weights to where a backend computes, in the form that it computes with fastest.
     *
     * @param kernels the backend
     * @param arena owner of the memory of new forms
     * @return this, or weights that do not need these any more
     */
    public MoeWeights prepare(Kernels kernels, Arena arena) {
        List<ExpertWeights> banks = new ArrayList<>();
        for (ExpertWeights bank : experts) {
            banks.add(kernels.prepare(bank, arena));
        }
        if (banks.equals(experts) && (banks.isEmpty() || !needsCopies(banks.getFirst()))) {
            return this;
        }
        List<RouterWeights> newRouters = new ArrayList<>();
        for (RouterWeights router : routers) {
            newRouters.add(router.prepare(kernels, arena));
        }
        return new MoeWeights(
                newRouters,
                banks,
                shared == null ? null : kernels.prepare(shared, arena),
                prepare(sharedGate, kernels, arena),
                prepare(latentIn, kernels, arena),
                prepare(latentOut, kernels, arena),
                copy(outputBias, kernels, arena),
                constants.stream().map(bank -> bank.copy(kernels, arena)).toList());
    }

    /** Whether experts are on a device and anything else is not. */
    private boolean needsCopies(ExpertWeights bank) {
        if (!bank.gateUp().isDevice()) {
            return false;
        }
        boolean host = shared != null && !shared.gateUp().isDevice();
        for (RouterWeights router : routers) {
            host |= isHost(router.weight());
            host |= isHost(router.bias()) || isHost(router.selectionBias());
            host |= isHost(router.expertScale()) || isHost(router.noiseWeight());
            host |= isHost(router.projection()) || isHost(router.hashTable());
        }
        for (ConstantExperts ofType : constants) {
            host |= isHost(ofType.mixing()) || isHost(ofType.vectors());
        }
        return host
                || isHost(sharedGate)
                || isHost(latentIn)
                || isHost(latentOut)
                || isHost(outputBias);
    }

    private static boolean isHost(@Nullable Tensor tensor) {
        return tensor != null && !tensor.isDevice();
    }

    static @Nullable Tensor prepare(@Nullable Tensor weight, Kernels kernels, Arena arena) {
        return weight == null ? null : kernels.prepare(weight, arena);
    }

    /** What is added, not multiplied by, has no form of its own. */
    static @Nullable Tensor copy(@Nullable Tensor tensor, Kernels kernels, Arena arena) {
        if (tensor == null) {
            return null;
        }
        Tensor copy = kernels.allocate(arena, tensor.dtype(), tensor.shape());
        kernels.copy(tensor, copy);
        return copy;
    }

    /**
     * Compares the weights with a configuration.
     *
     * @param config what they are for
     * @throws IllegalArgumentException if something is missing, superfluous or of another size
     */
    public void requireMatch(MoeConfig config) {
        int types = config.numTokenTypes();
        expect("routers", routers.size(), types);
        long hidden = config.hidden();
        for (int type = 0; type < types; type++) {
            RouterConfig router = config.routers().get(type);
            RouterWeights routerWeights = routers.get(type);
            Tensor projection = routerWeights.projection();
            long inputs = projection == null ? hidden : projection.dim(1);
            require("router", routerWeights.weight(), 1, router.numLogits(), inputs);
            if (projection != null) {
                require("projection", projection, 1, inputs, hidden);
            }
            routerWeights.requireNoiseFor(router);
            routerWeights.requireCosineFor(router);
            routerWeights.requireTableOf(router);
            Tensor bias = routerWeights.selectionBias();
            if (bias != null) {
                require("selectionBias", bias, router.numExperts());
            }
            Tensor scale = routerWeights.expertScale();
            if (scale != null) {
                require("expertScale", scale, router.numExperts());
            }
        }
        requireExperts(config);
        expect(
                "shared intermediate",
                shared == null ? 0 : shared.intermediate(),
                config.sharedIntermediate());
        if (shared != null) {
            expect("shared experts", shared.numExperts(), 1);
            expect("shared hidden", shared.hidden(), hidden);
        }
        expect("sharedGate", sharedGate == null ? 0 : 1, config.sharedGated() ? 1 : 0);
        if (sharedGate != null) {
            require("sharedGate", sharedGate, 1, 1, hidden);
        }
        expect("latentOut", latentOut == null ? 0 : 1, latentIn == null ? 0 : 1);
        if (latentIn != null && latentOut != null) {
            require("latentIn", latentIn, 1, config.expertHidden(), hidden);
            require("latentOut", latentOut, 1, hidden, config.expertHidden());
        } else {
            expect("expertHidden without latent projections", config.expertHidden(), hidden);
        }
        if (outputBias != null) {
            require("outputBias", outputBias, 1, hidden);
        }
        int numConstants = config.numConstantExperts();
        expect("constants", constants.size(), numConstants == 0 ? 0 : types);
        for (ConstantExperts ofType : constants) {
            expect("numConstantExperts", ofType.numConstants(), numConstants);
            expect("constants hidden", ofType.hidden(), config.expertHidden());
        }
    }

    private void requireExperts(MoeConfig config) {
        int banks = 0;
        for (int type = 0; type < config.numTokenTypes(); type++) {
            banks += config.sizeClasses(type).size();
        }
        expect("experts", experts.size(), banks);
        for (int type = 0; type < config.numTokenTypes(); type++) {
            List<ExpertWeights> ofType = experts(config, type);
            for (int i = 0; i < ofType.size(); i++) {
                ExpertWeights bank = ofType.get(i);
                SizeClass size = config.sizeClasses(type).get(i);
                expect("numExperts", bank.numExperts(), size.numExperts());
                expect("expertHidden", bank.hidden(), config.expertHidden());
                expect("intermediate", bank.intermediate(), size.intermediate());
                if (!bank.activation().equals(config.activation())) {
                    throw new IllegalArgumentException(
                            "activation: expected "
                                    + config.activation()
                                    + ", got "
                                    + bank.activation());
                }
            }
        }
    }

    /**
     * The routed experts of a token type.
     *
     * @param config what the weights are for
     * @param type of tokens
     * @return a bank for each of the {@linkplain MoeConfig#sizeClasses(int) sizes}
     */
    public List<ExpertWeights> experts(MoeConfig config, int type) {
        int first = 0;
        for (int before = 0; before < type; before++) {
            first += config.sizeClasses(before).size();
        }
        return experts.subList(first, first + config.sizeClasses(type).size());
    }

    private static void expect(String name, long got, long want) {
        if (got != want) {
            throw new IllegalArgumentException(
                    name + ": expected " + want + " as in the configuration, got " + got);
        }
    }

    private static void require(String name, Tensor tensor, long... shape) {
        if (!Arrays.equals(tensor.shape(), shape)) {
            throw Check.mismatch(name, Arrays.toString(shape), tensor);
        }
    }
}
