package jmoe.cuda;

import static org.assertj.core.api.Assertions.assertThat;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;

import jmoe.ops.Cases;
import jmoe.ops.Kernels;
import jmoe.ops.Kernels.Residual;
import jmoe.ops.Routing;
import jmoe.ops.Tolerance;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

import java.lang.foreign.Arena;

/**
 * Device tensors of more than 2^31 elements, of which the emulator holds only the pages that are
 * touched: a row offset in 32 bits would read and write elsewhere. And more rows than the y and z
 * dimensions of a grid can have.
 */
@Tag("large")
final class CudaLongIndexTest {
    /** Elements of a row. */
    private static final int WIDTH = 1 << 16;

    /** Rows; those from 2^15 on start beyond 2^31 elements. */
    private static final int ROWS = (1 << 15) + 40;

    private static final int[] FAR = {0, (1 << 15) - 1, 1 << 15, (1 << 15) + 17, ROWS - 1};

    @BeforeAll
    static void requireDevice() {
        Emulator.requireDevice();
    }

    @Test
    void permute_readsBeyond2To31Elements() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofShared()) {
            Routing host = Routing.allocate(arena, ROWS, 1, 1);
            host.topkIds().data().fill((byte) 0xff);
            Tensor x = kernels.allocate(arena, DType.BF16, ROWS, WIDTH);
            for (int token : FAR) {
                host.topkIds().setInt(token, 0);
                kernels.copy(row(arena, token), x.row(token));
            }
            Cases.sort(host);
            Tensor rows = kernels.allocate(arena, DType.BF16, ROWS, WIDTH);
            kernels.permute(x, upload(kernels, arena, host), null, rows);
            for (int i = 0; i < FAR.length; i++) {
                assertSame(kernels, rows.row(i), row(arena, FAR[i]), "row of token " + FAR[i]);
            }
        }
    }

    /** Every row of the output exists, 4.3 GB. */
    @Test
    void permute_writesBeyond2To31Elements() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofShared()) {
            Routing host = Routing.allocate(arena, 1, ROWS, 1);
            Cases.sort(host);
            Tensor x = kernels.upload(arena, row(arena, 1).reshape(1, WIDTH));
            Tensor rows = kernels.allocate(arena, DType.BF16, ROWS, WIDTH);
            kernels.permute(x, upload(kernels, arena, host), null, rows);
            for (int row : FAR) {
                assertSame(kernels, rows.row(row), row(arena, 1), "row " + row);
            }
        }
    }

    @Test
    void unpermute_readsBeyond2To31Elements() {
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofShared()) {
            Routing host = Routing.allocate(arena, FAR.length, 1, 1);
            // More rows than slots: the map alone says where they are.
            Tensor rows = kernels.allocate(arena, DType.BF16, ROWS, WIDTH);
            for (int token = 0; token < FAR.length; token++) {
                host.slotToRow().setInt(token, FAR[token]);
                kernels.copy(row(arena, FAR[token]), rows.row(FAR[token]));
            }
            Routing routing = upload(kernels, arena, host);
            Tensor y = kernels.allocate(arena, DType.BF16, FAR.length, WIDTH);
            Tensor all = Tensor.device(rows.data().address(), DType.BF16, FAR.length, WIDTH);
            kernels.unpermute(all, routing, null, Residual.NONE, y);
            for (int token = 0; token < FAR.length; token++) {
                assertSame(kernels, y.row(token), row(arena, FAR[token]), "token " + token);
            }
        }
    }

    /**
     * Rows and matrices of which only the last are used; on matrix units, and by the kernel for
     * every type.
     */
    @ParameterizedTest
    @EnumSource(names = {"BF16", "F16"})
    void groupedGemm_readsBeyond2To31Elements(DType weightType) {
        int groups = 520;
        int outputs = 64;
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofShared();
                Kernels reference = new ReferenceKernels()) {
            Tensor hostX = Cases.normal(arena, DType.BF16, 1, 3, WIDTH);
            Tensor hostWeight = Cases.normal(arena, weightType, 2, 1, outputs, WIDTH);
            Tensor x = kernels.allocate(arena, DType.BF16, ROWS, WIDTH);
            kernels.copy(hostX, x.slice(ROWS - 3, 3));
            Tensor weight = kernels.allocate(arena, weightType, groups, outputs, WIDTH);
            kernels.copy(hostWeight, weight.slice(groups - 1, 1));
            // Offsets on a device are not checked, so that the rows before may belong to nobody.
            Tensor offsets = Tensor.allocate(arena, DType.I32, groups + 1);
            for (int group = 0; group <= groups; group++) {
                offsets.setInt(group, group == groups ? ROWS : ROWS - 3);
            }
            Tensor y = kernels.allocate(arena, DType.F32, ROWS, outputs);
            kernels.groupedGemm(x, weight, null, kernels.upload(arena, offsets), y);
            Tensor got = Tensor.allocate(arena, DType.F32, 3, outputs);
            kernels.copy(y.slice(ROWS - 3, 3), got);
            Tensor want = Tensor.allocate(arena, DType.F64, 3, outputs);
            reference.groupedGemm(hostX, hostWeight, null, Cases.offsets(arena, 3), want);
            Tolerance.assertClose("groupedGemm", "the last group, " + weightType, got, want, WIDTH);
        }
    }

    /** Only the last rows are used. */
    @Test
    void groupedGemm_writesBeyond2To31Elements() {
        int inputs = 24;
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofShared();
                Kernels reference = new ReferenceKernels()) {
            Tensor hostX = Cases.normal(arena, DType.BF16, 1, 3, inputs);
            Tensor hostWeight = Cases.normal(arena, DType.BF16, 2, 1, WIDTH, inputs);
            Tensor x = kernels.allocate(arena, DType.BF16, ROWS, inputs);
            kernels.copy(hostX, x.slice(ROWS - 3, 3));
            Tensor offsets = Tensor.allocate(arena, DType.I32, 2);
            offsets.setInt(0, ROWS - 3);
            offsets.setInt(1, ROWS);
            Tensor y = kernels.allocate(arena, DType.BF16, ROWS, WIDTH);
            Tensor weight = kernels.upload(arena, hostWeight);
            kernels.groupedGemm(x, weight, null, kernels.upload(arena, offsets), y);
            Tensor got = Tensor.allocate(arena, DType.BF16, 3, WIDTH);
            kernels.copy(y.slice(ROWS - 3, 3), got);
            Tensor want = Tensor.allocate(arena, DType.F64, 3, WIDTH);
            reference.groupedGemm(hostX, hostWeight, null, Cases.offsets(arena, 3), want);
            Tolerance.assertClose("groupedGemm", "the last rows", got, want, inputs);
        }
    }

    @Test
    void moreRowsThanAGridHasInY() {
        int tokens = 70_000;
        try (CudaKernels kernels = new CudaKernels();
                Arena arena = Arena.ofShared();
                Kernels reference = new ReferenceKernels()) {
            Routing routing = Routing.allocate(arena, tokens, 1, 3);
            for (int token = 0; token < tokens; token++) {
                routing.topkIds().setInt(token, (int) (token * 7L % 4) - 1);
                routing.topkWeights().setDouble(token, 1);
            }
            kernels.sortByExpert(routing);
            Tensor x = Cases.normal(arena, DType.F32, 1, tokens, 5);
            Tensor rows = Tensor.allocate(arena, DType.F32, tokens, 5);
            Tensor y = Tensor.allocate(arena, DType.F32, tokens, 5);
            kernels.permute(x, routing, null, rows);
            kernels.unpermute(rows, routing, routing.topkWeights(), Residual.of(x), y);
            Routing wantRouting = Routing.allocate(arena, tokens, 1, 3);
            wantRouting.topkIds().data().copyFrom(routing.topkIds().data());
            reference.sortByExpert(wantRouting);
            assertThat(routing.slotToRow().data().mismatch(wantRouting.slotToRow().data()))
                    .isEqualTo(-1);
            Tensor want = Tensor.allocate(arena, DType.F32, tokens, 5);
            reference.unpermute(rows, routing, routing.topkWeights(), Residual.of(x), want);
            assertThat(y.data().mismatch(want.data())).isEqualTo(-1);
        }
    }

    /** Normal numbers, the same for the same seed. */
    private static Tensor row(Arena arena, int seed) {
        return Cases.normal(arena, DType.BF16, seed, WIDTH);
    }

    private static void assertSame(CudaKernels kernels, Tensor device, Tensor want, String name) {
        try (Arena arena = Arena.ofConfined()) {
            Tensor got = Tensor.allocate(arena, device.dtype(), device.shape());
            kernels.copy(device, got);
            assertThat(got.data().toArray(JAVA_BYTE))
                    .as(name)
                    .isEqualTo(want.data().toArray(JAVA_BYTE));
        }
    }

    private static Routing upload(CudaKernels kernels, Arena arena, Routing host) {
        return new Routing(
                kernels.upload(arena, host.topkIds()),
                kernels.upload(arena, host.topkWeights()),
                kernels.upload(arena, host.tokensPerExpert()),
                kernels.upload(arena, host.expertOffsets()),
                kernels.upload(arena, host.rowToSlot()),
                kernels.upload(arena, host.slotToRow()));
    }
}
