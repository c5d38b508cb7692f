package jmoe.checkpoint;

import jmoe.ops.Activation;
import jmoe.ops.MoeConfig;

import org.jspecify.annotations.Nullable;

import java.util.ArrayList;
import java.util.List;

/**
 * Where the numbers of one MoE block are: every tensor of {@link jmoe.ops.MoeWeights}, as pieces of
 * stored tensors. Only names and shapes; nothing is read.
 *
 * @param config what the block computes
 * @param routers one per token type
 * @param experts one bank per token type
 * @param shared the shared expert, or null
 * @param sharedGate its gate, or null
 * @param latentIn projection before the routed experts, or null
 * @param latentOut projection after them, or null
 * @param outputBias bias of the output, or null
 */
record MoeBlock(
        MoeConfig config,
        List<Router> routers,
        List<Bank> experts,
        @Nullable Bank shared,
        @Nullable Part sharedGate,
        @Nullable Part latentIn,
        @Nullable Part latentOut,
        @Nullable Part outputBias) {

    /**
     * Part of a stored tensor, to be read row by row: element (r, c) is at {@code offset + r
     * rowStride + c columnStride}.
     *
     * @param name stored tensor
     * @param storedShape what its shape must be
     * @param offset of the first element
     * @param rows number of rows
     * @param columns elements of a row
     * @param rowStride elements from row to row
     * @param columnStride elements from column to column
     */
    record Piece(
            String name,
            long[] storedShape,
            long offset,
            long rows,
            long columns,
            long rowStride,
            long columnStride) {}

    /**
     * A tensor in the layout of the operations.
     *
     * @param shape its dimensions
     * @param pieces what fills it, one after the other
     */
    record Part(long[] shape, List<Piece> pieces) {
        /** Product of the dimensions. */
        long elements() {
            long elements = 1;
            for (long dim : shape) {
                elements = Math.multiplyExact(elements, dim);
            }
            return elements;
        }
    }

    /** A router, see {@link jmoe.ops.RouterWeights}. */
    record Router(Part weight, @Nullable Part bias, @Nullable Part selectionBias) {
        List<Part> parts() {
            List<Part> parts = new ArrayList<>();
            add(parts, weight, bias, selectionBias);
            return parts;
        }
    }

    /** A bank of experts, see {@link jmoe.ops.ExpertWeights}. */
    record Bank(
            Part gateUp,
            Part down,
            @Nullable Part gateUpBias,
            @Nullable Part downBias,
            Activation activation) {
        long elements() {
            return gateUp.elements()
                    + down.elements()
                    + MoeBlock.elements(gateUpBias)
                    + MoeBlock.elements(downBias);
        }
    }

    /** All parts. */
    List<Part> parts() {
        List<Part> parts = new ArrayList<>();
        for (Router router : routers) {
            parts.addAll(router.parts());
        }
        for (Bank bank : experts) {
            add(parts, bank.gateUp, bank.down, bank.gateUpBias, bank.downBias);
        }
        if (shared != null) {
            add(parts, shared.gateUp, shared.down, shared.gateUpBias, shared.downBias);
        }
        add(parts, sharedGate, latentIn, latentOut, outputBias);
        return parts;
    }

    /** Elements of all parts. */
    long totalElements() {
        long elements = 0;
        for (Part part : parts()) {
            elements += part.elements();
        }
        return elements;
    }

    /** Elements that are loaded in the type of the experts: their matrices and the latent ones. */
    long expertElements() {
        long elements = elements(latentIn) + elements(latentOut);
        for (Bank bank : experts) {
            elements += bank.gateUp.elements() + bank.down.elements();
        }
        return shared == null
                ? elements
                : elements + shared.gateUp.elements() + shared.down.elements();
    }

    /** Elements that a token of the first type uses, at most. */
    long activeElements() {
        Router router = routers.getFirst();
        long expert = experts.getFirst().elements() / config.numExperts();
        return elements(router.weight)
                + elements(router.bias)
                + elements(router.selectionBias)
                + expert * Math.min(config.topK(), config.numExperts())
                + (shared == null ? 0 : shared.elements())
                + elements(sharedGate)
                + elements(latentIn)
                + elements(latentOut)
                + elements(outputBias);
    }

    private static long elements(@Nullable Part part) {
        return part == null ? 0 : part.elements();
    }

    private static void add(List<Part> parts, @Nullable Part... more) {
        for (Part part : more) {
            if (part != null) {
                parts.add(part);
            }
        }
    }
}
