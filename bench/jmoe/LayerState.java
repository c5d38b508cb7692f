package jmoe;

import jmoe.cli.RandomLayer;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;

import java.lang.foreign.Arena;

/**
 * One layer and every intermediate result of a pass over it, all checked once. Inputs and their
 * routing rotate over {@link #BATCHES} different batches, so that small batches touch different
 * experts and do not live off the last-level cache.
 */
@State(Scope.Benchmark)
public class LayerState {
    private static final int BATCHES = 64;

    /** Name of a {@link Preset}. */
    @Param(Presets.DEFAULT)
    public String preset;

    /** Tokens of a batch. */
    @Param({"1", "16", "128", "512"})
    public int tokens;

    /** A {@link Backend} constant. */
    @Param("VECTOR")
    public String backend;

    /** Type of the experts' weights. */
    @Param("BF16")
    public DType weights;

    Kernels kernels;
    MoeLayer layer;
    Workspace workspace;
    RouterConfig router;
    ExpertWeights experts;

    /** Gate and up for {@link Kernels#groupedGemm}: a fused form may be of no use to it. */
    Tensor gateUpWeight;

    /** What the router decided for the last batch of {@link #nextBatch}. */
    Routing routing;

    Tensor logits;
    Tensor rows;
    Tensor gateUp;
    Tensor scratch;
    Tensor hidden;
    Tensor expertRows;
    Tensor y;

    private Arena arena;
    private MoeWeights raw;
    private Tensor inputs;
    private final Routing[] routings = new Routing[BATCHES];
    private int batch;

    /** Allocates, runs the pass once and checks it against the reference. */
    @Setup(Level.Trial)
    public void setUp() {
        arena = Arena.ofShared();
        kernels = Backend.valueOf(backend).open();
        Preset model = Presets.of(preset);
        MoeConfig config = model.config();
        raw = RandomLayer.weights(model, weights, arena);
        layer = new MoeLayer(config, raw, kernels);
        workspace = layer.workspace(tokens);
        router = config.routers().getFirst();
        experts = layer.weights().experts().getFirst();
        gateUpWeight = kernels.prepare(raw.experts().getFirst().gateUp(), arena);
        long hiddenSize = config.hidden();
        long intermediate = experts.intermediate();
        long slots = (long) tokens * config.topK();
        inputs = Tensor.allocate(arena, DType.F32, (long) BATCHES * tokens, hiddenSize);
        RandomLayer.fill(inputs, 1, 4);
        logits = Tensor.allocate(arena, DType.F32, tokens, config.numExperts());
        rows = Tensor.allocate(arena, DType.F32, slots, hiddenSize);
        gateUp = Tensor.allocate(arena, DType.F32, slots, 2 * intermediate);
        long scratchElements = kernels.gateUpSwigluScratch(DType.F32, slots, experts);
        scratch = Tensor.allocate(arena, DType.F32, scratchElements);
        hidden = Tensor.allocate(arena, DType.F32, slots, intermediate);
        expertRows = Tensor.allocate(arena, DType.F32, slots, hiddenSize);
        y = Tensor.allocate(arena, DType.F32, tokens, hiddenSize);
        try (ReferenceCheck check = new ReferenceCheck()) {
            fillRoutings(check);
            fillIntermediates(check);
            layer.forward(batchInput(), y, workspace);
            check.forward(config, raw, batchInput(), y);
        }
    }

    /** From the last to the first, whose logits stay. */
    private void fillRoutings(ReferenceCheck check) {
        Tensor oneGroup = Tensor.allocate(arena, DType.I32, 2);
        oneGroup.setInt(1, tokens);
        Tensor weight = layer.weights().routers().getFirst().weight();
        for (batch = BATCHES - 1; batch >= 0; batch--) {
            kernels.groupedGemm(batchInput(), weight, null, oneGroup, logits);
            routing =
                    Routing.allocate(
                            arena, tokens, router.topK(), Math.toIntExact(experts.numExperts()));
            kernels.route(logits, router, RouteInputs.NONE, routing);
            kernels.sortByExpert(routing);
            routings[batch] = routing;
        }
        batch = 0;
        check.groupedGemm(batchInput(), raw.routers().getFirst().weight(), oneGroup, logits);
        check.routing(logits, router, routing);
    }

    private void fillIntermediates(ReferenceCheck check) {
        ExpertWeights stored = raw.experts().getFirst();
        Tensor x = batchInput();
        Tensor offsets = routing.expertOffsets();
        kernels.permute(x, routing, null, rows);
        check.permute(x, routing, rows);
        kernels.groupedGemm(rows, gateUpWeight, null, offsets, gateUp);
        check.groupedGemm(rows, stored.gateUp(), offsets, gateUp);
        kernels.swiglu(gateUp, experts.activation(), offsets, hidden);
        check.swiglu(gateUp, experts.activation(), offsets, hidden);
        Tensor separate = hidden.copy(arena);
        kernels.gateUpSwiglu(x, routing, null, experts, scratch, hidden);
        check.requireClose("gateUpSwiglu", separate, hidden);
        kernels.groupedGemm(hidden, experts.down(), null, offsets, expertRows);
        check.groupedGemm(hidden, stored.down(), offsets, expertRows);
        kernels.unpermute(expertRows, routing, routing.topkWeights(), Residual.NONE, y);
        check.unpermute(expertRows, routing, y);
    }

    Tensor batchInput() {
        return inputs.slice((long) batch * tokens, tokens);
    }

    /** The next of the rotating inputs, and its routing. */
    Tensor nextBatch() {
        batch = (batch + 1) % BATCHES;
        routing = routings[batch];
        return batchInput();
    }

    /** Frees everything. */
    @TearDown(Level.Trial)
    public void tearDown() {
        workspace.close();
        layer.close();
        kernels.close();
        arena.close();
    }
}
