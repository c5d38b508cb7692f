package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Activation;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.RouteInputs;
import jmoe.ops.RouterConfig;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.lang.foreign.Arena;
import java.util.Random;

/** All operations after each other, on tensors of the host or of a device. */
final class SmallLayer {
    static final int TOKENS = 9;
    static final int HIDDEN = 20;
    static final int INTERMEDIATE = 12;
    static final int EXPERTS = 5;
    static final int TOP_K = 2;

    private static final RouterConfig CONFIG = RouterConfig.softmaxTopK(EXPERTS, TOP_K, true);

    private final Arena arena;
    private final CudaKernels kernels;
    private final boolean onDevice;
    private final Tensor x;
    private final Tensor router;
    private final Tensor gateUp;
    private final Tensor down;
    private final Tensor logits;
    private final Tensor rows;
    private final Tensor inner;
    private final Tensor activated;
    private final Tensor expertRows;
    private final Tensor dense;
    private final Tensor y;
    private final Routing routing;

    SmallLayer(CudaKernels kernels, Arena arena, boolean onDevice) {
        this.arena = arena;
        this.kernels = kernels;
        this.onDevice = onDevice;
        long slots = (long) TOKENS * TOP_K;
        x = allocate(DType.BF16, TOKENS, HIDDEN);
        router = random(1, allocate(DType.F32, 1, EXPERTS, HIDDEN));
        gateUp = random(2, allocate(DType.BF16, EXPERTS, 2 * INTERMEDIATE, HIDDEN));
        down = random(3, allocate(DType.F16, EXPERTS, HIDDEN, INTERMEDIATE));
        logits = allocate(DType.F32, TOKENS, EXPERTS);
        rows = allocate(DType.BF16, slots, HIDDEN);
        inner = allocate(DType.F32, slots, 2 * INTERMEDIATE);
        activated = allocate(DType.BF16, slots, INTERMEDIATE);
        expertRows = allocate(DType.F32, slots, HIDDEN);
        y = allocate(DType.F32, TOKENS, HIDDEN);
        dense = allocate(DType.I32, 2);
        Tensor offsets = Tensor.allocate(arena, DType.I32, 2);
        offsets.setInt(1, TOKENS);
        set(dense, offsets);
        routing =
                new Routing(
                        allocate(DType.I32, TOKENS, TOP_K),
                        allocate(DType.F32, TOKENS, TOP_K),
                        allocate(DType.I32, EXPERTS),
                        allocate(DType.I32, EXPERTS + 1),
                        allocate(DType.I32, slots),
                        allocate(DType.I32, TOKENS, TOP_K));
        setInput(4);
    }

    private Tensor allocate(DType dtype, long... shape) {
        return onDevice
                ? kernels.allocate(arena, dtype, shape)
                : Tensor.allocate(arena, dtype, shape);
    }

    private void set(Tensor to, Tensor host) {
        if (onDevice) {
            kernels.copy(host, to);
        } else {
            to.data().copyFrom(host.data());
        }
    }

    private Tensor random(long seed, Tensor tensor) {
        Random random = new Random(seed);
        Tensor host = Tensor.allocate(arena, tensor.dtype(), tensor.shape());
        for (long i = 0; i < host.numElements(); i++) {
            host.setDouble(i, random.nextGaussian());
        }
        set(tensor, host);
        return tensor;
    }

    /** Another batch of tokens in the same memory. */
    void setInput(long seed) {
        random(seed, x);
    }

    /** Calls the operations. */
    void run() {
        run(kernels);
    }

    private void run(Kernels on) {
        Tensor offsets = routing.expertOffsets();
        on.groupedGemm(x, router, null, dense, logits);
        on.route(logits, CONFIG, RouteInputs.NONE, routing);
        on.sortByExpert(routing);
        on.permute(x, routing, null, rows);
        on.groupedGemm(rows, gateUp, null, offsets, inner);
        on.swiglu(inner, Activation.SWIGLU, offsets, activated);
        on.groupedGemm(activated, down, null, offsets, expertRows);
        on.unpermute(expertRows, routing, routing.topkWeights(), Residual.of(x), y);
    }

    Tensor output() {
        return y;
    }

    /** The output's bytes. */
    byte[] result() {
        if (!onDevice) {
            return y.data().toArray(JAVA_BYTE);
        }
        try (Arena own = Arena.ofConfined()) {
            Tensor host = Tensor.allocate(own, y.dtype(), y.shape());
            kernels.copy(y, host);
            return host.data().toArray(JAVA_BYTE);
        }
    }

    /** What a backend that nothing happens to computes. */
    static byte[] compute(boolean onDevice) {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofConfined()) {
            return compute(kernels, arena, onDevice);
        }
    }

    static byte[] compute(CudaKernels kernels, Arena arena, boolean onDevice) {
        SmallLayer layer = new SmallLayer(kernels, arena, onDevice);
        layer.run();
        return layer.result();
    }
}
