package jmoe.checkpoint;

import jmoe.checkpoint.ExpertNames.Extra;
import jmoe.checkpoint.ExpertNames.Family;
import jmoe.checkpoint.ExpertNames.Layer;
import jmoe.checkpoint.MoeBlock.Bank;
import jmoe.checkpoint.MoeBlock.Part;
import jmoe.checkpoint.MoeBlock.Piece;
import jmoe.checkpoint.MoeBlock.Router;
import jmoe.ops.Activation;
import jmoe.ops.MoeConfig;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.ArrayList;
import java.util.List;

/** Cuts the tensors of a layer into the pieces of a {@link MoeBlock}. */
final class BlockPieces {
    private final Checkpoint checkpoint;
    private final ModelConfig model;
    private final Family family;
    private final String prefix;
    private final MoeConfig config;

    private BlockPieces(Checkpoint checkpoint, ModelConfig model, Layer layer, MoeConfig config) {
        this.checkpoint = checkpoint;
        this.model = model;
        this.family = model.family();
        this.prefix = layer.prefix();
        this.config = config;
    }

    /** Names and shapes of a layer's tensors; not yet compared with what is stored. */
    static MoeBlock of(Checkpoint checkpoint, ModelConfig model, Layer layer, MoeConfig config) {
        return new BlockPieces(checkpoint, model, layer, config).block();
    }

    private MoeBlock block() {
        int types = config.numTokenTypes();
        List<Router> routers = new ArrayList<>();
        List<Bank> experts = new ArrayList<>();
        for (int type = 0; type < types; type++) {
            routers.add(router(type));
            experts.add(routed(type));
        }
        long hidden = config.hidden();
        boolean latent = model.has("moe_latent_size");
        String sharedGate = family.extra(Extra.SHARED_GATE);
        String latentIn = family.extra(Extra.LATENT_IN);
        String latentOut = family.extra(Extra.LATENT_OUT);
        String outputBias = family.extra(Extra.OUTPUT_BIAS);
        return new MoeBlock(
                config,
                routers,
                experts,
                shared(),
                sharedGate == null ? null : matrix(sharedGate, 1, hidden),
                latentIn == null || !latent
                        ? null
                        : matrix(latentIn, config.expertHidden(), hidden),
                latentOut == null || !latent
                        ? null
                        : matrix(latentOut, hidden, config.expertHidden()),
                outputBias == null ? null : vector(outputBias, hidden));
    }

    private Router router(int type) {
        long logits = config.routers().get(type).numLogits();
        long hidden = config.hidden();
        String name = family.routers().get(type);
        Part weight = matrix(name, logits, hidden);
        if (family.routersTransposed()) {
            long[] stored = {hidden, logits};
            Piece piece = new Piece(prefix + name, stored, 0, logits, hidden, 1, logits);
            weight = new Part(weight.shape(), List.of(piece));
        }
        // A wrong number of experts must not become as many pieces.
        checkpoint.checkStored(weight.pieces().getFirst(), config);
        String bias = family.extra(Extra.BIAS);
        String optionalBias = family.extra(Extra.OPTIONAL_BIAS);
        if (optionalBias != null && model.flag("router_bias", false)) {
            bias = optionalBias;
        }
        return new Router(weight, bias == null ? null : vector(bias, logits), selectionBias(type));
    }

    private @Nullable Part selectionBias(int type) {
        String name = family.extra(Extra.SELECT);
        if (name == null || !model.flag("use_expert_bias", true)) {
            return null;
        }
        long numExperts = config.routers().get(type).numExperts();
        Tensor stored = checkpoint.find(prefix + name);
        long types = config.numTokenTypes();
        boolean rows = types > 1 || (stored != null && stored.rank() == 2);
        long[] shape = rows ? new long[] {types, numExperts} : new long[] {numExperts};
        return new Part(
                new long[] {numExperts},
                List.of(plain(prefix + name, shape, type * numExperts, 1, numExperts)));
    }

    private @Nullable Bank shared() {
        List<String> names = family.shared();
        if (names.isEmpty()) {
            return null;
        }
        if (config.sharedIntermediate() == 0) {
            if (checkpoint.contains(prefix + names.getFirst())) {
                throw model.conflict(
                        "expected no shared expert, but the checkpoint has "
                                + CheckpointException.quoted(prefix + names.getFirst()));
            }
            return null;
        }
        // Experts of one unit are not gated, the dense part beside them is.
        Activation activation =
                family.layout() == ExpertLayout.UNITS ? Activation.SWIGLU : config.activation();
        return each(names, null, activation, 0, 1, config.sharedIntermediate(), config.hidden());
    }

    private Bank routed(int type) {
        long numExperts = config.numExperts();
        long intermediate = config.intermediates().get(type);
        List<String> names = family.experts();
        return switch (family.layout()) {
            case EACH -> {
                String each = prefix + names.getFirst();
                List<String> fused = fusedNames();
                boolean isFused =
                        !checkpoint.contains(each.replace("*", "0"))
                                && config.numTokenTypes() == 1
                                && !fused.isEmpty()
                                && checkpoint.storedName(prefix + fused.getFirst()) != null;
                yield isFused
                        ? fused(fused, intermediate)
                        : each(
                                names,
                                family.extra(Extra.EXPERT_BIAS),
                                config.activation(),
                                type * numExperts,
                                numExperts,
                                intermediate,
                                config.expertHidden());
            }
            case FUSED -> fused(names, intermediate);
            case TRANSPOSED -> transposed(names, intermediate, intermediate, 1);
            case INTERLEAVED -> transposed(names, intermediate, 1, 2);
            case STACKED -> stacked(names, intermediate);
            case UNITS -> units(names);
        };
    }

    /** What current transformers calls the experts of a family that used to store each. */
    private List<String> fusedNames() {
        String first = family.experts().getFirst();
        int star = first.indexOf(".*.");
        if (star < 0) {
            return List.of();
        }
        String path = first.substring(0, star + 1);
        return List.of(
                path + (config.activation().gated() ? "gate_up_proj" : "up_proj"),
                path + "down_proj");
    }

    private Bank each(
            List<String> names,
            @Nullable String biases,
            Activation activation,
            long firstExpert,
            long numExperts,
            long intermediate,
            long hidden) {
        List<Piece> gateUp = new ArrayList<>();
        List<Piece> down = new ArrayList<>();
        List<Piece> gateUpBias = new ArrayList<>();
        List<Piece> downBias = new ArrayList<>();
        List<String> biasNames = biases == null ? List.of() : ExpertNames.expand(biases);
        int last = names.size() - 1;
        for (long e = firstExpert; e < firstExpert + numExperts; e++) {
            for (int i = 0; i < last; i++) {
                gateUp.add(plain(name(names.get(i), e), intermediate, hidden));
            }
            down.add(plain(name(names.get(last), e), hidden, intermediate));
            if (biases != null) {
                for (int i = 0; i < last; i++) {
                    gateUpBias.add(plain(name(biasNames.get(i), e), intermediate));
                }
                downBias.add(plain(name(biasNames.get(last), e), hidden));
            }
        }
        long columns = last * intermediate;
        return new Bank(
                new Part(new long[] {numExperts, columns, hidden}, gateUp),
                new Part(new long[] {numExperts, hidden, intermediate}, down),
                biases == null ? null : new Part(new long[] {numExperts, columns}, gateUpBias),
                biases == null ? null : new Part(new long[] {numExperts, hidden}, downBias),
                activation);
    }

    private Bank fused(List<String> names, long intermediate) {
        long numExperts = config.numExperts();
        long hidden = config.expertHidden();
        long columns = config.activation().gated() ? 2 * intermediate : intermediate;
        return new Bank(
                experts(names.get(0), numExperts, columns, hidden),
                experts(names.get(1), numExperts, hidden, intermediate),
                null,
                null,
                config.activation());
    }

    /** [E, rows, columns] as stored, a piece per expert. */
    private Part experts(String name, long numExperts, long rows, long columns) {
        long[] shape = {numExperts, rows, columns};
        List<Piece> pieces = new ArrayList<>();
        for (long e = 0; e < numExperts; e++) {
            pieces.add(plain(prefix + name, shape, e * rows * columns, rows, columns));
        }
        return new Part(shape, pieces);
    }

    /**
     * Input features before output features; a gate column is {@code stride} from the next gate
     * column, and {@code upOffset} from its up column.
     */
    private Bank transposed(List<String> names, long intermediate, long upOffset, long stride) {
        long numExperts = config.numExperts();
        long hidden = config.expertHidden();
        long columns = 2 * intermediate;
        long[] gateUpShape = {numExperts, hidden, columns};
        long[] downShape = {numExperts, intermediate, hidden};
        long[] biasShape = {numExperts, columns};
        String biases = family.extra(Extra.EXPERT_BIAS);
        List<String> biasNames = biases == null ? List.of() : ExpertNames.expand(biases);
        List<Piece> gateUp = new ArrayList<>();
        List<Piece> down = new ArrayList<>();
        List<Piece> gateUpBias = new ArrayList<>();
        for (long e = 0; e < numExperts; e++) {
            for (int half = 0; half < 2; half++) {
                gateUp.add(
                        new Piece(
                                prefix + names.get(0),
                                gateUpShape,
                                e * hidden * columns + half * upOffset,
                                intermediate,
                                hidden,
                                stride,
                                columns));
                if (biases != null) {
                    gateUpBias.add(
                            new Piece(
                                    prefix + biasNames.get(0),
                                    biasShape,
                                    e * columns + half * upOffset,
                                    1,
                                    intermediate,
                                    columns,
                                    stride));
                }
            }
            down.add(
                    new Piece(
                            prefix + names.get(1),
                            downShape,
                            e * intermediate * hidden,
                            hidden,
                            intermediate,
                            1,
                            hidden));
        }
        return new Bank(
                new Part(new long[] {numExperts, columns, hidden}, gateUp),
                new Part(new long[] {numExperts, hidden, intermediate}, down),
                biases == null ? null : new Part(biasShape, gateUpBias),
                biases == null ? null : grid(biasNames.get(1), numExperts, hidden),
                config.activation());
    }

    private Bank stacked(List<String> names, long intermediate) {
        long numExperts = config.numExperts();
        long hidden = config.expertHidden();
        long[] stored = {numExperts * intermediate, hidden};
        List<Piece> gateUp = new ArrayList<>();
        List<Piece> down = new ArrayList<>();
        for (long e = 0; e < numExperts; e++) {
            long offset = e * intermediate * hidden;
            gateUp.add(plain(prefix + names.get(0), stored, offset, intermediate, hidden));
            gateUp.add(plain(prefix + names.get(1), stored, offset, intermediate, hidden));
            down.add(
                    new Piece(
                            prefix + names.get(2),
                            stored,
                            offset,
                            hidden,
                            intermediate,
                            1,
                            hidden));
        }
        return new Bank(
                new Part(new long[] {numExperts, 2 * intermediate, hidden}, gateUp),
                new Part(new long[] {numExperts, hidden, intermediate}, down),
                null,
                null,
                config.activation());
    }

    /** With one unit a column is a row: nothing has to be transposed. */
    private Bank units(List<String> names) {
        long numExperts = config.numExperts();
        long hidden = config.expertHidden();
        return new Bank(
                new Part(
                        new long[] {numExperts, 1, hidden},
                        List.of(plain(prefix + names.get(0), numExperts, hidden))),
                new Part(
                        new long[] {numExperts, hidden, 1},
                        List.of(plain(prefix + names.get(1), numExperts, hidden))),
                null,
                null,
                config.activation());
    }

    private Part matrix(String name, long rows, long columns) {
        return new Part(
                new long[] {1, rows, columns}, List.of(plain(prefix + name, rows, columns)));
    }

    private Part grid(String name, long rows, long columns) {
        return new Part(new long[] {rows, columns}, List.of(plain(prefix + name, rows, columns)));
    }

    private Part vector(String name, long length) {
        return new Part(new long[] {1, length}, List.of(plain(prefix + name, length)));
    }

    private String name(String pattern, long expert) {
        return prefix + pattern.replace("*", Long.toString(expert));
    }

    /** A whole tensor of one or two dimensions. */
    private static Piece plain(String name, long... shape) {
        long columns = shape[shape.length - 1];
        return plain(name, shape, 0, shape.length == 1 ? 1 : shape[0], columns);
    }

    private static Piece plain(String name, long[] stored, long offset, long rows, long columns) {
        return new Piece(name, stored, offset, rows, columns, columns, 1);
    }
}
