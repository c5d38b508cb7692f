package jmoe;

import jmoe.ops.Bank;
import jmoe.ops.ConstantExperts;
import jmoe.ops.ExpertWeights;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.MoeConfig;
import jmoe.ops.MoeWeights;
import jmoe.ops.Router;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.ops.TokenInputs;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * The operations of a layer in their order, for some number of tokens. Nothing in it reads results
 * or waits for them, so that a device may still work when it returns, and a graph may hold it.
 */
final class ForwardPass {
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
     * @param dense every token in its own row of one expert, for what is not routed
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
    void run(Tensor x, TokenInputs inputs, Tensor y) {
        Tensor input = narrow(x);
        for (int type = 0; type < config.numTokenTypes(); type++) {
            route(type, x, inputs);
        }
        Bank shared = shared();
        Tensor bias = weights.outputBias();
        Tensor latentIn = weights.latentIn();
        if (latentIn == null) {
            experts(input, x, shared, bias, y);
            return;
        }
        Tensor latent = on.latent(tokens);
        Tensor latentSum = on.latentSum(tokens);
        Tensor projected = on.projected(tokens);
        kernels.groupedGemm(x, latentIn, null, dense.expertOffsets(), latent);
        experts(latent, latent, null, null, latentSum);
        Tensor back = weights.latentOut();
        kernels.groupedGemm(latentSum, back, null, dense.expertOffsets(), projected);
        Tensor addend = bias;
        if (shared != null) {
            addend = on.sum(tokens);
            experts(input, shared, null, Residual.of(bias), addend);
        }
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

    private void route(int type, Tensor x, TokenInputs inputs) {
        Router router = on.router(type);
        Tensor scratch = on.scratch();
        Tensor logits = on.logits(type).slice(0, tokens);
        TokenInputs read = inputs.readBy(router.rule());
        kernels.router(x, router, read, dense, scratch, logits, routing(type));
    }

    private Routing routing(int type) {
        return on.routing(type).first(tokens);
    }

    private @Nullable Bank shared() {
        ExpertWeights experts = weights.shared();
        if (experts == null) {
            return null;
        }
        Tensor gateWeights = weights.sharedGate() == null ? null : dense.topkWeights();
        return new Bank(experts, dense, null, gateWeights);
    }

    /**
     * All banks that read x; each token type adds its tokens to the sum.
     *
     * @param identity what identity experts return and constant ones mix: x before it was rounded
     */
    private void experts(
            Tensor x, Tensor identity, @Nullable Bank shared, @Nullable Tensor addend, Tensor y) {
        int last = config.numTokenTypes() - 1;
        Tensor base = addend;
        for (int type = 0; type <= last; type++) {
            RouterConfig rule = config.routers().get(type);
            Routing routing = routing(type);
            Tensor byInput = rule.weightOnInput() ? routing.topkWeights() : null;
            Tensor byOutput = rule.weightOnInput() ? null : routing.topkWeights();
            Bank bank = new Bank(weights.experts(config, type), routing, byInput, byOutput);
            base = addConstants(type, identity, routing, base);
            Tensor returned = config.numIdentityExperts() > 0 ? identity : null;
            Residual residual =
                    new Residual(base, returned, config.numExperts(), config.outputFactor());
            Tensor sum = type == last ? y : on.sum(tokens, x.dim(1));
            experts(x, bank, type == 0 ? shared : null, residual, sum);
            base = sum;
        }
    }

    /** What the routed experts are added to: also the constant experts, if there are any. */
    private @Nullable Tensor addConstants(
            int type, Tensor x, Routing routing, @Nullable Tensor addend) {
        if (config.numConstantExperts() == 0) {
            return addend;
        }
        Tensor sum = on.sum(tokens, x.dim(1));
        Residual residual = new Residual(addend, null, Integer.MAX_VALUE, config.outputFactor());
        ConstantExperts constants = weights.constants().get(type);
        kernels.constantExperts(x, routing, constants, config.firstConstant(), residual, sum);
        return sum;
    }

    private void experts(
            Tensor x, Bank routed, @Nullable Bank shared, Residual residual, Tensor y) {
        kernels.experts(x, routed, shared, residual, on.rowType(), on.scratch(), y);
    }
}
