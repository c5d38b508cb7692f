package jmoe;

import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterWeights;
import jmoe.ops.Routing;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.List;

/**
 * The operations of a layer in their order, for some number of tokens. Nothing in it reads results
 * or waits for them, so that a device may still work when it returns, and a graph may hold it.
 */
final class ForwardPass {
    /** A gated shared expert is a router with one expert: its weight is sigmoid(x g). */
    private static final RouterConfig SHARED_GATE =
            new RouterConfig(
                    1,
                    1,
                    RouterConfig.Score.SIGMOID,
                    new RouterConfig.Selection.TopK(),
                    new RouterConfig.Normalisation.None(),
                    1,
                    false,
                    null,
                    RouterConfig.ALL_TOKENS);

    private final MoeConfig config;
    private final MoeWeights weights;
    private final Kernels kernels;
    private final Intermediates on;
    private final Routing dense;
    private final long tokens;

    /**
     * A pass.
     *
     * @param on where results on the way go
     * @param dense every token in its own row of one expert, for the products that are not routed
     */
    ForwardPass(
            MoeConfig config,
            MoeWeights weights,
            Kernels kernels,
            Intermediates on,
            Routing dense) {
        this.config = config;
        this.weights = weights;
        this.kernels = kernels;
        this.on = on;
        this.dense = dense;
        tokens = dense.tokens();
    }

    /** Computes y; all tensors are where the backend computes. */
    void run(Tensor x, @Nullable Tensor tokenTypes, Tensor y) {
        Tensor input = narrow(x);
        Tensor addend = sharedExpert(x, input);
        Tensor latentIn = weights.latentIn();
        if (latentIn == null) {
            routedExperts(x, input, tokenTypes, addend, y, on.sum(tokens));
            return;
        }
        Tensor latent = on.latent(tokens);
        Tensor latentSum = on.latentSum(tokens);
        Tensor projected = on.projected(tokens);
        kernels.groupedGemm(x, latentIn, null, dense.expertOffsets(), latent);
        routedExperts(x, latent, tokenTypes, null, latentSum, latentSum);
        Tensor back = weights.latentOut();
        kernels.groupedGemm(latentSum, back, null, dense.expertOffsets(), projected);
        kernels.unpermute(projected, dense, null, Residual.of(addend), y);
    }

    /** What experts read of x: in the type of rows, if that is narrower. Routers read all of it. */
    private Tensor narrow(Tensor x) {
        boolean latent = weights.latentIn() != null;
        if (!on.narrows(x.dtype()) || (latent && weights.shared() == null)) {
            return x;
        }
        Tensor narrow = on.narrow(tokens);
        kernels.permute(x, dense, null, narrow);
        return narrow;
    }

    /** Output bias plus shared expert: what the routed experts are added to; null for nothing. */
    private @Nullable Tensor sharedExpert(Tensor x, Tensor input) {
        Tensor outputBias = weights.outputBias();
        ExpertWeights shared = weights.shared();
        if (shared == null) {
            return outputBias;
        }
        Tensor rows = on.sharedRows(tokens);
        feedForward(input, shared, dense, null, rows);
        Tensor gate = weights.sharedGate();
        if (gate != null) {
            Tensor gateLogits = on.sharedGateLogits(tokens);
            kernels.groupedGemm(x, gate, null, dense.expertOffsets(), gateLogits);
            kernels.route(gateLogits, SHARED_GATE, null, null, dense);
        }
        if (gate == null && outputBias == null) {
            return rows;
        }
        Tensor gateWeights = gate == null ? null : dense.topkWeights();
        Tensor sum = on.sum(tokens);
        kernels.unpermute(rows, dense, gateWeights, Residual.of(outputBias), sum);
        return sum;
    }

    /**
     * Routes by {@code x}, computes on {@code input}; each token type adds its tokens to the sum.
     */
    private void routedExperts(
            Tensor x,
            Tensor input,
            @Nullable Tensor tokenTypes,
            @Nullable Tensor addend,
            Tensor y,
            Tensor sum) {
        List<RouterConfig> routers = config.routers();
        Tensor base = addend;
        for (int type = 0; type < routers.size(); type++) {
            RouterConfig router = routers.get(type);
            RouterWeights routerWeights = weights.routers().get(type);
            ExpertWeights experts = weights.experts().get(type);
            Routing routing = on.routing(type).first(tokens);
            Tensor logits = on.logits(type).slice(0, tokens);
            kernels.groupedGemm(
                    x, routerWeights.weight(), routerWeights.bias(), dense.expertOffsets(), logits);
            kernels.route(logits, router, routerWeights.selectionBias(), tokenTypes, routing);
            kernels.sortByExpert(routing);
            Tensor inputWeights = router.weightOnInput() ? routing.topkWeights() : null;
            Tensor outputWeights = router.weightOnInput() ? null : routing.topkWeights();
            Tensor rows = on.expertRows(tokens);
            feedForward(input, experts, routing, inputWeights, rows);
            boolean last = type == routers.size() - 1;
            // They return what they are given, unrounded.
            Tensor unrounded = weights.latentIn() == null ? x : input;
            Tensor identity = config.numIdentityExperts() > 0 ? unrounded : null;
            Residual residual =
                    new Residual(base, identity, config.numExperts(), config.outputFactor());
            kernels.unpermute(rows, routing, outputWeights, residual, last ? y : sum);
            base = sum;
        }
    }

    private void feedForward(
            Tensor x,
            ExpertWeights experts,
            Routing routing,
            @Nullable Tensor inputWeights,
            Tensor y) {
        Tensor hidden = on.hidden(y.dim(0), experts.intermediate());
        Tensor scratch = on.scratch(kernels.gateUpSwigluScratch(x.dtype(), y.dim(0), experts));
        kernels.gateUpSwiglu(x, routing, inputWeights, experts, scratch, hidden);
        // Rows of identity experts come last and have no weights: the offsets end before them.
        Tensor offsets = routing.expertOffsets().slice(0, experts.numExperts() + 1L);
        kernels.groupedGemm(hidden, experts.down(), experts.downBias(), offsets, y);
    }
}
