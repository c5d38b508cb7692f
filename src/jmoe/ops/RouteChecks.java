package jmoe.ops;

import jmoe.tensor.Check;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

/** Whether {@link RouteInputs} are what a {@link RouterConfig} reads. */
final class RouteChecks {
    private RouteChecks() {}

    static void inputs(RouterConfig config, RouteInputs inputs, long tokens) {
        long numExperts = config.numExperts();
        Tensor selectionBias = inputs.selectionBias();
        if (selectionBias != null) {
            Check.vector("selectionBias", selectionBias, DType.F32, "numExperts", numExperts);
        }
        Tensor expertScale = inputs.expertScale();
        if (expertScale != null) {
            Check.vector("expertScale", expertScale, DType.F32, "numExperts", numExperts);
        }
        activeExperts(config, inputs.activeExperts());
        protectedTokens(config, inputs, tokens);
        hash(config, inputs, tokens);
    }

    static void activeExperts(RouterConfig config, @Nullable Tensor active) {
        if (active != null) {
            Check.vector("activeExperts", active, DType.I32, "numExperts", config.numExperts());
            Selection selection = config.selection();
            if (selection instanceof Selection.ProductKeys
                    || selection instanceof Selection.SparseMixer
                    || selection instanceof Selection.Hash
                    || config.choosesByBatch()) {
                throw new IllegalArgumentException(
                        "activeExperts: expected none with " + selection + ", got " + active);
            }
            Capacity capacity = config.capacity();
            if (capacity != null && capacity.overflow() instanceof Capacity.Overflow.Ring) {
                throw new IllegalArgumentException(
                        "activeExperts: expected none with overflow "
                                + capacity.overflow()
                                + ", which may move slots to any expert; take Drop or NextChoice,"
                                + " got "
                                + active);
            }
        }
    }

    private static void protectedTokens(RouterConfig config, RouteInputs inputs, long tokens) {
        Tensor protectedTokens = inputs.protectedTokens();
        if (protectedTokens == null) {
            return;
        }
        Check.vector("protectedTokens", protectedTokens, DType.I32, "tokens", tokens);
        if (config.capacity() == null) {
            throw new IllegalArgumentException(
                    "protectedTokens: expected none without a capacity, which alone drops tokens,"
                            + " got "
                            + protectedTokens);
        }
    }

    private static void hash(RouterConfig config, RouteInputs inputs, long tokens) {
        Tensor ids = inputs.tokenIds();
        Tensor table = inputs.hashTable();
        if (!(config.selection() instanceof Selection.Hash)) {
            if (ids != null || table != null) {
                throw new IllegalArgumentException(
                        (ids != null ? "tokenIds" : "hashTable")
                                + ": expected none, because only Hash reads it, got "
                                + (ids != null ? ids : table));
            }
            return;
        }
        if (ids == null) {
            throw new IllegalArgumentException(
                    "tokenIds: expected I32 [tokens=" + tokens + "] with Hash, got none");
        }
        Check.vector("tokenIds", ids, DType.I32, "tokens", tokens);
        hashTable(config, table);
    }

    static void hashTable(RouterConfig config, @Nullable Tensor table) {
        if (table != null) {
            if (table.rank() != 2) {
                throw Check.mismatch(
                        "hashTable", "I32 [vocabulary, topK=" + config.topK() + "]", table);
            }
            Check.matrix(
                    "hashTable",
                    table,
                    DType.I32,
                    "vocabulary",
                    table.dim(0),
                    "topK",
                    config.topK());
        }
    }
}
