package jmoe.nativecpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Activation;
import jmoe.ops.Activation.Kind;
import jmoe.ops.Cases;
import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.ExpertWeights;
import jmoe.ops.GuardedMemory;
import jmoe.ops.Kernels;
import jmoe.ops.Routing;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;
import jmoe.vector.VectorKernels;

import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;

/** Whose memory is used how long, and what other threads do to it meanwhile. */
class NativeMemoryTest {
    private static Kernels kernels(int threads) {
        return NativeKernelsTest.kernels(BuiltLibrary.EMULATED.open(), threads);
    }

    private static ExpertWeights experts(
            Arena arena, Kind kind, DType type, int hidden, int inner) {
        Activation activation = Activation.of(kind);
        long columns = (long) GroupedGemm.parts(activation) * inner;
        return new ExpertWeights(
                Cases.normal(arena, type, 1, 4, columns, hidden),
                Cases.normal(arena, type, 2, 4, hidden, inner),
                Cases.normal(arena, DType.F32, 3, 4, columns),
                Cases.normal(arena, DType.F32, 4, 4, hidden),
                activation);
    }

    /** Weights of several megabytes lie in memory of their own, whatever the arena. */
    @Test
    void prepare_ofLargeWeightsWorksInEveryKindOfArena() {
        try (Kernels kernels = kernels(2);
                Arena arena = Arena.ofConfined()) {
            Tensor weight = Cases.normal(arena, DType.BF16, 1, 3, 700, 1100);
            Tensor x = Cases.normal(arena, DType.BF16, 2, 7, 1100);
            Tensor want = Tensor.allocate(arena, DType.F32, 7, 700);
            Tensor got = Tensor.allocate(arena, DType.F32, 7, 700);
            Tensor offsets = Cases.offsets(arena, 2, 1, 4);
            kernels.groupedGemm(x, weight, null, offsets, want);
            Arena collected = Arena.ofAuto();
            for (Arena owner : List.of(collected, Arena.ofConfined(), Arena.ofShared())) {
                Tensor prepared = kernels.prepare(weight, owner);
                assertThat(prepared.toString()).endsWith("in panels of 16 columns");
                kernels.groupedGemm(x, prepared, null, offsets, got);
                assertThat(got.data().mismatch(want.data())).isEqualTo(-1);
                if (owner != collected) {
                    owner.close();
                    assertThatThrownBy(() -> kernels.groupedGemm(x, prepared, null, offsets, got))
                            .isInstanceOf(IllegalStateException.class)
                            .hasMessageStartingWith("weight: its arena is closed");
                }
            }
        }
    }

    /** Packing writes every byte of the panels and none beside them. */
    @ParameterizedTest
    @EnumSource
    void prepare_staysWithinThePanels(Tier tier) {
        Assumptions.assumeTrue(GuardedMemory.available());
        NativeLibrary library = BuiltLibrary.EMULATED.open(tier);
        try (Kernels kernels = NativeKernelsTest.kernels(library, 2);
                GuardedMemory guarded = new GuardedMemory();
                Arena arena = Arena.ofConfined()) {
            Arena poisoned =
                    new Arena() {
                        @Override
                        public MemorySegment allocate(long bytes, long alignment) {
                            return guarded.before(bytes).fill((byte) 0xff);
                        }

                        @Override
                        public MemorySegment.Scope scope() {
                            return arena.scope();
                        }

                        @Override
                        public void close() {}
                    };
            for (DType type : Cases.FLOATING) {
                for (int size : new int[] {1, 15, 16, 17, 31, 32, 33, 64, 65}) {
                    Tensor weight = Cases.normal(arena, type, size, 2, 66 - size, size);
                    Tensor x = Cases.normal(arena, type, 7, 5, size);
                    Tensor offsets = Cases.offsets(arena, 2, 3);
                    Tensor want = Tensor.allocate(arena, DType.F32, 5, 66 - size);
                    Tensor got = Tensor.allocate(arena, DType.F32, 5, 66 - size);
                    kernels.groupedGemm(x, weight, null, offsets, want);
                    Tensor prepared = kernels.prepare(weight, poisoned);
                    kernels.groupedGemm(x, prepared, null, offsets, got);
                    assertThat(got.data().mismatch(want.data()))
                            .as("%s %d", type, size)
                            .isEqualTo(-1);
                }
            }
        }
    }

    @Test
    void gateUpSwiglu_refusesPanelsOfAnotherArrangement() {
        try (Kernels kernels = kernels(1);
                Arena arena = Arena.ofConfined()) {
            Case c = new Case(3, 4, 2, 20, 9, Pattern.UNIFORM);
            Routing routing = Cases.routing(arena, c);
            Tensor x = Cases.normal(arena, DType.F32, 1, 3, 20);
            Tensor hidden = Tensor.allocate(arena, DType.F32, 6, 9);
            Tensor scratch = Tensor.allocate(arena, DType.F32, 0);
            ExpertWeights raw = experts(arena, Kind.SWIGLU, DType.F32, 20, 9);
            ExpertWeights plain =
                    new ExpertWeights(
                            kernels.prepare(raw.gateUp(), arena),
                            raw.down(),
                            null,
                            null,
                            raw.activation());
            assertThatThrownBy(() -> kernels.gateUpSwiglu(x, routing, null, plain, scratch, hidden))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage(
                            "gateUp: expected panels for SWIGLU, got a weight that was prepared by"
                                    + " itself or for another activation; prepare the experts as a"
                                    + " whole");
        }
    }

    /** Gate and up prepared side by side still are one weight to the product alone. */
    @Test
    void groupedGemm_multipliesByGateAndUpInTheirOrder() {
        try (Kernels kernels = kernels(2);
                Arena arena = Arena.ofConfined()) {
            ExpertWeights raw = experts(arena, Kind.SWIGLU, DType.F32, 20, 37);
            ExpertWeights prepared = kernels.prepare(raw, arena);
            Tensor x = Cases.normal(arena, DType.F32, 5, 9, 20);
            Tensor offsets = Cases.offsets(arena, 2, 0, 3, 4);
            Tensor want = Tensor.allocate(arena, DType.F32, 9, 74);
            Tensor got = Tensor.allocate(arena, DType.F32, 9, 74);
            kernels.groupedGemm(x, raw.gateUp(), raw.gateUpBias(), offsets, want);
            kernels.groupedGemm(x, prepared.gateUp(), prepared.gateUpBias(), offsets, got);
            assertThat(got.data().mismatch(want.data())).isEqualTo(-1);
        }
    }

    @Test
    void operations_refuseWhatTheyCannotComputeWith() {
        try (Kernels kernels = kernels(1);
                Kernels vector = new VectorKernels(1);
                Arena arena = Arena.ofConfined()) {
            Tensor x = Tensor.allocate(arena, DType.F64, 3, 4);
            Tensor weight = Tensor.allocate(arena, DType.F32, 1, 2, 4);
            Tensor y = Tensor.allocate(arena, DType.F32, 3, 2);
            Tensor offsets = Cases.offsets(arena, 3);
            assertThatThrownBy(() -> kernels.groupedGemm(x, weight, null, offsets, y))
                    .isInstanceOf(UnsupportedOperationException.class)
                    .hasMessage(
                            "groupedGemm: x of type F64 is not supported by the native backend; use"
                                    + " F32, F16 or BF16, or the reference backend");
            Tensor narrow = Tensor.allocate(arena, DType.F32, 3, 4);
            Tensor others = vector.prepare(weight, arena);
            assertThatThrownBy(() -> kernels.groupedGemm(narrow, others, null, offsets, y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("weight: expected row-major elements");
            Tensor own = kernels.prepare(weight, arena);
            assertThatThrownBy(() -> vector.groupedGemm(narrow, own, null, offsets, y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("weight: expected row-major elements");
            assertThat(kernels.prepare(own, arena)).isSameAs(own);
        }
    }

    /** Maps that another thread scribbles over lead to a result or a refusal, never outside. */
    @Test
    void gateUpSwiglu_survivesMapsThatChangeMeanwhile() throws InterruptedException {
        Assumptions.assumeTrue(GuardedMemory.available());
        try (Kernels kernels = kernels(2);
                GuardedMemory guarded = new GuardedMemory();
                Arena arena = Arena.ofShared()) {
            Case c = new Case(64, 4, 2, 48, 40, Pattern.UNIFORM);
            Routing routing = Cases.routing(arena, c);
            Tensor x = Tensor.of(guarded.before(64 * 48 * 4), DType.F32, 64, 48);
            Tensor hidden = Tensor.of(guarded.before(128 * 40 * 4), DType.F32, 128, 40);
            Tensor scratch = Tensor.allocate(arena, DType.F32, 0);
            ExpertWeights experts =
                    kernels.prepare(experts(arena, Kind.SWIGLU, DType.F32, 48, 40), arena);
            AtomicBoolean done = new AtomicBoolean();
            Thread hostile =
                    new Thread(() -> {
                        int[] values = {0, 1, -1, 127, 128, Integer.MAX_VALUE, Integer.MIN_VALUE};
                        for (int i = 0; !done.get(); i++) {
                            int good = routing.rowToSlot().getInt(i % 128);
                            routing.rowToSlot().setInt(i % 128, values[i % values.length]);
                            int offset = routing.expertOffsets().getInt(1 + i % 4);
                            routing.expertOffsets().setInt(1 + i % 4, values[i / 3 % 7]);
                            Thread.onSpinWait();
                            routing.rowToSlot().setInt(i % 128, good);
                            routing.expertOffsets().setInt(1 + i % 4, offset);
                            if (i % 3 == 0) {
                                Thread.yield();
                            }
                        }
                    });
            hostile.start();
            int refused = 0;
            int computed = 0;
            for (int call = 0; call < 3000; call++) {
                try {
                    kernels.gateUpSwiglu(x, routing, null, experts, scratch, hidden);
                    computed++;
                } catch (IllegalArgumentException | IndexOutOfBoundsException e) {
                    refused++;
                }
            }
            done.set(true);
            hostile.join();
            assertThat(refused + computed).isEqualTo(3000);
        }
    }

    @Test
    void operations_noticeAnArenaThatIsClosedMeanwhile() throws InterruptedException {
        try (Kernels kernels = kernels(3);
                Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, DType.F32, 1, 64, 256);
            Tensor y = Tensor.allocate(arena, DType.F32, 64, 256);
            Tensor offsets = Cases.offsets(arena, 64);
            for (int repeat = 0; repeat < 5; repeat++) {
                Arena shared = Arena.ofShared();
                Tensor weight = Cases.normal(shared, DType.BF16, 2, 1, 256, 256);
                Thread closer =
                        new Thread(() -> {
                            while (shared.scope().isAlive()) {
                                try {
                                    shared.close();
                                } catch (IllegalStateException inUse) {
                                    Thread.onSpinWait();
                                }
                            }
                        });
                assertThatThrownBy(
                                () -> {
                                    for (int call = 0; ; call++) {
                                        kernels.groupedGemm(x, weight, null, offsets, y);
                                        if (call == 1) {
                                            closer.start();
                                        }
                                    }
                                })
                        .isInstanceOf(IllegalStateException.class)
                        .hasMessageContaining("losed");
                Thread.interrupted();
                closer.join();
                Tensor other = Cases.normal(arena, DType.F32, 3, 1, 256, 256);
                kernels.groupedGemm(x, other, null, offsets, y);
            }
        }
    }

    @Test
    void close_endsTheThreadsAndMayBeCalledAgain() {
        Kernels kernels = kernels(3);
        try (Arena arena = Arena.ofConfined()) {
            Tensor x = Cases.normal(arena, DType.F32, 1, 3, 4);
            Tensor weight = Cases.normal(arena, DType.F32, 2, 1, 2, 4);
            Tensor y = Tensor.allocate(arena, DType.F32, 3, 2);
            Tensor offsets = Cases.offsets(arena, 3);
            kernels.groupedGemm(x, weight, null, offsets, y);
            kernels.close();
            kernels.close();
            assertThat(Thread.getAllStackTraces().keySet())
                    .noneMatch(thread -> thread.getName().startsWith("jmoe-native-"));
            assertThatThrownBy(() -> kernels.groupedGemm(x, weight, null, offsets, y))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("the native backend is closed; close it after its last use");
            assertThatThrownBy(() -> kernels.prepare(weight, arena))
                    .isInstanceOf(IllegalStateException.class);
        }
    }
}
