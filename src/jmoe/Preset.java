package jmoe;

import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Selection;
import jmoe.ops.SizeClass;
import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The shape and the rules of a published model's MoE layer, without its numbers; {@link Presets}
 * has them all.
 *
 * @param name in lower case, for example {@code mixtral-8x7b}
 * @param aliases other names of the same layer: models that differ in their numbers only
 * @param config what the layer computes
 * @param biases which biases the layer has
 * @param published what else its authors say
 */
public record Preset(
        String name,
        List<String> aliases,
        MoeConfig config,
        Set<Bias> biases,
        Published published) {
    /** Where a layer adds numbers that are not products. */
    public enum Bias {
        /** To the logits. */
        ROUTER,
        /** To the scores, for the selection only. */
        SELECTION,
        /** To both products of every expert. */
        EXPERTS,
        /** To the output of the layer. */
        OUTPUT
    }

    /** What training added to the loss of the model, or did besides, to keep routers balanced. */
    public enum Balance {
        /** {@link jmoe.train.RouterLoss.LoadBalance} over the batch. */
        LOAD,
        /** {@link jmoe.train.RouterLoss.SequenceBalance}. */
        SEQUENCE,
        /** {@link jmoe.train.RouterLoss.DeviceBalance}. */
        DEVICE,
        /** {@link jmoe.train.RouterLoss.CommunicationBalance}. */
        COMMUNICATION,
        /** {@link jmoe.train.RouterLoss.ZLoss}. */
        Z,
        /** {@link jmoe.train.RouterOrthogonality}. */
        ORTHOGONALITY,
        /** The step of {@link jmoe.train.SelectionBiasUpdate}, which is no loss. */
        SELECTION_BIAS
    }

    /**
     * What is said about a model beyond the formula of its layer.
     *
     * @param weights type in which the experts were released; F8_E4M3 has an F32 scale for each
     *     block of 128 x 128
     * @param moeLayers MoE layers of the model, of all encoders and decoders
     * @param totalParameters of the whole model as stated, attention and embeddings included; 0 if
     *     not stated
     * @param activeParameters those of one token as stated, which may or may not count embeddings;
     *     0 if not stated
     * @param trainingCapacity capacity factor of training: each expert takes so many times its fair
     *     share; 0 if no token was dropped. The configuration has the capacity of evaluation
     * @param balance coefficients of training; empty if none are stated
     * @param source who says so
     */
    public record Published(
            DType weights,
            int moeLayers,
            double totalParameters,
            double activeParameters,
            double trainingCapacity,
            Map<Balance, Double> balance,
            String source) {
        /** Nothing is known. */
        public static final Published UNKNOWN = new Published(DType.BF16, 0, 0, 0, 0, Map.of(), "");

        /** Copies the map. */
        public Published {
            balance = Collections.unmodifiableMap(new LinkedHashMap<>(balance));
        }

        /** This with one more coefficient. */
        Published with(Balance what, double coefficient) {
            Map<Balance, Double> more = new LinkedHashMap<>(balance);
            more.put(what, coefficient);
            return trained(trainingCapacity, more);
        }

        /** This with the capacity factor of training. */
        Published dropping(double capacityFactor) {
            return trained(capacityFactor, balance);
        }

        private Published trained(double capacityFactor, Map<Balance, Double> coefficients) {
            return new Published(
                    weights,
                    moeLayers,
                    totalParameters,
                    activeParameters,
                    capacityFactor,
                    coefficients,
                    source);
        }
    }

    /** Rows and columns of a matrix that share a scale. */
    private static final int SCALED_BLOCK = 128;

    /** Copies the collections. */
    public Preset {
        aliases = List.copyOf(aliases);
        biases = Set.copyOf(biases);
    }

    /**
     * A layer of one's own.
     *
     * @param name of any kind
     * @param config what the layer computes
     * @param biases which biases the layer has
     */
    public Preset(String name, MoeConfig config, Set<Bias> biases) {
        this(name, List.of(), config, biases, Published.UNKNOWN);
    }

    /**
     * How many experts of the routed ones' width the shared expert is as wide as.
     *
     * @return 0 if there is none
     */
    public int sharedExperts() {
        return config.sharedIntermediate() / config.intermediates().getFirst();
    }

    /**
     * All parameters of the layer, biases included.
     *
     * @return elements
     */
    public long parameters() {
        long elements = dense();
        for (int type = 0; type < config.numTokenTypes(); type++) {
            elements += router(type);
            for (SizeClass size : config.sizeClasses(type)) {
                elements += size.numExperts() * expert(size.intermediate());
            }
        }
        return elements;
    }

    /**
     * The parameters that one token uses: router, shared expert and K of the E routed experts; with
     * several token types, of the first. Of experts that differ in size, K of the mean size.
     *
     * @return elements
     */
    public long activeParameters() {
        long experts = 0;
        for (SizeClass size : config.sizeClasses(0)) {
            experts += size.numExperts() * expert(size.intermediate());
        }
        return dense() + router(0) + config.topK() * experts / Math.max(1, config.numExperts());
    }

    /** What every token uses besides router and routed experts. */
    private long dense() {
        long shared = config.sharedIntermediate() == 0 ? 0 : expert(config.sharedIntermediate());
        return shared
                + (config.sharedGated() ? config.hidden() : 0)
                + (biases.contains(Bias.OUTPUT) ? config.hidden() : 0);
    }

    private long router(int type) {
        RouterConfig router = config.routers().get(type);
        return (long) router.numLogits() * config.hidden()
                + (biases.contains(Bias.ROUTER) ? router.numLogits() : 0)
                + (biases.contains(Bias.SELECTION) ? router.numExperts() : 0);
    }

    private long expert(int intermediate) {
        long columns = columns(intermediate);
        return columns * config.hidden()
                + (long) intermediate * config.hidden()
                + (biases.contains(Bias.EXPERTS) ? columns + config.hidden() : 0);
    }

    /** Outputs of the first product. */
    private long columns(int intermediate) {
        return config.activation().gated() ? 2L * intermediate : intermediate;
    }

    /**
     * Bytes of all weight matrices.
     *
     * @param type of experts and routers
     * @return without biases
     */
    public long weightBytes(DType type) {
        long hidden = config.hidden();
        long elements =
                (columns(config.sharedIntermediate()) + config.sharedIntermediate()) * hidden;
        for (int tokenType = 0; tokenType < config.numTokenTypes(); tokenType++) {
            for (SizeClass size : config.sizeClasses(tokenType)) {
                int width = size.intermediate();
                elements += size.numExperts() * (columns(width) + width) * hidden;
            }
        }
        long routers = (long) config.numTokenTypes() * config.numExperts() * hidden;
        return type.numBytes(elements + routers);
    }

    /**
     * Bytes of all weight matrices as they were released: experts in {@link Published#weights} with
     * their scales, routers in BF16.
     *
     * @return without biases
     */
    public long publishedBytes() {
        long routers = (long) config.numTokenTypes() * config.numExperts() * config.hidden();
        long bytes = DType.BF16.numBytes(routers);
        if (config.sharedIntermediate() > 0) {
            bytes += publishedBytes(config.sharedIntermediate());
        }
        for (int type = 0; type < config.numTokenTypes(); type++) {
            for (SizeClass size : config.sizeClasses(type)) {
                bytes += size.numExperts() * publishedBytes(size.intermediate());
            }
        }
        return bytes;
    }

    /** Of one expert: gate, up and down are matrices of their own. */
    private long publishedBytes(int intermediate) {
        long matrices = columns(intermediate) / intermediate + 1;
        long elements = (long) intermediate * config.hidden();
        long bytes = matrices * published.weights.numBytes(elements);
        if (published.weights == DType.F8_E4M3) {
            long blocks =
                    (long) Math.ceilDiv(intermediate, SCALED_BLOCK)
                            * Math.ceilDiv(config.hidden(), SCALED_BLOCK);
            bytes += matrices * DType.F32.numBytes(blocks);
        }
        return bytes;
    }

    /**
     * The same layer with half as many experts, to fit where the whole does not.
     *
     * @return null if its rule needs as many as there are, or they differ in size
     */
    public @Nullable Preset halved() {
        int experts = config.numExperts() / 2;
        if (experts < config.topK() || config.mixesSizes()) {
            return null;
        }
        List<RouterConfig> routers = new ArrayList<>();
        for (RouterConfig router : config.routers()) {
            if (router.selection() instanceof Selection.GroupLimited groups
                    && (experts % groups.numGroups() != 0
                            || experts / groups.numGroups() * groups.topGroups() < config.topK())) {
                return null;
            }
            if (router.selection() instanceof Selection.OnePerGroup groups
                    && experts % groups.numGroups() != 0) {
                return null;
            }
            routers.add(
                    new RouterConfig(
                            experts,
                            router.topK(),
                            router.score(),
                            router.selection(),
                            router.normalisation(),
                            router.factor(),
                            router.weightOnInput(),
                            router.capacity(),
                            router.tokenType(),
                            router.logitTransforms()));
        }
        MoeConfig half =
                new MoeConfig(
                        config.family(),
                        config.hidden(),
                        config.expertHidden(),
                        experts,
                        config.numIdentityExperts(),
                        config.activation(),
                        routers,
                        config.intermediates(),
                        config.sharedIntermediate(),
                        config.sharedGated(),
                        config.outputFactor());
        return new Preset(name, aliases, half, biases, published);
    }

    /** This with other names. */
    Preset alias(String... others) {
        return new Preset(name, List.of(others), config, biases, published);
    }

    /** This with biases. */
    Preset biased(Bias... places) {
        return new Preset(name, aliases, config, Set.of(places), published);
    }
}
