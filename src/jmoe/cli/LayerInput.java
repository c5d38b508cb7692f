package jmoe.cli;

import jmoe.checkpoint.TensorFile;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.Selection;
import jmoe.tensor.DType;
import jmoe.tensor.Floats;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.nio.file.Path;

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
        Tensor stored = InputTensor.read(input, config.hidden(), arena);
        Tensor x = matrix(TensorFile.parse(input).file(), stored, config, arena);
        return new LayerInput(x, types == null ? null : types(types, config, x.dim(0), arena));
    }

    private static Tensor matrix(Path file, Tensor stored, MoeConfig config, Arena arena) {
        int rank = stored.rank();
        if (!stored.dtype().isFloating()
                || rank < 1
                || rank > 3
                || stored.dim(rank - 1) != config.hidden()) {
            throw new IllegalArgumentException(
                    "--input: "
                            + file
                            + ": expected F32, F16, BF16 or F64 [hidden], [tokens, hidden],"
                            + " [1, tokens, hidden] or [batch, tokens, hidden] with hidden="
                            + config.hidden()
                            + ", got "
                            + stored.describe());
        }
        if (rank == 3 && stored.dim(0) > 1 && mixesTokens(config)) {
            throw new IllegalArgumentException(
                    "--input: "
                            + file
                            + ": expected one sequence, got "
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
            if (router.capacity() != null
                    || router.choosesByBatch()
                    || router.selection() instanceof Selection.ProductKeys) {
                return true;
            }
        }
        return false;
    }

    private static Tensor types(String spec, MoeConfig config, long tokens, Arena arena) {
        Tensor stored = InputTensor.read(spec, tokens, arena);
        Path file = TensorFile.parse(spec).file();
        if ((stored.dtype() != DType.I32 && stored.dtype() != DType.I64)
                || stored.numElements() != tokens) {
            throw new IllegalArgumentException(
                    "--token-types: "
                            + file
                            + ": expected I32 or I64 [tokens], [1, tokens] or the input's shape"
                            + " without hidden, one type for each of "
                            + Units.plural(tokens, "token", "tokens")
                            + ", got "
                            + stored.describe());
        }
        Tensor types = Tensor.allocate(arena, DType.I32, tokens);
        for (long token = 0; token < tokens; token++) {
            long type = stored.dtype() == DType.I32 ? stored.getInt(token) : stored.getLong(token);
            if (type < 0 || type >= config.numTokenTypes()) {
                throw new IllegalArgumentException(
                        "--token-types: "
                                + file
                                + ": expected types from 0 to "
                                + (config.numTokenTypes() - 1)
                                + ", got "
                                + type
                                + " for token "
                                + token);
            }
            types.setInt(token, (int) type);
        }
        return types;
    }

    /** The input's first value that is not finite, and where, or null if all are. */
    @Nullable String firstNotFinite() {
        for (long i = 0; i < x.numElements(); i++) {
            double value = x.getDouble(i);
            if (!Double.isFinite(value)) {
                long hidden = x.dim(1);
                return value + " at token " + i / hidden + ", column " + i % hidden;
            }
        }
        return null;
    }
}
