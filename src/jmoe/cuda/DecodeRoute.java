package jmoe.cuda;

import jmoe.ops.RouteInputs;
import jmoe.ops.Router;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/**
 * Routing and order in one kernel, for few tokens with the router's product in front. Of both the
 * last block to arrive does what needs all tokens.
 */
final class DecodeRoute {
    /** One block sorts; with more slots, several do that faster. */
    private static final long MAX_SORTED_SLOTS = 8192;

    /** Inputs of a block of decode_route, and tokens of one. */
    private static final int SHARE_INPUTS = 2048;

    private static final int GROUP_TOKENS = 16;

    private final CudaContext context;
    private final CudaModule module;
    private final @Nullable DecodePath forced;
    private final RouteRule rule = new RouteRule(Arena.ofAuto());

    /**
     * The kernels in a context.
     *
     * @param forced what {@link DecodePath#forced} says
     */
    DecodeRoute(CudaContext context, @Nullable DecodePath forced) {
        this.context = context;
        this.forced = forced;
        module = context.module("decode_route");
    }

    /**
     * Whether a rule can be applied to each token by itself, so that one kernel may go on to sort.
     */
    private static boolean isLocal(RouterConfig config) {
        return config.capacity() == null
                && RareRoute.isCommon(config)
                && !(config.selection() instanceof Selection.ProductKeys);
    }

    /** Whether nothing stands in front of the product, or between it and such a rule. */
    private static boolean isFusible(Router router) {
        return isLocal(router.rule())
                && router.rule().inputTransforms().isEmpty()
                && router.rule().logitTransforms().isEmpty()
                && router.activeExperts() == null
                && router.weights().expertScale() == null;
    }

    /** Whether {@link #queueSorted} does it. */
    static boolean sorts(RouterConfig config, RouteInputs inputs, Routing routing) {
        long slots = routing.topkIds().numElements();
        boolean plain = inputs.expertScale() == null && inputs.activeExperts() == null;
        return plain && isLocal(config) && slots > 0 && slots <= MAX_SORTED_SLOTS;
    }

    /** Whether {@link #queue} does it: always where it can, because it is one kernel for three. */
    boolean takes(Tensor x, Router router, Routing routing) {
        Tensor weight = router.weights().weight();
        Tensor gate = router.sharedGate();
        return forced != DecodePath.LARGE
                && isFusible(router)
                && DecodePath.suits(routing.tokens(), routing.topK(), x.dtype(), weight.dtype())
                && (gate == null || gate.dtype() == x.dtype());
    }

    /** F32 elements for the sums of shares of the inputs. */
    static long scratchElements(DType x, Router router, long tokens) {
        Tensor weight = router.weights().weight();
        long most = Math.min(tokens, DecodePath.MAX_TOKENS);
        boolean may = isFusible(router) && DecodePath.suits(most, 1, x, weight.dtype());
        return may ? shares(router) * most * rows(router) : 0;
    }

    private static long rows(Router router) {
        return (long) router.rule().numLogits() + (router.sharedGate() == null ? 0 : 1);
    }

    private static long shares(Router router) {
        long hidden = router.weights().weight().dim(2);
        return Math.max(1, Math.ceilDiv(hidden, (long) SHARE_INPUTS));
    }

    /** The product, the gate of the shared expert, the rule and the order. */
    void queue(
            Operands on,
            Tensor x,
            Router router,
            @Nullable Tensor tokenTypes,
            Routing dense,
            Tensor scratch,
            Tensor logits,
            Routing routing) {
        int tokens = (int) routing.tokens();
        CudaKernel kernel =
                module.kernel(x.dtype() == DType.BF16 ? "decode_route_bf16" : "decode_route_f16");
        long groups = Math.ceilDiv(tokens, GROUP_TOKENS);
        Tensor gate = router.sharedGate();
        Launch launch =
                context.launch()
                        .of(kernel)
                        .pointer(on.in(x))
                        .pointer(on.in(router.weights().weight()))
                        .pointer(on.in(router.weights().bias()))
                        .pointer(on.in(gate))
                        .pointer(on.in(router.weights().selectionBias()))
                        .pointer(on.in(tokenTypes))
                        .pointer(on.in(dense.expertOffsets()) + Integer.BYTES)
                        .pointer(on.scratch(scratch))
                        .pointer(on.out(logits))
                        .pointer(on.out(routing.topkIds()))
                        .pointer(on.out(routing.topkWeights()))
                        .pointer(gate == null ? 0 : on.out(dense.topkWeights()));
        passOrder(on, launch, routing);
        launch.pointer(context.arrivals().address(groups + 1))
                .int32(tokens)
                .int32(Launch.int32("hidden", x.dim(1)))
                .int32(routing.numExperts())
                .struct(rule.of(router.rule()), RouteRule.ALIGNMENT)
                .run(kernel.blocks(rows(router)) * shares(router), groups);
    }

    /** The rule and the order, for logits that are there. */
    void queueSorted(
            Operands on, Tensor logits, RouterConfig config, RouteInputs inputs, Routing routing) {
        int tokens = (int) routing.tokens();
        CudaKernel kernel = module.kernel("route_sort");
        Launch launch =
                context.launch()
                        .of(kernel)
                        .pointer(on.in(logits))
                        .pointer(on.in(inputs.selectionBias()))
                        .pointer(on.in(inputs.tokenTypes()))
                        .pointer(on.out(routing.topkIds()))
                        .pointer(on.out(routing.topkWeights()));
        passOrder(on, launch, routing);
        launch.pointer(context.arrivals().address(1))
                .int32(tokens)
                .int32(routing.numExperts())
                .struct(rule.of(config), RouteRule.ALIGNMENT)
                .run(kernel.blocks(tokens));
    }

    private static void passOrder(Operands on, Launch launch, Routing routing) {
        launch.pointer(on.out(routing.tokensPerExpert()))
                .pointer(on.out(routing.expertOffsets()))
                .pointer(on.rowsOut(routing.rowToSlot()))
                .pointer(on.out(routing.slotToRow()));
    }
}
