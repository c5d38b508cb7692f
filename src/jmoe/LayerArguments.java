package jmoe;

import jmoe.ops.MoeConfig;
import jmoe.ops.Selection;
import jmoe.ops.TokenInputs;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/** Whether a forward pass is given what its layer computes with. */
final class LayerArguments {
    private LayerArguments() {}

    static void check(MoeConfig config, Tensor x, TokenInputs inputs, Tensor y) {
        Check.floating("x", x, "[tokens, hidden]", 2);
        long tokens = x.dim(0);
        Check.floatMatrix("x", x, "tokens", tokens, "hidden", config.hidden());
        Check.floatMatrix("y", y, "tokens", tokens, "hidden", config.hidden());
        Check.writable("y", y);
        Check.disjoint("y", y, "x", x);
        if (x.dtype() == DType.F64 || y.dtype() == DType.F64) {
            boolean input = x.dtype() == DType.F64;
            throw Check.mismatch(
                    input ? "x" : "y", "F32, F16 or BF16: a layer computes in F32", input ? x : y);
        }
        tokenTypes(inputs.tokenTypes(), config.numTokenTypes(), tokens);
        disjoint(y, "tokenTypes", inputs.tokenTypes());
        tokenIds(config, inputs.tokenIds(), tokens);
        disjoint(y, "tokenIds", inputs.tokenIds());
        protectedTokens(config, inputs.protectedTokens(), tokens);
        disjoint(y, "protectedTokens", inputs.protectedTokens());
    }

    private static void disjoint(Tensor y, String name, @Nullable Tensor input) {
        if (input != null) {
            Check.disjoint("y", y, name, input);
        }
    }

    private static void tokenTypes(@Nullable Tensor tokenTypes, int types, long tokens) {
        if (tokenTypes == null) {
            if (types > 1) {
                throw new IllegalArgumentException(
                        "tokenTypes: expected I32 [tokens="
                                + tokens
                                + "] for a layer with "
                                + types
                                + " token types, got none");
            }
            return;
        }
        Check.vector("tokenTypes", tokenTypes, DType.I32, "tokens", tokens);
        if (tokenTypes.isDevice()) {
            return;
        }
        for (long token = 0; token < tokens; token++) {
            int type = tokenTypes.getInt(token);
            if (type >= types) {
                throw new IllegalArgumentException(
                        "tokenTypes: expected at most "
                                + (types - 1)
                                + " (negative for an absent token), got "
                                + type
                                + " at token "
                                + token);
            }
        }
    }

    /** Whether a router of the layer looks up its tokens' ids. */
    static boolean readsIds(MoeConfig config) {
        return config.routers().stream().anyMatch(r -> r.selection() instanceof Selection.Hash);
    }

    /** Whether a router of the layer may drop tokens. */
    static boolean hasCapacity(MoeConfig config) {
        return config.routers().stream().anyMatch(r -> r.capacity() != null);
    }

    private static void tokenIds(MoeConfig config, @Nullable Tensor tokenIds, long tokens) {
        if (tokenIds == null) {
            if (readsIds(config)) {
                throw new IllegalArgumentException(
                        "tokenIds: expected I32 [tokens="
                                + tokens
                                + "] for a layer that routes by Hash, got none; give them as"
                                + " TokenInputs.NONE.withTokenIds(ids)");
            }
            return;
        }
        Check.vector("tokenIds", tokenIds, DType.I32, "tokens", tokens);
        if (!readsIds(config)) {
            throw new IllegalArgumentException(
                    "tokenIds: expected none for a layer that does not route by Hash, got "
                            + tokenIds);
        }
    }

    private static void protectedTokens(
            MoeConfig config, @Nullable Tensor protectedTokens, long tokens) {
        if (protectedTokens == null) {
            return;
        }
        Check.vector("protectedTokens", protectedTokens, DType.I32, "tokens", tokens);
        if (!hasCapacity(config)) {
            throw new IllegalArgumentException(
                    "protectedTokens: expected none for a layer without a capacity, which drops"
                            + " nobody, got "
                            + protectedTokens);
        }
    }
}
