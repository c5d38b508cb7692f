package jmoe.ops;

import jmoe.ops.Composed.Pieces;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/** What a router multiplies: x, or what the transforms of its rule make of it. */
final class RouterInput {
    private RouterInput() {}

    static Tensor of(
            Kernels kernels, Tensor x, Router router, Tensor expertOffsets, Pieces pieces) {
        Tensor input = x;
        for (InputTransform transform : router.rule().inputTransforms()) {
            input =
                    switch (transform) {
                        case InputTransform.Jitter j -> {
                            Tensor jittered = pieces.next(DType.F32, x.dim(0), x.dim(1));
                            kernels.jitter(input, j, router.noiseStep(), jittered);
                            yield jittered;
                        }
                        case InputTransform.Cosine c -> {
                            Tensor p = projected(kernels, input, router, expertOffsets, pieces);
                            Tensor direction = pieces.next(DType.F32, p.dim(0), p.dim(1));
                            kernels.normaliseRows(p, 1, c.epsilon(), direction);
                            yield direction;
                        }
                    };
        }
        return input;
    }

    private static Tensor projected(
            Kernels kernels, Tensor input, Router router, Tensor expertOffsets, Pieces pieces) {
        Tensor projection = router.weights().projection();
        if (projection == null) {
            return input;
        }
        Tensor projected = pieces.next(DType.F32, input.dim(0), projection.dim(1));
        kernels.groupedGemm(input, projection, null, expertOffsets, projected);
        return projected;
    }

    /** F32 elements of the pieces. */
    static long scratchElements(Router router, long tokens) {
        RouterWeights weights = router.weights();
        long elements = 0;
        for (InputTransform transform : router.rule().inputTransforms()) {
            long columns =
                    transform instanceof InputTransform.Jitter
                            ? weights.hidden()
                            : weights.weight().dim(2);
            boolean projects =
                    transform instanceof InputTransform.Cosine && weights.projection() != null;
            elements += (projects ? 2 : 1) * Composed.aligned(DType.F32, tokens * columns);
        }
        return elements;
    }

    /** The cosine of a rule, if it has one. */
    static InputTransform.@Nullable Cosine cosine(RouterConfig rule) {
        for (InputTransform transform : rule.inputTransforms()) {
            if (transform instanceof InputTransform.Cosine cosine) {
                return cosine;
            }
        }
        return null;
    }
}
