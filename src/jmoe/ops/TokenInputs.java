package jmoe.ops;

import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/**
 * What a layer or a router reads of its tokens besides x; each may be null where nobody asks for
 * it. {@code TokenInputs.NONE.withTokenIds(ids)} names what it gives.
 *
 * @param tokenTypes I32 [tokens], 0 to numTokenTypes - 1, negative for a token that is absent; null
 *     if there is one type and all tokens are there
 * @param tokenIds I32 [tokens], for {@link Selection.Hash}: numbers in the vocabulary
 * @param protectedTokens I32 [tokens], not 0 for a token that a {@link Capacity} must not drop;
 *     null if nobody is protected
 */
public record TokenInputs(
        @Nullable Tensor tokenTypes, @Nullable Tensor tokenIds, @Nullable Tensor protectedTokens) {
    /** There is x and nothing else. */
    public static final TokenInputs NONE = new TokenInputs(null, null, null);

    /**
     * Types and nothing else.
     *
     * @param types as {@link #tokenTypes}
     * @return the inputs
     */
    public static TokenInputs ofTypes(@Nullable Tensor types) {
        return NONE.withTokenTypes(types);
    }

    /**
     * These inputs with types of tokens.
     *
     * @param types as {@link #tokenTypes}
     * @return a copy
     */
    public TokenInputs withTokenTypes(@Nullable Tensor types) {
        return new TokenInputs(types, tokenIds, protectedTokens);
    }

    /**
     * These inputs with ids of tokens.
     *
     * @param ids as {@link #tokenIds}
     * @return a copy
     */
    public TokenInputs withTokenIds(@Nullable Tensor ids) {
        return new TokenInputs(tokenTypes, ids, protectedTokens);
    }

    /**
     * These inputs with tokens that are never dropped.
     *
     * @param mayNotDrop as {@link #protectedTokens}
     * @return a copy
     */
    public TokenInputs withProtectedTokens(@Nullable Tensor mayNotDrop) {
        return new TokenInputs(tokenTypes, tokenIds, mayNotDrop);
    }

    /**
     * What one of several routers reads of these.
     *
     * @param rule of the router
     * @return the same without ids where there is no hash, and without protected tokens where there
     *     is no capacity
     */
    public TokenInputs readBy(RouterConfig rule) {
        return new TokenInputs(
                tokenTypes,
                rule.selection() instanceof Selection.Hash ? tokenIds : null,
                rule.capacity() == null ? null : protectedTokens);
    }
}
