package jmoe.ops;

import jmoe.ops.Cases.Case;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/**
 * What {@link Kernels#router} is given.
 *
 * @param x tokens
 * @param router layer, rule and gate
 * @param types of tokens, or null
 * @param dense which tokens there are
 */
record RouterProblem(Tensor x, Router router, @Nullable Tensor types, Routing dense) {
    /**
     * What comes out.
     *
     * @param logits of the linear layer
     * @param routing all of it
     */
    record Results(Tensor logits, Routing routing) {}

    static RouterProblem of(Arena arena, Case c, DType type, RouterConfig rule) {
        Tensor x = Cases.normal(arena, type, c.seed(), c.tokens(), c.hidden());
        Tensor weight = Cases.normal(arena, type, 2, 1, rule.numLogits(), c.hidden());
        // Scores that saturate are as good as equal.
        for (long i = 0; i < weight.numElements(); i++) {
            weight.setDouble(i, weight.getDouble(i) / Math.sqrt(c.hidden()));
        }
        Router router = new Router(rule, new RouterWeights(weight, null, null), null);
        return new RouterProblem(x, router, null, dense(arena, c.tokens()));
    }

    private static Routing dense(Arena arena, long tokens) {
        Routing dense = Routing.allocate(arena, tokens, 1, 1);
        Cases.sort(dense);
        return dense;
    }

    private RouterProblem withRouter(Router other) {
        return new RouterProblem(x, other, types, dense);
    }

    RouterProblem withX(Arena arena, DType type) {
        Tensor other = Cases.normal(arena, type, 5, x.shape());
        return new RouterProblem(other, router, types, dense);
    }

    RouterProblem biased() {
        Arena arena = Arena.ofAuto();
        RouterConfig rule = router.rule();
        Tensor bias = Cases.normal(arena, DType.F32, 3, 1, rule.numLogits());
        Tensor selectionBias = Cases.normal(arena, DType.F32, 4, rule.numExperts());
        RouterWeights weights = new RouterWeights(router.weights().weight(), bias, selectionBias);
        return withRouter(new Router(rule, weights, router.sharedGate()));
    }

    RouterProblem scaled() {
        RouterConfig rule = router.rule();
        Tensor scale = Cases.normal(Arena.ofAuto(), DType.F32, 8, rule.numExperts());
        RouterWeights weights =
                new RouterWeights(router.weights().weight(), null, null, scale, null);
        return withRouter(new Router(rule, weights, router.sharedGate()));
    }

    RouterProblem withGate(DType type) {
        Tensor gate = Cases.normal(Arena.ofAuto(), type, 6, 1, 1, x.dim(1));
        return withRouter(new Router(router.rule(), router.weights(), gate));
    }

    RouterProblem withTypes() {
        Tensor some = Tensor.allocate(Arena.ofAuto(), DType.I32, x.dim(0));
        for (int token = 0; token < some.numElements(); token++) {
            some.setInt(token, token % 3 == 2 ? -1 : 0);
        }
        return new RouterProblem(x, router, some, dense);
    }

    RouterProblem first(Arena arena, long tokens) {
        return new RouterProblem(x.slice(0, tokens), router, null, dense(arena, tokens));
    }

    private Routing routing(Arena arena) {
        RouterConfig rule = router.rule();
        return Routing.allocate(arena, x.dim(0), rule.topK(), rule.numExperts());
    }

    boolean fusedBy(Kernels kernels) {
        return kernels.fusesRouter(x, router, routing(Arena.ofAuto()));
    }

    Results run(Arena arena, Kernels kernels) {
        return run(arena, kernels, 0);
    }

    Results run(Arena arena, Kernels kernels, long moreElements) {
        Routing routing = routing(arena);
        Tensor logits = Tensor.allocate(arena, DType.F32, x.dim(0), router.rule().numLogits());
        long elements = kernels.routerScratch(x.dtype(), router, x.dim(0)) + moreElements;
        Tensor scratch = Poisoned.allocate(arena, DType.F32, elements).tensor();
        for (Tensor output : Invocation.named(routing).values()) {
            Poisoned.fill(output);
        }
        Poisoned.fill(logits);
        kernels.router(x, router, TokenInputs.ofTypes(types), dense, scratch, logits, routing);
        return new Results(logits, routing);
    }

    @Override
    public String toString() {
        return "x %s, %s".formatted(x.describe(), router);
    }
}
