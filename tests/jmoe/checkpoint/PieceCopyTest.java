package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import jmoe.checkpoint.MoeBlock.Piece;
import jmoe.tensor.DType;
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;

import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;

import java.lang.foreign.Arena;
import java.util.List;

class PieceCopyTest {
    private static final List<DType> TYPES = List.of(DType.F32, DType.F16, DType.BF16, DType.F64);

    /** The strides of the table: as stored, transposed, and every second column transposed. */
    private enum Order {
        STORED,
        TRANSPOSED,
        INTERLEAVED
    }

    @Property(tries = 200)
    void copy_putsEveryElementInItsPlace(
            @ForAll @IntRange(min = 1, max = 150) int rows,
            @ForAll @IntRange(min = 1, max = 150) int columns,
            @ForAll Order order,
            @ForAll @IntRange(max = 3) int from,
            @ForAll @IntRange(max = 2) int to,
            @ForAll @IntRange(max = 5) int offset) {
        Piece piece =
                switch (order) {
                    case STORED -> piece(offset, rows, columns, columns, 1);
                    case TRANSPOSED -> piece(offset, rows, columns, 1, rows);
                    case INTERLEAVED -> piece(offset, rows, columns, 2, 2L * rows);
                };
        try (Arena arena = Arena.ofConfined()) {
            Tensor source =
                    Tensor.allocate(arena, TYPES.get(from), offset + 2L * rows * columns + 1);
            for (long i = 0; i < source.numElements(); i++) {
                source.setDouble(i, (i * 37 % 255 - 127) / 64.0);
            }
            Tensor target =
                    Tensor.allocate(arena, TYPES.get(to), offset + (long) rows * columns + 3);

            assertThat(PieceCopy.copy(source, piece, target, offset)).isEqualTo(-1);

            for (long r = 0; r < rows; r++) {
                for (long c = 0; c < columns; c++) {
                    long at = offset + r * piece.rowStride() + c * piece.columnStride();
                    assertThat(target.getDouble(offset + r * columns + c))
                            .isEqualTo(source.getDouble(at));
                }
            }
            for (long i = 0; i < offset; i++) {
                assertThat(target.getDouble(i)).isZero();
            }
            for (long i = offset + (long) rows * columns; i < target.numElements(); i++) {
                assertThat(target.getDouble(i)).isZero();
            }
        }
    }

    @Property(tries = 100)
    void copy_quantisesRows(
            @ForAll @IntRange(min = 1, max = 150) int rows,
            @ForAll @IntRange(min = 1, max = 150) int columns,
            @ForAll Order order,
            @ForAll @IntRange(max = 3) int from,
            @ForAll @IntRange(max = 9999) int where) {
        Piece piece =
                switch (order) {
                    case STORED -> piece(0, rows, columns, columns, 1);
                    case TRANSPOSED -> piece(0, rows, columns, 1, rows);
                    case INTERLEAVED -> piece(0, rows, columns, 2, 2L * rows);
                };
        try (Arena arena = Arena.ofConfined()) {
            Tensor source = Tensor.allocate(arena, TYPES.get(from), 2L * rows * columns);
            for (long i = 0; i < source.numElements(); i++) {
                source.setDouble(i, (i * 37 % 255 - 127) / 64.0);
            }
            Tensor ordered = Tensor.allocate(arena, TYPES.get(from), rows, columns);
            PieceCopy.copy(source, piece, ordered, 0);
            Tensor want = Quantisation.of(ordered, arena);
            Tensor target =
                    Quantisation.allocate(
                            (type, shape) -> Tensor.allocate(arena, type, shape),
                            rows + 2L,
                            columns);

            assertThat(PieceCopy.copy(source, piece, target, columns)).isEqualTo(-1);

            Tensor got = target.slice(1, rows);
            assertThat(got.data().mismatch(want.data())).isEqualTo(-1);
            assertThat(got.scale().data().mismatch(want.scale().data())).isEqualTo(-1);
            assertThat(target.scale().getDouble(0)).isZero();
            assertThat(target.scale().getDouble(rows + 1)).isZero();

            long index = where % ((long) rows * columns);
            source.setDouble(PieceCopy.at(piece, index), Double.NaN);
            assertThat(PieceCopy.copy(source, piece, target, columns)).isEqualTo(index);
        }
    }

    @Property(tries = 50)
    void copy_findsTheElementThatOverflows(
            @ForAll @IntRange(min = 1, max = 100) int rows,
            @ForAll @IntRange(min = 1, max = 100) int columns,
            @ForAll @IntRange(max = 9999) int where) {
        long index = where % ((long) rows * columns);
        Piece piece = piece(0, rows, columns, 2, 2L * rows);
        try (Arena arena = Arena.ofConfined()) {
            Tensor source = Tensor.allocate(arena, DType.F32, 2L * rows * columns);
            source.setDouble(PieceCopy.at(piece, index), -1e6);
            Tensor target = Tensor.allocate(arena, DType.F16, (long) rows * columns);

            assertThat(PieceCopy.copy(source, piece, target, 0)).isEqualTo(index);
        }
    }

    private static Piece piece(long offset, long rows, long columns, long row, long column) {
        return new Piece("w", new long[] {rows, columns}, offset, rows, columns, row, column);
    }
}
