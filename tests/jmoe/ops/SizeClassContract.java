package jmoe.ops;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.ops.Cases.Case;
import jmoe.ops.Cases.Pattern;
import jmoe.ops.Kernels.Residual;
import jmoe.reference.ReferenceKernels;
import jmoe.tensor.DType;
import jmoe.tensor.Quantisation;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.FieldSource;

import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/** Experts that differ in size, and products of some of the experts, which they are made of. */
interface SizeClassContract extends Contract {
    /** Whole vectors, one neuron, a prime, and wide: nine experts. */
    List<SizeClass> SIZES =
            List.of(
                    new SizeClass(2, 16),
                    new SizeClass(1, 1),
                    new SizeClass(3, 37),
                    new SizeClass(1, 2080),
                    new SizeClass(2, 16));

    int EXPERTS = 9;

    /** No token, one, and each way of leaving classes without rows; the last has id 8. */
    List<Case> SIZE_CASES =
            List.of(
                    new Case(0, EXPERTS, 2, 24, 0, Pattern.UNIFORM),
                    new Case(1, EXPERTS, 9, 40, 0, Pattern.UNIFORM),
                    new Case(7, EXPERTS, 2, 37, 0, Pattern.ALL_TO_ONE),
                    new Case(5, EXPERTS, 2, 24, 0, Pattern.EMPTY_EXPERTS),
                    new Case(9, EXPERTS, 3, 32, 0, Pattern.SOME_NONE),
                    new Case(4, EXPERTS, 2, 16, 0, Pattern.ALL_NONE),
                    new Case(40, EXPERTS, 1, 8, 0, Pattern.SKEWED));

    @Tag("broad")
    @ParameterizedTest
    @FieldSource("SIZE_CASES")
    default void experts_ofSeveralSizes_areWhatTheEquationsSay(Case c) {
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined()) {
                List<ExpertWeights> classes = SizedExperts.random(arena, type, c.hidden(), SIZES);
                Tensor x = Cases.normal(arena, type, c.seed(), c.tokens(), c.hidden());
                Routing routing = Cases.routing(arena, c);
                DType out = c.dtype(0);
                Tensor addend = Cases.normal(arena, c.dtype(1), 3, c.tokens(), c.hidden());
                Residual residual = new Residual(addend, null, Integer.MAX_VALUE, 0.5);
                SizedExperts.Oracle oracle =
                        new SizedExperts.Oracle(arena, x, classes, routing, residual);
                for (List<ExpertWeights> form : List.of(classes, prepared(arena, classes))) {
                    Bank bank = new Bank(form, routing, null, routing.topkWeights());
                    assertThat(backend().fusesExperts(x, bank, null, type)).isFalse();
                    Poisoned y = Poisoned.allocate(arena, out, c.tokens(), c.hidden());
                    run(arena, x, bank, residual, type, y.tensor());
                    Tolerance.assertRounded(
                            "experts",
                            c + " " + type,
                            y.tensor(),
                            oracle.y,
                            4.0 * (c.hidden() + 2080 + c.topK() + 4),
                            type,
                            oracle.squares);
                    y.assertUntouchedFrom("experts", c + " " + type, c.tokens());
                }
            }
        }
    }

    /** Where a token has one expert, the others' sizes change no bit; I8 too, where there is. */
    @Test
    default void experts_ofSeveralSizes_equalEachSizeByItself() {
        Case c = new Case(33, EXPERTS, 1, 32, 0, Pattern.UNIFORM);
        List<DType> types = new ArrayList<>(Cases.FLOATING);
        if (computesQuantised()) {
            types.add(DType.I8);
        }
        for (DType type : types) {
            try (Arena arena = Arena.ofConfined()) {
                DType wide = type == DType.I8 ? DType.F32 : type;
                List<ExpertWeights> raw = SizedExperts.random(arena, wide, c.hidden(), SIZES);
                List<ExpertWeights> classes =
                        prepared(arena, type == DType.I8 ? quantised(arena, raw) : raw);
                Tensor x = Cases.normal(arena, wide, c.seed(), c.tokens(), c.hidden());
                Routing routing = Cases.routing(arena, c);
                Bank bank = new Bank(classes, routing, null, routing.topkWeights());
                Tensor all = Tensor.allocate(arena, DType.F32, c.tokens(), c.hidden());
                run(arena, x, bank, Residual.NONE, DType.F32, all);
                int first = 0;
                for (ExpertWeights experts : classes) {
                    Routing own = Routing.allocate(arena, c.tokens(), 1, experts.numExperts());
                    for (int t = 0; t < c.tokens(); t++) {
                        own.topkIds().setInt(t, routing.topkIds().getInt(t) - first);
                    }
                    Cases.sort(own);
                    Bank alone = new Bank(experts, own, null, routing.topkWeights());
                    Tensor y = Tensor.allocate(arena, DType.F32, c.tokens(), c.hidden());
                    run(arena, x, alone, Residual.NONE, DType.F32, y);
                    for (int t = 0; t < c.tokens(); t++) {
                        if (own.slotToRow().getInt(t) >= 0) {
                            assertThat(all.row(t).data().mismatch(y.row(t).data()))
                                    .as("%s, token %d, experts from %d", type, t, first)
                                    .isEqualTo(-1);
                        }
                    }
                    first += experts.numExperts();
                }
            }
        }
    }

    /** The rows of the experts in the middle; those before and behind stay as they are. */
    @ParameterizedTest
    @FieldSource("SIZE_CASES")
    default void products_ofSomeExperts_leaveTheOthersRowsAlone(Case c) {
        int first = 3;
        int count = 4;
        for (DType type : Cases.FLOATING) {
            try (Arena arena = Arena.ofConfined();
                    Kernels reference = new ReferenceKernels()) {
                SizeClass size = new SizeClass(count, type == DType.F32 ? 13 : 24);
                ExpertWeights experts =
                        SizedExperts.random(arena, type, c.hidden(), List.of(size)).getFirst();
                Tensor x = Cases.normal(arena, type, c.seed(), c.tokens(), c.hidden());
                Routing some = Cases.routing(arena, c).experts(first, count);
                String name = c + " " + type;
                Tensor rows = Tensor.allocate(arena, type, c.slots(), c.hidden());
                reference.permute(x, some, null, rows);
                Tensor gateUp =
                        Tensor.allocate(arena, DType.F64, c.slots(), 2L * size.intermediate());
                Tensor offsets = some.expertOffsets();
                reference.groupedGemm(rows, experts.gateUp(), null, offsets, gateUp);
                Tensor hidden = Tensor.allocate(arena, DType.F64, c.slots(), size.intermediate());
                reference.swiglu(gateUp, experts.activation(), offsets, hidden);

                Poisoned permuted = Poisoned.allocate(arena, type, c.slots(), c.hidden());
                backend().permute(x, some, null, permuted.tensor());
                compare("permute", name, permuted, rows, some, 1);
                Poisoned product = Poisoned.allocate(arena, DType.F32, gateUp.shape());
                backend().groupedGemm(rows, experts.gateUp(), null, offsets, product.tensor());
                compare("groupedGemm", name, product, gateUp, some, c.hidden());
                Poisoned active = Poisoned.allocate(arena, DType.F32, hidden.shape());
                Tensor gates = Tensor.allocate(arena, DType.F32, gateUp.shape());
                for (long i = 0; i < gates.numElements(); i++) {
                    gates.setDouble(i, gateUp.getDouble(i));
                }
                backend().swiglu(gates, experts.activation(), offsets, active.tensor());
                compare("swiglu", name, active, hidden, some, 16);
                Poisoned fused = Poisoned.allocate(arena, DType.F32, hidden.shape());
                long elements = backend().gateUpSwigluScratch(type, c.slots(), experts);
                Tensor scratch = Poisoned.allocate(arena, DType.F32, elements).tensor();
                backend().gateUpSwiglu(x, some, null, experts, scratch, fused.tensor());
                compare("gateUpSwiglu", name, fused, hidden, some, 16.0 * c.hidden());
            }
        }
    }

    private static void compare(
            String op, String name, Poisoned got, Tensor want, Routing some, double terms) {
        int from = some.expertOffsets().getInt(0);
        int rows = Cases.rows(some.expertOffsets()) - from;
        Tensor written = got.tensor().slice(from, rows);
        Tensor wide = Tensor.allocate(Arena.ofAuto(), DType.F64, rows, want.dim(1));
        for (long i = 0; i < wide.numElements(); i++) {
            wide.setDouble(i, want.getDouble(from * want.dim(1) + i));
        }
        Tolerance.assertClose(op, name, written, wide, terms);
        got.assertUntouchedBefore(op, name, from);
        got.assertUntouchedFrom(op, name, from + rows);
    }

    @Test
    default void experts_refuseBanksThatDoNotFit() {
        Case c = new Case(4, EXPERTS, 2, 24, 0, Pattern.UNIFORM);
        try (Arena arena = Arena.ofConfined()) {
            List<ExpertWeights> classes = SizedExperts.random(arena, DType.F32, 24, SIZES);
            Tensor x = Tensor.allocate(arena, DType.F32, 4, 24);
            Tensor y = Tensor.allocate(arena, DType.F32, 4, 24);
            Routing routing = Routing.allocate(arena, 4, 2, EXPERTS - 1);
            Bank many = new Bank(classes, routing, null, null);
            assertThatThrownBy(() -> run(arena, x, many, Residual.NONE, DType.F32, y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("experts: expected at most the numExperts=8 of the routing, got 9");
            Routing some = Cases.routing(arena, c).experts(5, 4);
            some.expertOffsets().setInt(0, 1);
            Bank view = new Bank(classes.subList(0, 2), some, null, null);
            assertThatThrownBy(() -> run(arena, x, view, Residual.NONE, DType.F32, y))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("expertOffsets: expected 0 first, got 1");
            List<ExpertWeights> wider =
                    SizedExperts.random(arena, DType.F32, 25, List.of(new SizeClass(1, 8)));
            assertThatThrownBy(() ->
                            new Bank(
                                    List.of(classes.getFirst(), wider.getFirst()),
                                    routing,
                                    null,
                                    null))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessage("classes: expected experts of one hidden=24, got 25");
        }
    }

    private List<ExpertWeights> prepared(Arena arena, List<ExpertWeights> classes) {
        return classes.stream().map(bank -> backend().prepare(bank, arena)).toList();
    }

    private static List<ExpertWeights> quantised(Arena arena, List<ExpertWeights> classes) {
        return classes.stream()
                .map(bank ->
                        new ExpertWeights(
                                Quantisation.of(bank.gateUp(), arena),
                                Quantisation.of(bank.down(), arena),
                                null,
                                null,
                                bank.activation()))
                .toList();
    }

    private void run(Arena arena, Tensor x, Bank bank, Residual residual, DType rowType, Tensor y) {
        long elements = backend().expertsScratch(rowType, bank, null);
        Tensor scratch = Poisoned.allocate(arena, DType.F32, elements).tensor();
        backend().experts(x, bank, null, residual, rowType, scratch, y);
    }
}
