package jmoe.ops;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * What {@link Kernels#route} reads besides the logits; each may be null where the rule does not ask
 * for it. {@code RouteInputs.NONE.withTokenTypes(types)} names what it gives.
 *
 * @param selectionBias F32 [numExperts], added to the scores for the selection only; or null for 0.
 *     Experts with +infinity are chosen by every token, each with the weight that its score gives
 *     it: so are the shared experts of a joint softmax (Uni-MoE-Audio)
 * @param tokenTypes I32 [tokens]; a token of negative type is absent. Null if all are there and the
 *     router serves every type
 * @param expertScale F32 [numExperts], finite: multiplies the weight of a slot by that of its
 *     expert, after everything else (Pangu Pro MoE); or null for 1. Dropped slots stay 0
 * @param activeExperts I32 [numExperts]; an expert whose entry is 0 is never selected and is in no
 *     softmax or group, as if it were not there (pruning, curricula). With fewer active experts
 *     than K, slots are left empty. Not with product keys, SparseMixer, Hash, a rule that
 *     {@linkplain RouterConfig#choosesByBatch chooses by batch} or {@link Capacity.Overflow.Ring}.
 *     Null if all are active
 * @param tokenIds I32 [tokens], for {@link Selection.Hash}; else null
 * @param hashTable I32 [vocabulary, topK], expert ids for {@link Selection.Hash}; or null
 * @param protectedTokens I32 [tokens], for a {@link RouterConfig#capacity} only: the slots of a
 *     token whose entry is not 0 are never dropped, as {@link Capacity} says. Null if nobody is
 *     protected
 */
public record RouteInputs(
        @Nullable Tensor selectionBias,
        @Nullable Tensor tokenTypes,
        @Nullable Tensor expertScale,
        @Nullable Tensor activeExperts,
        @Nullable Tensor tokenIds,
        @Nullable Tensor hashTable,
        @Nullable Tensor protectedTokens) {
    /** Logits are all there is. */
    public static final RouteInputs NONE = new RouteInputs(null, null);

    /**
     * A bias and types, and nothing else.
     *
     * @param selectionBias as {@link #selectionBias}
     * @param tokenTypes as {@link #tokenTypes}
     */
    public RouteInputs(@Nullable Tensor selectionBias, @Nullable Tensor tokenTypes) {
        this(selectionBias, tokenTypes, null, null, null, null, null);
    }

    /**
     * These inputs with a selection bias.
     *
     * @param bias as {@link #selectionBias}
     * @return a copy
     */
    public RouteInputs withSelectionBias(@Nullable Tensor bias) {
        return new RouteInputs(
                bias, tokenTypes, expertScale, activeExperts, tokenIds, hashTable, protectedTokens);
    }

    /**
     * These inputs with types of tokens.
     *
     * @param types as {@link #tokenTypes}
     * @return a copy
     */
    public RouteInputs withTokenTypes(@Nullable Tensor types) {
        return new RouteInputs(
                selectionBias,
                types,
                expertScale,
                activeExperts,
                tokenIds,
                hashTable,
                protectedTokens);
    }

    /**
     * These inputs with a factor for each expert.
     *
     * @param scale as {@link #expertScale}
     * @return a copy
     */
    public RouteInputs withExpertScale(@Nullable Tensor scale) {
        return new RouteInputs(
                selectionBias,
                tokenTypes,
                scale,
                activeExperts,
                tokenIds,
                hashTable,
                protectedTokens);
    }

    /**
     * These inputs with a choice of experts.
     *
     * @param active as {@link #activeExperts}
     * @return a copy
     */
    public RouteInputs withActiveExperts(@Nullable Tensor active) {
        return new RouteInputs(
                selectionBias,
                tokenTypes,
                expertScale,
                active,
                tokenIds,
                hashTable,
                protectedTokens);
    }

    /**
     * These inputs with what a hash reads.
     *
     * @param ids as {@link #tokenIds}
     * @param table as {@link #hashTable}
     * @return a copy
     */
    public RouteInputs withTokenIds(@Nullable Tensor ids, @Nullable Tensor table) {
        return new RouteInputs(
                selectionBias, tokenTypes, expertScale, activeExperts, ids, table, protectedTokens);
    }

    /**
     * These inputs with tokens that are never dropped.
     *
     * @param mayNotDrop as {@link #protectedTokens}
     * @return a copy
     */
    public RouteInputs withProtectedTokens(@Nullable Tensor mayNotDrop) {
        return new RouteInputs(
                selectionBias,
                tokenTypes,
                expertScale,
                activeExperts,
                tokenIds,
                hashTable,
                mayNotDrop);
    }

    /**
     * What a router and its tokens say.
     *
     * @param router weights, and which experts are active
     * @param tokens what is known of them
     * @return what {@link Kernels#route} reads of both
     */
    public static RouteInputs of(Router router, TokenInputs tokens) {
        RouterWeights weights = router.weights();
        return new RouteInputs(
                weights.selectionBias(),
                tokens.tokenTypes(),
                weights.expertScale(),
                router.activeExperts(),
                tokens.tokenIds(),
                weights.hashTable(),
                tokens.protectedTokens());
    }

    /**
     * The tensors that are there.
     *
     * @return by their names, in a map of the caller's own
     */
    public Map<String, Tensor> named() {
        Map<String, Tensor> named = new LinkedHashMap<>();
        put(named, "selectionBias", selectionBias);
        put(named, "tokenTypes", tokenTypes);
        put(named, "expertScale", expertScale);
        put(named, "activeExperts", activeExperts);
        put(named, "tokenIds", tokenIds);
        put(named, "hashTable", hashTable);
        put(named, "protectedTokens", protectedTokens);
        return named;
    }

    private static void put(Map<String, Tensor> named, String name, @Nullable Tensor tensor) {
        if (tensor != null) {
            named.put(name, tensor);
        }
    }
}
