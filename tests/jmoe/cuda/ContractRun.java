package jmoe.cuda;

import static org.junit.platform.engine.discovery.DiscoverySelectors.selectClass;

import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.launcher.Launcher;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.TagFilter;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

import java.util.concurrent.atomic.AtomicInteger;

/**
 * A program that runs the contract of the CUDA backend once per schedule of the emulator, in a JVM
 * of its own because a JVM can load only one driver. It prints one line per schedule and one per
 * failure, and ends with status 1 if there was any.
 */
final class ContractRun {
    private ContractRun() {}

    /**
     * Runs the contract.
     *
     * @param args schedules, as {@link Schedule#of} reads them
     */
    public static void main(String[] args) {
        Launcher launcher = LauncherFactory.create();
        int failed = 0;
        for (int turn = 0; turn < args.length; turn++) {
            String arg = args[turn];
            Schedule.of(arg).set();
            forceTile(turn);
            forcePath(turn);
            Failures failures = new Failures(arg);
            launcher.execute(request(), failures);
            System.out.println(
                    arg + ": " + failures.passed + " passed, " + failures.failed + " failed");
            // A schedule under which nothing ran proves nothing.
            failed += failures.failed.get() + (failures.passed.get() == 0 ? 1 : 0);
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    /**
     * Every tile has its turn: by themselves, the small sizes of the contract choose the smallest.
     */
    private static void forceTile(int turn) {
        Tile[] tiles = Tile.values();
        int tile = turn % (tiles.length + 1);
        if (tile < tiles.length) {
            System.setProperty(GroupedGemm.TILE_PROPERTY, tiles[tile].label());
        } else {
            System.clearProperty(GroupedGemm.TILE_PROPERTY);
        }
    }

    /** By themselves, few tokens always take one of the paths. */
    private static void forcePath(int turn) {
        DecodePath[] paths = DecodePath.values();
        System.setProperty(DecodePath.PROPERTY, paths[turn % paths.length].id());
    }

    /** Combinations are for the fast build, and for the check programs of the kernels. */
    private static LauncherDiscoveryRequest request() {
        return LauncherDiscoveryRequestBuilder.request()
                .selectors(selectClass(CudaKernelsTest.class))
                .filters(TagFilter.excludeTags("large", "broad", "arguments"))
                .build();
    }

    /** Counts, and prints what failed. */
    private static final class Failures implements TestExecutionListener {
        private final String schedule;
        private final AtomicInteger passed = new AtomicInteger();
        private final AtomicInteger failed = new AtomicInteger();

        private Failures(String schedule) {
            this.schedule = schedule;
        }

        @Override
        public void executionFinished(TestIdentifier test, TestExecutionResult result) {
            if (result.getStatus() == TestExecutionResult.Status.FAILED) {
                failed.incrementAndGet();
                System.out.println(
                        "FAILED "
                                + schedule
                                + " "
                                + test.getUniqueId()
                                + ": "
                                + result.getThrowable().map(Throwable::toString).orElse("?"));
            } else if (test.isTest()
                    && result.getStatus().equals(TestExecutionResult.Status.SUCCESSFUL)) {
                passed.incrementAndGet();
            }
        }
    }
}
