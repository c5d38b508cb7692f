package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * The linear layer of a router, in the type it was trained in, whatever that of the experts:
 * routing decisions must not depend on how experts are stored.
 *
 * @param weight F32, F16 or BF16 [1, numLogits, H], one group of a grouped GEMM; [1, numLogits, P]
 *     behind a projection; empty for a hash, which has no logits
 * @param bias F32 [1, numLogits], added to the logits, or null
 * @param selectionBias F32 [numExperts], added to the scores for the selection only, or null
 * @param expertScale F32 [numExperts], multiplies the weights of the selected experts, or null
 * @param noiseWeight F32, F16 or BF16 of the shape of weight, makes the noise logits of {@link
 *     LogitTransform.LearnedNoise}; or null
 * @param projection F32, F16 or BF16 [1, P, H], which {@link InputTransform.Cosine} multiplies
 *     tokens by; or null
 * @param hashTable I32 [vocabulary, topK], experts by token id for {@link Selection.Hash}; or null
 */
public record RouterWeights(
        Tensor weight,
        @Nullable Tensor bias,
        @Nullable Tensor selectionBias,
        @Nullable Tensor expertScale,
        @Nullable Tensor noiseWeight,
        @Nullable Tensor projection,
        @Nullable Tensor hashTable) {
    /** Checks types and shapes against each other. */
    public RouterWeights {
        if (!isTrained(weight) || weight.rank() != 3 || weight.dim(0) != 1) {
            throw Check.mismatch("weight", "F32, F16 or BF16 [1, numLogits, hidden]", weight);
        }
        if (bias != null) {
            Check.matrix("bias", bias, DType.F32, "one", 1, "numLogits", weight.dim(1));
        }
        if (noiseWeight != null) {
            if (!isTrained(noiseWeight) || !Arrays.equals(noiseWeight.shape(), weight.shape())) {
                String shape = Arrays.toString(weight.shape());
                throw Check.mismatch(
                        "noiseWeight", "F32, F16 or BF16 " + shape + " as weight", noiseWeight);
            }
        }
        if (projection != null) {
            boolean matrix = projection.rank() == 3 && projection.dim(0) == 1;
            if (!isTrained(projection) || !matrix || projection.dim(1) != weight.dim(2)) {
                throw Check.mismatch(
                        "projection",
                        "F32, F16 or BF16 [1, " + weight.dim(2) + " as inputs of weight, hidden]",
                        projection);
            }
        }
    }

    /** Whether a tensor has one of the types that routers are trained in. */
    static boolean isTrained(Tensor weight) {
        return weight.dtype().isFloating() && weight.dtype() != DType.F64;
    }

    /** H, of the tokens that are routed. */
    long hidden() {
        return projection == null ? weight.dim(2) : projection.dim(2);
    }

    /** Refuses a projection that the rule would leave out. */
    void requireCosineFor(RouterConfig rule) {
        if (projection != null && RouterInput.cosine(rule) == null) {
            throw new IllegalArgumentException(
                    "projection: expected none because the rule has no Cosine, got "
                            + projection.describe()
                            + "; add the transform to the rule, or leave the projection out of"
                            + " RouterWeights");
        }
    }

    /** Refuses a rule that needs more than there is. */
    void requireNoiseFor(RouterConfig rule) {
        if (rule.learnsNoise() && noiseWeight == null) {
            throw new IllegalArgumentException(
                    "noiseWeight: expected F32, F16 or BF16 "
                            + Arrays.toString(weight.shape())
                            + " because the rule has LearnedNoise, got none; give it to"
                            + " RouterWeights, or take the transform out of the rule");
        }
    }

    /** Refuses a table that the rule does not read, or cannot. */
    void requireTableOf(RouterConfig rule) {
        boolean hash = rule.selection() instanceof Selection.Hash;
        if (hashTable != null && !hash) {
            throw new IllegalArgumentException(
                    "hashTable: expected none, because only Hash reads it, got " + hashTable);
        }
        RouteChecks.hashTable(rule, hashTable);
    }

    /**
     * A router that reads nothing but ids, and has no numbers but a table of them.
     *
     * @param hidden H
     * @param hashTable as {@link #hashTable}
     * @return weights for {@link Selection.Hash}
     */
    public static RouterWeights ofHash(long hidden, @Nullable Tensor hashTable) {
        Tensor none = Tensor.of(MemorySegment.NULL, DType.F32, 1, 0, hidden);
        return new RouterWeights(none, null, null, null, null, null, hashTable);
    }

    /**
     * A router without a projection and without a table.
     *
     * @param weight as {@link #weight}
     * @param bias as {@link #bias}
     * @param selectionBias as {@link #selectionBias}
     * @param expertScale as {@link #expertScale}
     * @param noiseWeight as {@link #noiseWeight}
     */
    public RouterWeights(
            Tensor weight,
            @Nullable Tensor bias,
            @Nullable Tensor selectionBias,
            @Nullable Tensor expertScale,
            @Nullable Tensor noiseWeight) {
        this(weight, bias, selectionBias, expertScale, noiseWeight, null, null);
    }

    /**
     * A router that scales no expert and learns no noise.
     *
     * @param weight as {@link #weight}
     * @param bias as {@link #bias}
     * @param selectionBias as {@link #selectionBias}
     */
    public RouterWeights(Tensor weight, @Nullable Tensor bias, @Nullable Tensor selectionBias) {
        this(weight, bias, selectionBias, null, null);
    }

    /**
     * Gives the rows of the weight the length 1, where the rule has an {@link
     * InputTransform.Cosine}: to be done once, before {@link #prepare}.
     *
     * @param rule of the router
     * @param kernels the backend; it must not have prepared the weight yet
     * @param arena owner of the new weight, which is F32 and where the old one is
     * @return this if the rule has no cosine
     */
    public RouterWeights normalised(RouterConfig rule, Kernels kernels, Arena arena) {
        InputTransform.Cosine cosine = RouterInput.cosine(rule);
        if (cosine == null) {
            return this;
        }
        if (weight.layout() != null) {
            throw new IllegalArgumentException(
                    "weight: expected row-major elements because the rule has a Cosine, got "
                            + weight.describe()
                            + " in the form of a backend; normalise the router before it is"
                            + " prepared");
        }
        long[] shape = {weight.dim(1), weight.dim(2)};
        Tensor unit =
                weight.isDevice()
                        ? kernels.allocate(arena, DType.F32, shape)
                        : Tensor.allocate(arena, DType.F32, shape);
        kernels.normaliseRows(weight.reshape(shape), 1, cosine.epsilon(), unit);
        return new RouterWeights(
                unit.reshape(weight.shape()),
                bias,
                selectionBias,
                expertScale,
                noiseWeight,
                projection,
                hashTable);
    }

    /**
     * Brings the router to where a backend computes, in the form that it computes with fastest.
     *
     * @param kernels the backend
     * @param arena owner of the memory of new forms
     * @return weights that do not need these any more, except where a backend takes them as they
     *     are
     */
    public RouterWeights prepare(Kernels kernels, Arena arena) {
        boolean empty = weight.numElements() == 0;
        return new RouterWeights(
                empty
                        ? kernels.allocate(arena, weight.dtype(), weight.shape())
                        : kernels.prepare(weight, arena),
                MoeWeights.copy(bias, kernels, arena),
                MoeWeights.copy(selectionBias, kernels, arena),
                MoeWeights.copy(expertScale, kernels, arena),
                MoeWeights.prepare(noiseWeight, kernels, arena),
                MoeWeights.prepare(projection, kernels, arena),
                MoeWeights.copy(hashTable, kernels, arena));
    }
}
