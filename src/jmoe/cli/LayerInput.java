package jmoe.cli;

import jmoe.checkpoint.TensorFile;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.RouterConfig.Selection;
import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Floats;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;

/**
 * What a layer is run on.
 *
 * @param x F32, F16 or BF16 [tokens, hidden]
 * @param tokenTypes I32 [tokens], or null if the layer has one type
 */
record LayerInput(Tensor x, @Nullable Tensor tokenTypes) {
    /**
     * Reads the tensors named on the command line.
     *
     * @param config of the layer
     * @param input {@code FILE[:TENSOR]}
     * @param types {@code FILE[:TENSOR]}, or null if not given
     * @param arena owner of the memory
     * @throws IllegalArgumentException if they do not fit the layer
     * @throws jmoe.checkpoint.CheckpointException if they cannot be read
     */
    static LayerInput read(MoeConfig config, String input, @Nullable String types, Arena arena) {
        if (types == null && config.numTokenTypes() > 1) {
            throw new IllegalArgumentException(
                    "--token-types: the family "
                            + config.family()
                            + " has "
                            + config.numTokenTypes()
                            + " token types; give each token's as FILE:TENSOR");
        }
        if (types != null && config.numTokenTypes() == 1) {
            throw new IllegalArgumentException(
                    "--token-types: the family "
                            + config.family()
                            + " has one token type; leave the option out");
        }
        Tensor x = matrix(TensorFile.read(input, arena), config, arena);
        return new LayerInput(
                x, types == null ? null : types(TensorFile.read(types, arena), x.dim(0), arena));
    }

    private static Tensor matrix(Tensor stored, MoeConfig config, Arena arena) {
        int rank = stored.rank();
        if (!stored.dtype().isFloating()
                || rank < 1
                || rank > 3
                || stored.dim(rank - 1) != config.hidden()) {
            throw Check.mismatch(
                    "--input",
                    "F32, F16, BF16 or F64 [tokens, hidden=" + config.hidden() + "]",
                    stored);
        }
        if (rank == 3 && stored.dim(0) > 1 && mixesTokens(config)) {
            throw new IllegalArgumentException(
                    "--input: expected one sequence, got "
                            + stored.describe()
                            + "; tokens of a sequence depend on each other in the family "
                            + config.family()
                            + ", so run one sequence at a time");
        }
        long tokens = 1;
        for (int axis = 0; axis < rank - 1; axis++) {
            tokens *= stored.dim(axis);
        }
        Tensor x = stored.reshape(tokens, config.hidden());
        if (x.dtype() != DType.F64) {
            return x;
        }
        Tensor narrow = Tensor.allocate(arena, DType.F32, tokens, config.hidden());
        Floats.convert(x.data(), DType.F64, 0, narrow.data(), DType.F32, 0, x.numElements());
        return narrow;
    }

    /** Whether a token's result depends on the others. */
    private static boolean mixesTokens(MoeConfig config) {
        for (RouterConfig router : config.routers()) {
            if (router.capacity() != null || router.selection() instanceof Selection.ProductKeys) {
                return true;
            }
        }
        return false;
    }

    private static Tensor types(Tensor stored, long tokens, Arena arena) {
        if ((stored.dtype() != DType.I32 && stored.dtype() != DType.I64)
                || stored.numElements() != tokens) {
            throw Check.mismatch("--token-types", "I32 or I64 [tokens=" + tokens + "]", stored);
        }
        if (stored.dtype() == DType.I32) {
            return stored.reshape(tokens);
        }
        Tensor narrow = Tensor.allocate(arena, DType.I32, tokens);
        for (long token = 0; token < tokens; token++) {
            long type = stored.getLong(token);
            // What does not fit is not a type either; the layer names the token.
            narrow.setInt(token, Math.clamp(type, -1, Integer.MAX_VALUE));
        }
        return narrow;
    }
}
