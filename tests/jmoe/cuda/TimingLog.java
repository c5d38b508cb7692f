package jmoe.cuda;

import org.jspecify.annotations.Nullable;

import java.util.ArrayList;
import java.util.List;
import java.util.function.IntConsumer;

/** What was timed so far, what failed and what was left out. */
final class TimingLog {
    private final List<Timing> timings = new ArrayList<>();
    private final List<String> failures = new ArrayList<>();
    private final List<String> leftOut = new ArrayList<>();

    /** Times an operation on sets of operands. If it fails, the others still run. */
    void time(DeviceTimer timer, TimedWork work, IntConsumer operation) {
        try {
            timings.add(new Timing(work, timer.time(operation, work.sets())));
        } catch (CudaException | IllegalStateException | UnsupportedOperationException e) {
            failures.add(
                    work.kernel()
                            + ", "
                            + work.shape().model()
                            + ", "
                            + work.tokens()
                            + " tokens"
                            + tile(work.tile())
                            + ": "
                            + e);
        }
    }

    private static String tile(@Nullable Tile tile) {
        return tile == null ? "" : ", tile " + tile.label();
    }

    /** This machine cannot time something, and why. */
    void leaveOut(String what) {
        leftOut.add(what);
    }

    List<Timing> timings() {
        return timings;
    }

    List<String> failures() {
        return failures;
    }

    List<String> leftOut() {
        return leftOut;
    }
}
