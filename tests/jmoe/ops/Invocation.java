package jmoe.ops;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Logits;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.RouterConfig.Normalisation;
import jmoe.ops.RouterConfig.Score;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * An operation with a name for each of its arguments, so that a test can say "every operation, with
 * every argument replaced by something wrong".
 *
 * @param op operation
 * @param inputs by parameter name
 * @param outputs by parameter name, poisoned
 * @param call runs the operation on arguments of these names
 */
record Invocation(String op, Map<String, Tensor> inputs, Map<String, Tensor> outputs, Call call) {
    /** Runs an operation on named arguments. */
    interface Call {
        void run(Kernels kernels, Map<String, Tensor> arguments);
    }

    /** Where arguments live. */
    interface Memory {
        Tensor allocate(DType dtype, long... shape);
    }

    /** Every operation on one case; the types of floating-point arguments are the case's. */
    static List<Invocation> all(Case c, Memory memory) {
        return List.of(
                route(c, memory),
                routeGroups(c, memory),
                routeProductKeys(c, memory),
                RouteInvocation.rare(c, memory),
                RouteInvocation.hash(c, memory),
                sortByExpert(c, memory),
                permute(c, memory),
                groupedGemm(c, memory),
                gateUpSwiglu(c, memory),
                swiglu(c, memory),
                unpermute(c, memory),
                SingletonInvocation.singletonExperts(c, memory),
                ConstantInvocation.constantExperts(c, memory),
                SoftInvocation.normaliseRows(c, memory),
                SoftInvocation.softDispatch(c, memory),
                SoftInvocation.softCombine(c, memory),
                FusedInvocation.routeSort(c, memory),
                FusedInvocation.router(c, memory),
                FusedInvocation.experts(c, memory),
                NoisyInvocation.shapeLogits(c, memory),
                NoisyInvocation.router(c, memory),
                RouterInputInvocation.jitter(c, memory),
                RouterInputInvocation.router(c, memory));
    }

    /** Every operation on one case in plain memory. */
    static List<Invocation> all(Case c, Arena arena) {
        return all(c, (dtype, shape) -> Tensor.allocate(arena, dtype, shape));
    }

    /** All arguments in one map. */
    Map<String, Tensor> arguments() {
        Map<String, Tensor> arguments = new LinkedHashMap<>(inputs);
        arguments.putAll(outputs);
        return arguments;
    }

    /** Runs the operation as it is, on poisoned outputs. */
    void run(Kernels kernels) {
        outputs.values().forEach(Poisoned::fill);
        call.run(kernels, arguments());
    }

    /** Runs the operation with one argument replaced. */
    void runWith(Kernels kernels, String parameter, Tensor replacement) {
        Map<String, Tensor> arguments = arguments();
        if (arguments.replace(parameter, replacement) == null) {
            throw new IllegalArgumentException("no parameter " + parameter + " in " + op);
        }
        call.run(kernels, arguments);
    }

    /** Copies of all outputs' bytes. */
    List<byte[]> outputBytes() {
        List<byte[]> bytes = new ArrayList<>();
        for (Tensor output : outputs.values()) {
            bytes.add(output.data().toArray(JAVA_BYTE));
        }
        return bytes;
    }

    @Override
    public String toString() {
        return op + " " + arguments();
    }

    private static Invocation route(Case c, Memory memory) {
        RouterConfig config =
                new RouterConfig(
                        c.numExperts(),
                        c.topK(),
                        Score.SIGMOID,
                        new Selection.TopK(),
                        new Normalisation.Sum(1e-20),
                        2.5,
                        false,
                        null,
                        1);
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("logits", logits(c, memory, config));
        in.put(
                "selectionBias",
                Cases.normal(memory.allocate(DType.F32, c.numExperts()), c.seed() + 2));
        Tensor types = memory.allocate(DType.I32, c.tokens());
        for (int t = 0; t < c.tokens(); t++) {
            types.setInt(t, t % 3 == 2 ? 0 : 1);
        }
        in.put("tokenTypes", types);
        return new Invocation(
                "route",
                in,
                routeOutputs(c, c.topK(), memory),
                (kernels, a) ->
                        kernels.route(
                                a.get("logits"),
                                config,
                                new RouteInputs(a.get("selectionBias"), a.get("tokenTypes")),
                                routing(c, a)));
    }

    private static Invocation routeGroups(Case c, Memory memory) {
        boolean halves = c.numExperts() % 2 == 0 && c.topK() <= c.numExperts() / 2;
        int groups = halves ? 2 : 1;
        Selection selection = new Selection.GroupLimited(groups, 1, RouterConfig.GroupScore.MAX);
        return plainRoute(c, c.numExperts(), c.topK(), selection, memory);
    }

    private static Invocation routeProductKeys(Case c, Memory memory) {
        int keys = c.hidden();
        int topK = Math.min(c.topK(), keys * keys);
        return plainRoute(c, keys * keys, topK, new Selection.ProductKeys(keys), memory);
    }

    private static Invocation plainRoute(
            Case c, int numExperts, int topK, Selection selection, Memory memory) {
        RouterConfig config =
                new RouterConfig(
                        numExperts,
                        topK,
                        Score.SOFTMAX,
                        selection,
                        new Normalisation.Sum(0),
                        1,
                        false,
                        null,
                        RouterConfig.ALL_TOKENS);
        Case sized =
                new Case(c.tokens(), numExperts, topK, c.hidden(), c.intermediate(), c.pattern());
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("logits", logits(c, memory, config));
        return new Invocation(
                "route",
                in,
                routeOutputs(c, topK, memory),
                (kernels, a) ->
                        kernels.route(
                                a.get("logits"), config, RouteInputs.NONE, routing(sized, a)));
    }

    private static Tensor logits(Case c, Memory memory, RouterConfig config) {
        return Cases.logits(
                memory.allocate(DType.F32, c.tokens(), config.numLogits()),
                Logits.NORMAL,
                c.seed() + 1);
    }

    private static Map<String, Tensor> routeOutputs(Case c, int topK, Memory memory) {
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("topkIds", memory.allocate(DType.I32, c.tokens(), topK));
        out.put("topkWeights", memory.allocate(DType.F32, c.tokens(), topK));
        return out;
    }

    private static Invocation sortByExpert(Case c, Memory memory) {
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("topkIds", Cases.ids(c, memory.allocate(DType.I32, c.tokens(), c.topK())));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("tokensPerExpert", memory.allocate(DType.I32, c.numExperts()));
        out.put("expertOffsets", memory.allocate(DType.I32, c.numExperts() + 1));
        out.put("rowToSlot", memory.allocate(DType.I32, c.slots()));
        out.put("slotToRow", memory.allocate(DType.I32, c.tokens(), c.topK()));
        return new Invocation(
                "sortByExpert", in, out, (kernels, a) -> kernels.sortByExpert(routing(c, a)));
    }

    private static Invocation permute(Case c, Memory memory) {
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, c.dtype(0), c.seed() + 3, c.tokens(), c.hidden()));
        in.putAll(maps(c, memory, "rowToSlot", "expertOffsets"));
        in.put("weights", Cases.weights(memory.allocate(DType.F32, c.tokens(), c.topK()), 4));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("rows", memory.allocate(c.dtype(1), c.slots(), c.hidden()));
        return new Invocation(
                "permute",
                in,
                out,
                (kernels, a) ->
                        kernels.permute(
                                a.get("x"), routing(c, a), a.get("weights"), a.get("rows")));
    }

    private static Invocation groupedGemm(Case c, Memory memory) {
        int e = c.numExperts();
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, c.dtype(0), c.seed() + 5, c.slots(), c.hidden()));
        in.put("weight", normal(memory, c.dtype(1), c.seed() + 6, e, c.intermediate(), c.hidden()));
        in.put("bias", normal(memory, DType.F32, c.seed() + 7, e, c.intermediate()));
        in.putAll(maps(c, memory, "expertOffsets"));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("y", memory.allocate(c.dtype(2), c.slots(), c.intermediate()));
        return new Invocation(
                "groupedGemm",
                in,
                out,
                (kernels, a) ->
                        kernels.groupedGemm(
                                a.get("x"),
                                a.get("weight"),
                                a.get("bias"),
                                a.get("expertOffsets"),
                                a.get("y")));
    }

    private static Invocation gateUpSwiglu(Case c, Memory memory) {
        int e = c.numExperts();
        long columns = 2L * c.intermediate();
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("x", normal(memory, c.dtype(0), c.seed() + 11, c.tokens(), c.hidden()));
        in.putAll(maps(c, memory, "rowToSlot", "expertOffsets"));
        in.put("weights", Cases.weights(memory.allocate(DType.F32, c.tokens(), c.topK()), 12));
        in.put("gateUp", normal(memory, c.dtype(1), c.seed() + 13, e, columns, c.hidden()));
        in.put("gateUpBias", normal(memory, DType.F32, c.seed() + 14, e, columns));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("hidden", memory.allocate(c.dtype(2), c.slots(), c.intermediate()));
        return new Invocation("gateUpSwiglu", in, out, (kernels, a) -> gateUpSwiglu(c, kernels, a));
    }

    /** With down and scratch of the right size, whatever else is wrong. */
    private static void gateUpSwiglu(Case c, Kernels kernels, Map<String, Tensor> a) {
        Tensor gateUp = a.get("gateUp");
        try (Arena arena = Arena.ofConfined()) {
            ExpertWeights experts =
                    new ExpertWeights(
                            gateUp,
                            Tensor.allocate(
                                    arena,
                                    gateUp.dtype(),
                                    c.numExperts(),
                                    c.hidden(),
                                    c.intermediate()),
                            a.get("gateUpBias"),
                            null,
                            Activation.SWIGLU);
            long elements = kernels.gateUpSwigluScratch(a.get("x").dtype(), c.slots(), experts);
            kernels.gateUpSwiglu(
                    a.get("x"),
                    routing(c, a),
                    a.get("weights"),
                    experts,
                    Poisoned.allocate(arena, DType.F32, elements).tensor(),
                    a.get("hidden"));
        }
    }

    private static Invocation swiglu(Case c, Memory memory) {
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("gateUp", normal(memory, c.dtype(0), c.seed(), c.slots(), 2L * c.intermediate()));
        in.putAll(maps(c, memory, "expertOffsets"));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("hidden", memory.allocate(c.dtype(1), c.slots(), c.intermediate()));
        return new Invocation(
                "swiglu",
                in,
                out,
                (kernels, a) ->
                        kernels.swiglu(
                                a.get("gateUp"),
                                Activation.SWIGLU,
                                a.get("expertOffsets"),
                                a.get("hidden")));
    }

    private static Invocation unpermute(Case c, Memory memory) {
        Map<String, Tensor> in = new LinkedHashMap<>();
        in.put("rows", normal(memory, c.dtype(0), c.seed() + 8, c.slots(), c.hidden()));
        in.putAll(maps(c, memory, "slotToRow", "topkIds"));
        in.put("weights", Cases.weights(memory.allocate(DType.F32, c.tokens(), c.topK()), 9));
        in.put("addend", normal(memory, c.dtype(1), c.seed() + 9, c.tokens(), c.hidden()));
        in.put("identity", normal(memory, c.dtype(2), c.seed() + 10, c.tokens(), c.hidden()));
        Map<String, Tensor> out = new LinkedHashMap<>();
        out.put("y", memory.allocate(c.dtype(2), c.tokens(), c.hidden()));
        return new Invocation(
                "unpermute",
                in,
                out,
                (kernels, a) ->
                        kernels.unpermute(
                                a.get("rows"),
                                routing(c, a),
                                a.get("weights"),
                                new Residual(
                                        a.get("addend"), a.get("identity"), c.numExperts(), 0.5),
                                a.get("y")));
    }

    private static Tensor normal(Memory memory, DType dtype, long seed, long... shape) {
        return Cases.normal(memory.allocate(dtype, shape), seed);
    }

    /** The named tensors of the case's routing, copied into the memory. */
    static Map<String, Tensor> maps(Case c, Memory memory, String... names) {
        Map<String, Tensor> maps = new LinkedHashMap<>();
        try (Arena arena = Arena.ofConfined()) {
            Map<String, Tensor> all = named(Cases.routing(arena, c));
            for (String name : names) {
                Tensor from = all.get(name);
                Tensor copy = memory.allocate(from.dtype(), from.shape());
                copy.data().copyFrom(from.data());
                maps.put(name, copy);
            }
        }
        return maps;
    }

    /** The tensors of a routing, by name. */
    static Map<String, Tensor> named(Routing routing) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        tensors.put("topkIds", routing.topkIds());
        tensors.put("topkWeights", routing.topkWeights());
        tensors.put("tokensPerExpert", routing.tokensPerExpert());
        tensors.put("expertOffsets", routing.expertOffsets());
        tensors.put("rowToSlot", routing.rowToSlot());
        tensors.put("slotToRow", routing.slotToRow());
        return tensors;
    }

    /** A routing of the given tensors; those the operation does not use are zero. */
    static Routing routing(Case c, Map<String, Tensor> arguments) {
        Map<String, Tensor> unused =
                named(Routing.allocate(Arena.ofAuto(), c.tokens(), c.topK(), c.numExperts()));
        return new Routing(
                arguments.getOrDefault("topkIds", unused.get("topkIds")),
                arguments.getOrDefault("topkWeights", unused.get("topkWeights")),
                arguments.getOrDefault("tokensPerExpert", unused.get("tokensPerExpert")),
                arguments.getOrDefault("expertOffsets", unused.get("expertOffsets")),
                arguments.getOrDefault("rowToSlot", unused.get("rowToSlot")),
                arguments.getOrDefault("slotToRow", unused.get("slotToRow")));
    }
}
