package jmoe;

import jmoe.cli.Preset;
import jmoe.cli.RandomLayer;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
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
 * One layer and every intermediate result of a pass over it. Inputs rotate over {@link #BATCHES}
 * different batches, so that small batches touch different experts and do not live off the
 * last-level cache.
 */
@State(Scope.Benchmark)
public class LayerState {
    private static final int BATCHES = 64;

    /** Name of a {@link Preset}. */
    @Param(Preset.DEFAULT)
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
    Routing routing;
    Tensor logits;
    Tensor rows;
    Tensor gateUp;
    Tensor hidden;
    Tensor expertRows;
    Tensor y;

    private Arena arena;
    private MoeWeights raw;
    private Tensor inputs;
    private int batch;

    /** Allocates, runs the pass once and checks it against the reference. */
    @Setup(Level.Trial)
    public void setUp() {
        arena = Arena.ofShared();
        kernels = Backend.valueOf(backend).open();
        Preset model = Preset.of(preset);
        MoeConfig config = model.config();
        raw = RandomLayer.weights(model, weights, arena);
        layer = new MoeLayer(config, raw, kernels);
        workspace = layer.workspace(tokens);
        router = config.routers().getFirst();
        experts = layer.weights().experts().getFirst();
        long hiddenSize = config.hidden();
        long intermediate = experts.intermediate();
        long slots = (long) tokens * config.topK();
        inputs = Tensor.allocate(arena, DType.F32, (long) BATCHES * tokens, hiddenSize);
        RandomLayer.fill(inputs, 1, 4);
        logits = Tensor.allocate(arena, DType.F32, tokens, config.numExperts());
        routing = Routing.allocate(arena, tokens, config.topK(), config.numExperts());
        rows = Tensor.allocate(arena, DType.F32, slots, hiddenSize);
        gateUp = Tensor.allocate(arena, DType.F32, slots, 2 * intermediate);
        hidden = Tensor.allocate(arena, DType.F32, slots, intermediate);
        expertRows = Tensor.allocate(arena, DType.F32, slots, hiddenSize);
        y = Tensor.allocate(arena, DType.F32, tokens, hiddenSize);
        fillIntermediates();
        compareWithReference();
    }

    private void fillIntermediates() {
        Tensor x = nextBatch();
        layer.forward(x, y, workspace);
        logits.data().copyFrom(workspace.routerLogits().data());
        kernels.route(logits, router, null, null, routing);
        kernels.sortByExpert(routing);
        kernels.permute(x, routing, null, rows);
        Tensor offsets = routing.expertOffsets();
        kernels.groupedGemm(rows, experts.gateUp(), null, offsets, gateUp);
        kernels.swiglu(gateUp, experts.activation(), offsets, hidden);
        kernels.groupedGemm(hidden, experts.down(), null, offsets, expertRows);
    }

    /** One token is enough: every token is computed alike, and the reference is slow. */
    private void compareWithReference() {
        try (Kernels reference = Backend.REFERENCE.open();
                Arena scratch = Arena.ofShared()) {
            MoeLayer slow = new MoeLayer(layer.config(), raw, reference);
            Tensor want = Tensor.allocate(scratch, DType.F32, 1, layer.config().hidden());
            Tensor got = Tensor.allocate(scratch, DType.F32, 1, layer.config().hidden());
            Tensor x = inputs.slice(0, 1);
            try (Workspace one = layer.workspace(1)) {
                slow.forward(x, want, one);
                layer.forward(x, got, one);
            }
            double largest = 0;
            double worst = 0;
            for (long i = 0; i < want.numElements(); i++) {
                largest = Math.max(largest, Math.abs(want.getDouble(i)));
                worst = Math.max(worst, Math.abs(want.getDouble(i) - got.getDouble(i)));
            }
            if (!(worst <= 5e-6 * largest)) {
                throw new IllegalStateException(
                        "the result differs from the reference by " + worst / largest);
            }
        }
    }

    /** The next of the rotating inputs. */
    Tensor nextBatch() {
        batch = (batch + 1) % BATCHES;
        return inputs.slice((long) batch * tokens, tokens);
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
