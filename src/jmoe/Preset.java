package jmoe;

import jmoe.ops.Capacity;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.Selection;
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
 * @param form what its experts are made of
 */
public record Preset(
        String name,
        List<String> aliases,
        MoeConfig config,
        Set<Bias> biases,
        Published published,
        ExpertForm form) {
    /** Where a layer has numbers that are not of a product. */
    public enum Bias {
        /** To the logits; with product keys to the queries. */
        ROUTER,
        /** To the scores, for the selection only. */
        SELECTION,
        /** To both products of every expert. */
        EXPERTS,
        /** To the output of the layer. */
        OUTPUT,
        /** Nothing is added: weights are multiplied by a learned factor of their expert. */
        EXPERT_SCALE
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
        SELECTION_BIAS,
        /** {@link jmoe.train.RouterLoss.ImportanceVariation}, of probabilities. */
        IMPORTANCE,
        /** {@link jmoe.train.RouterLoss.LoadVariation}. */
        LOAD_VARIATION
    }

    /**
     * What is said about a model beyond the formula of its layer.
     *
     * @param weights type in which the experts were released; F8_E4M3 has an F32 scale for each
     *     block of 128 x 128, and of I8 the codes alone count
     * @param moeLayers MoE layers of the model, of all encoders and decoders; 0 if there is no
     *     model
     * @param totalParameters of the whole model as stated, attention and embeddings included; 0 if
     *     not stated
     * @param activeParameters those of one token as stated, which may or may not count embeddings;
     *     0 if not stated
     * @param trainingCapacity capacity factor of training, of an expert, in DeepSeek-V2 of a
     *     device; 0 if no token was dropped, or nothing is stated. The configuration has the
     *     capacity of evaluation
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
        this(name, List.of(), config, biases, Published.UNKNOWN, new ExpertForm.TwoMaps());
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
     * All parameters of the layer, biases included; none of what only fills up a matrix.
     *
     * @return elements
     */
    public long parameters() {
        long elements = dense();
        for (int type = 0; type < config.numTokenTypes(); type++) {
            elements += router(type) + 3L * config.numConstantExperts() * config.expertHidden();
            for (SizeClass size : config.sizeClasses(type)) {
                elements += size.numExperts() * expert(size.intermediate());
            }
        }
        return elements;
    }

    /**
     * The parameters that one token uses: router, shared expert and as many of the routed experts
     * as it asks for, on average where experts choose tokens; with several token types, of the
     * first. Experts that differ in size count by their mean.
     *
     * @return elements
     */
    public long activeParameters() {
        double experts = config.topK();
        if (form instanceof ExpertForm.Neurons neurons) {
            experts *= neurons.heads();
        }
        if (config.routers().getFirst().selection() instanceof Selection.ExpertChoice choice) {
            experts = choice.capacityFactor();
        }
        double elements = 0;
        for (SizeClass size : config.sizeClasses(0)) {
            elements += (double) size.numExperts() * expert(size.intermediate());
        }
        long routed = Math.round(experts * elements / Math.max(1, config.numExperts()));
        return dense() + router(0) + routed;
    }

    /** What every token uses besides router and routed experts. */
    private long dense() {
        int shared = config.sharedIntermediate();
        return (shared == 0 ? 0 : expert(shared, config.hidden()))
                + (config.sharedGated() ? config.hidden() : 0)
                + (biases.contains(Bias.OUTPUT) ? config.hidden() : 0);
    }

    private long router(int type) {
        RouterConfig router = config.routers().get(type);
        long outputs = router.numLogits();
        if (form instanceof ExpertForm.Neurons neurons) {
            outputs = 2L * neurons.heads() * neurons.keyWidth();
        }
        return routerMatrices(type)
                + (biases.contains(Bias.ROUTER) ? outputs : 0)
                + (biases.contains(Bias.SELECTION) ? router.numExperts() : 0)
                + (biases.contains(Bias.EXPERT_SCALE) ? router.numExperts() : 0);
    }

    /**
     * Elements of what makes logits: one matrix, or queries of all heads and keys of both halves.
     */
    private long routerMatrices(int type) {
        long logits = config.routers().get(type).numLogits();
        return form instanceof ExpertForm.Neurons neurons
                ? (2L * neurons.heads() * config.hidden() + logits) * neurons.keyWidth()
                : logits * config.hidden();
    }

    private long expert(int intermediate) {
        return expert(intermediate, outputs());
    }

    /** Of the second matrix of a routed expert, 0 if there is none. */
    private int outputs() {
        return switch (form) {
            case ExpertForm.OneMap one -> 0;
            case ExpertForm.Narrow narrow -> narrow.outputs();
            case ExpertForm.TwoMaps two -> config.hidden();
            case ExpertForm.Neurons neurons -> config.hidden();
        };
    }

    /** Of two matrices, the second with so many rows. */
    private long expert(int intermediate, int outputs) {
        long columns = columns(intermediate);
        return columns * config.hidden()
                + (long) outputs * intermediate
                + (biases.contains(Bias.EXPERTS) ? columns + outputs : 0);
    }

    /** Outputs of the first product. */
    private long columns(int intermediate) {
        return config.activation().gated() ? 2L * intermediate : intermediate;
    }

    /**
     * Bytes of all weight matrices as a layer holds them.
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
            elements += routerMatrices(tokenType);
        }
        return type.numBytes(elements);
    }

    /**
     * Bytes of all weight matrices as they were released: experts in {@link Published#weights} with
     * their scales, routers in BF16, or in F32 with experts in F32.
     *
     * @return without biases
     */
    public long publishedBytes() {
        DType routers = published.weights == DType.F32 ? DType.F32 : DType.BF16;
        long bytes = 0;
        if (config.sharedIntermediate() > 0) {
            bytes += publishedBytes(config.sharedIntermediate(), config.hidden());
        }
        for (int tokenType = 0; tokenType < config.numTokenTypes(); tokenType++) {
            bytes += routers.numBytes(routerMatrices(tokenType));
            for (SizeClass size : config.sizeClasses(tokenType)) {
                bytes += size.numExperts() * publishedBytes(size.intermediate(), outputs());
            }
        }
        return bytes;
    }

    /** Of one expert: gate, up and down are matrices of their own. */
    private long publishedBytes(int intermediate, int outputs) {
        long first = columns(intermediate) / intermediate;
        return first * publishedBytesOf(intermediate, config.hidden())
                + publishedBytesOf(intermediate, outputs);
    }

    private long publishedBytesOf(long rows, long columns) {
        long bytes = published.weights.numBytes(rows * columns);
        if (published.weights == DType.F8_E4M3) {
            long blocks =
                    Math.ceilDiv(rows, (long) SCALED_BLOCK)
                            * Math.ceilDiv(columns, (long) SCALED_BLOCK);
            bytes += DType.F32.numBytes(blocks);
        }
        return bytes;
    }

    /**
     * The same layer with half as many experts, to fit where the whole does not; with product keys
     * with half as many keys of each half, so a quarter of the experts.
     *
     * @return null if its rule needs as many as there are, they differ in size, or some have no
     *     weights
     */
    public @Nullable Preset halved() {
        RouterConfig first = config.routers().getFirst();
        int experts = config.numExperts() / 2;
        if (first.selection() instanceof Selection.ProductKeys keys) {
            int half = keys.numKeys() / 2;
            experts = half * half;
        }
        boolean weightless = first.numExperts() > config.numExperts();
        if (experts < config.topK() || config.mixesSizes() || weightless) {
            return null;
        }
        List<RouterConfig> routers = new ArrayList<>();
        for (RouterConfig router : config.routers()) {
            if (!divides(router, experts)) {
                return null;
            }
            routers.add(withExperts(router, experts));
        }
        MoeConfig half =
                new MoeConfig(
                        config.family(),
                        config.hidden(),
                        config.expertHidden(),
                        experts,
                        0,
                        config.activation(),
                        routers,
                        config.intermediates(),
                        config.sharedIntermediate(),
                        config.sharedGated(),
                        config.outputFactor());
        return new Preset(name, aliases, half, biases, published, form);
    }

    /** Whether the groups and devices of a rule can be made of so many experts. */
    private static boolean divides(RouterConfig router, int experts) {
        Capacity capacity = router.capacity();
        if (capacity != null && capacity.numDevices() > 0 && experts % capacity.numDevices() != 0) {
            return false;
        }
        return switch (router.selection()) {
            case Selection.GroupLimited groups ->
                    experts % groups.numGroups() == 0
                            && experts / groups.numGroups() * groups.topGroups() >= router.topK();
            case Selection.OnePerGroup groups -> experts % groups.numGroups() == 0;
            case Selection.TwoLevel groups ->
                    experts % groups.numGroups() == 0
                            && experts / groups.numGroups() >= groups.perGroup();
            default -> true;
        };
    }

    private static RouterConfig withExperts(RouterConfig router, int experts) {
        Selection selection = router.selection();
        if (selection instanceof Selection.ProductKeys keys) {
            selection = new Selection.ProductKeys(keys.numKeys() / 2);
        }
        return new RouterConfig(
                experts,
                router.topK(),
                router.score(),
                selection,
                router.normalisation(),
                router.factor(),
                router.weightOnInput(),
                router.capacity(),
                router.tokenType(),
                router.logitTransforms(),
                router.inputTransforms());
    }

    /** This with other names. */
    Preset alias(String... others) {
        return new Preset(name, List.of(others), config, biases, published, form);
    }

    /** This with biases. */
    Preset biased(Bias... places) {
        return new Preset(name, aliases, config, Set.of(places), published, form);
    }

    /** This with experts of another form. */
    Preset of(ExpertForm experts) {
        return new Preset(name, aliases, config, biases, published, experts);
    }
}
