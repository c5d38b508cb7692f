package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_DOUBLE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import jmoe.ops.LogitTransform;
import jmoe.ops.RouterConfig;
import jmoe.ops.ShapeInputs;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/** {@code logits[t] = f_n(.. f_1(logits[t]))}, a warp per token. */
final class ShapeLogits {
    private static final long HEAD_BYTES = 8;
    private static final long ENTRY_BYTES = 24;
    private static final long BYTES = HEAD_BYTES + ENTRY_BYTES * RouterConfig.MAX_TRANSFORMS;
    private static final long ALIGNMENT = 8;

    private final CudaContext context;
    private final CudaModule module;

    /** LogitTransforms of kernels/shape_logits.cu. */
    private final MemorySegment struct = Arena.ofAuto().allocate(BYTES, ALIGNMENT);

    ShapeLogits(CudaContext context) {
        this.context = context;
        module = context.module("shape_logits");
    }

    void queue(Operands on, Tensor logits, RouterConfig config, ShapeInputs inputs) {
        int tokens = Launch.int32("tokens", logits.dim(0));
        write(config);
        CudaKernel kernel = module.kernel("shape_logits");
        context.launch()
                .of(kernel)
                .pointer(on.inOut(logits))
                .pointer(on.in(inputs.tokenTypes()))
                .pointer(on.in(inputs.noiseLogits()))
                .pointer(on.in(inputs.step()))
                .int32(tokens)
                .int32(config.numExperts())
                .struct(struct, ALIGNMENT)
                .run(kernel.blocks(tokens));
    }

    private void write(RouterConfig config) {
        List<LogitTransform> transforms = config.logitTransforms();
        struct.fill((byte) 0);
        struct.set(JAVA_INT, 0, transforms.size());
        struct.set(JAVA_INT, 4, config.tokenType());
        for (int place = 0; place < transforms.size(); place++) {
            MemorySegment entry = struct.asSlice(HEAD_BYTES + ENTRY_BYTES * place, ENTRY_BYTES);
            switch (transforms.get(place)) {
                case LogitTransform.Temperature t -> write(entry, 0, t.tau(), 0);
                case LogitTransform.Standardise s -> write(entry, 1, s.lambda(), 0);
                case LogitTransform.Cap c -> write(entry, 2, c.limit(), 0);
                case LogitTransform.FixedNoise n -> write(entry, 3, n.deviation(), n.seed());
                case LogitTransform.LearnedNoise n -> write(entry, 4, 0, n.seed());
                case LogitTransform.GumbelNoise n -> write(entry, 5, n.factor(), n.seed());
            }
        }
    }

    private static void write(MemorySegment entry, int kind, double number, long seed) {
        entry.set(JAVA_DOUBLE, 0, number);
        entry.set(JAVA_LONG, 8, seed);
        entry.set(JAVA_INT, 16, kind);
    }
}
