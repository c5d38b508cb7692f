package jmoe.cuda;

import jmoe.ops.Activation;
import jmoe.ops.ExpertWeights;
import jmoe.ops.RouterConfig;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Times the products on matrix units: both of the experts, the router's, and as a yardstick a dense
 * one. Each uses its own choice of tiles, and at some sizes every tile.
 */
final class ProductTimings {
    static final String ROUTER = "router";
    static final String DENSE = "dense";

    static final int[] TOKENS = {1, 8, 64, 512, 4096};
    static final int[] TILE_TOKENS = {64, 512, 4096};
    private static final int[] FEW_TOKENS = {1, 33};
    private static final int[] SMALLEST_TILE_TOKENS = {33};

    /** Where both 16-bit types are timed. */
    private static final int TYPES_TOKENS = 512;

    private static final int DENSE_SIZE = 8192;
    private static final int SMALLEST_DENSE_SIZE = 96;

    /** Of the device's memory, for weights; rows, copies and what others have need the rest. */
    private static final double WEIGHTS_SHARE = 0.75;

    private final CudaKernels kernels;
    private final DeviceTimer timer;
    private final TimingLog log;
    private final long seed;
    private final boolean smallest;

    /**
     * Nothing is timed yet.
     *
     * @param kernels where
     * @param timer of these kernels
     * @param log gets the results
     * @param seed of random numbers
     * @param smallest whether few elements of everything suffice
     */
    ProductTimings(
            CudaKernels kernels, DeviceTimer timer, TimingLog log, long seed, boolean smallest) {
        this.kernels = kernels;
        this.timer = timer;
        this.log = log;
        this.seed = seed;
        this.smallest = smallest;
    }

    void run() {
        try (Arena arena = Arena.ofShared()) {
            TimedOperands operands = new TimedOperands(kernels, arena, seed, !smallest);
            dense(operands);
            for (TimedShape shape : smallest ? List.of(TimedShape.SMALLEST) : TimedShape.MODELS) {
                layer(operands, shape);
            }
            operands.synchronise();
        }
    }

    private void dense(TimedOperands shared) {
        int size = smallest ? SMALLEST_DENSE_SIZE : DENSE_SIZE;
        TimedShape shape =
                new TimedShape(
                        "dense " + size + "^3", size, size, RouterConfig.softmaxTopK(1, 1, false));
        try (Arena arena = Arena.ofShared()) {
            TimedOperands operands = shared.in(arena);
            new Products(kernels, timer, log, shape, size, null, operands)
                    .single(DENSE, DType.BF16, DType.BF16, DType.BF16, size);
            shared.synchronise();
        }
    }

    /** The weights of a layer are made once for all batches. */
    private void layer(TimedOperands shared, TimedShape shape) {
        long weightBytes = weightBytes(shape);
        if (weightBytes > WEIGHTS_SHARE * kernels.device().memoryBytes()) {
            log.leaveOut(
                    String.format(
                            Locale.ROOT,
                            "the products of %s: %.1f GB of weights do not fit this device",
                            shape.model(),
                            weightBytes / 1e9));
            return;
        }
        try (Arena arena = Arena.ofShared()) {
            TimedOperands operands = shared.in(arena);
            List<ExpertWeights> weights = weights(operands, shape, DType.BF16);
            for (int tokens : smallest ? FEW_TOKENS : TOKENS) {
                both(kernels, timer, shape, tokens, null, weights, operands);
                router(shape, tokens, operands);
            }
            tiles(shape, weights, operands);
            shared.synchronise();
        }
        if (smallest || shape == TimedShape.QWEN3) {
            try (Arena arena = Arena.ofShared()) {
                TimedOperands operands = shared.in(arena);
                List<ExpertWeights> weights = weights(operands, shape, DType.F16);
                int tokens = smallest ? FEW_TOKENS[1] : TYPES_TOKENS;
                both(kernels, timer, shape, tokens, null, weights, operands);
                if (smallest) {
                    tiles(shape, weights, operands);
                }
                shared.synchronise();
            }
        }
    }

    private static long weightBytes(TimedShape shape) {
        return DType.BF16.numBytes(3L * shape.numExperts() * shape.intermediate() * shape.hidden());
    }

    /** So many layers that their weights do not fit the cache. */
    private List<ExpertWeights> weights(TimedOperands operands, TimedShape shape, DType type) {
        long cache = kernels.device().l2Bytes();
        // A third of them are those of down, which is timed alone.
        long downBytes = weightBytes(shape) / 3;
        int layers = downBytes > 3 * cache ? 1 : operands.sets(downBytes);
        long width = shape.intermediate();
        List<Tensor> gateUp =
                operands.random(layers, type, shape.numExperts(), 2 * width, shape.hidden());
        List<Tensor> down =
                operands.random(layers, type, shape.numExperts(), shape.hidden(), width);
        List<ExpertWeights> weights = new ArrayList<>();
        for (int layer = 0; layer < layers; layer++) {
            weights.add(
                    new ExpertWeights(
                            gateUp.get(layer), down.get(layer), null, null, Activation.SWIGLU));
        }
        return weights;
    }

    /** Kernels that use one tile each read the property once, when they are opened. */
    private void tiles(TimedShape shape, List<ExpertWeights> weights, TimedOperands operands) {
        boolean sm90 = kernels.device().capability() == 90;
        for (Tile tile : Tile.values()) {
            if (tile.family() == Tile.Family.SM90 && !sm90) {
                continue;
            }
            String before = System.getProperty(GroupedGemm.TILE_PROPERTY);
            System.setProperty(GroupedGemm.TILE_PROPERTY, tile.label());
            try (CudaKernels forced = new CudaKernels();
                    DeviceTimer forcedTimer = new DeviceTimer(forced, timer)) {
                for (int tokens : smallest ? SMALLEST_TILE_TOKENS : TILE_TOKENS) {
                    both(forced, forcedTimer, shape, tokens, tile, weights, operands);
                }
            } finally {
                if (before == null) {
                    System.clearProperty(GroupedGemm.TILE_PROPERTY);
                } else {
                    System.setProperty(GroupedGemm.TILE_PROPERTY, before);
                }
            }
        }
    }

    private void both(
            CudaKernels on,
            DeviceTimer onTimer,
            TimedShape shape,
            int tokens,
            @Nullable Tile tile,
            List<ExpertWeights> weights,
            TimedOperands shared) {
        try (Arena arena = Arena.ofShared()) {
            Products products =
                    new Products(on, onTimer, log, shape, tokens, tile, shared.in(arena));
            products.gateUp(weights);
            products.down(weights);
            shared.synchronise();
        }
    }

    private void router(TimedShape shape, int tokens, TimedOperands shared) {
        try (Arena arena = Arena.ofShared()) {
            Products products =
                    new Products(kernels, timer, log, shape, tokens, null, shared.in(arena));
            int experts = shape.numExperts();
            products.single(ROUTER, DType.BF16, DType.BF16, DType.F32, experts);
            products.single(ROUTER, DType.BF16, DType.F32, DType.F32, experts);
            shared.synchronise();
        }
    }
}
