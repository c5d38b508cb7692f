package jmoe.cli;

import com.sun.management.ThreadMXBean;

import jmoe.cli.TimedKernels.Stage;

import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.lang.management.MemoryType;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What passes over batches of one size took.
 *
 * @param tokens of a batch
 * @param passes measured
 * @param medianNanos of a pass
 * @param minNanos of a pass
 * @param maxNanos of a pass
 * @param stageNanos medians by stage
 * @param flops of the matrix products of a pass, mean
 * @param bytes of the weights that a pass needs, mean
 * @param experts that had rows, mean
 * @param otherLoad CPU-seconds per second of everything else on the machine, or NaN
 * @param peakHeapBytes at most what passes had on the Java heap beyond what was there before
 * @param allocatedBytes on the Java heap by one pass
 * @param workspaceBytes of native memory for intermediate results
 * @param notFinite values of a result that are not numbers
 * @param hostNanos that the host takes to launch a replay, median; NaN if nothing is replayed
 */
record BenchCell(
        int tokens,
        int passes,
        double medianNanos,
        double minNanos,
        double maxNanos,
        Map<Stage, Double> stageNanos,
        double flops,
        double bytes,
        double experts,
        double otherLoad,
        long peakHeapBytes,
        long allocatedBytes,
        long workspaceBytes,
        long notFinite,
        double hostNanos) {
    private static final int MAX_ATTEMPTS = 3;
    private static final int MIN_WARM_UP_PASSES = 3;
    private static final long MAX_WARM_UP_NANOS = 20_000_000_000L;
    private static final int MIN_PASSES = 5;
    private static final int ENOUGH_PASSES = 30;

    /** Replays of each captured pass in a measurement. */
    private static final int TURNS = 4;

    /** A pass that takes longer is not repeated. */
    static final double SLOW_NANOS = 10e9;

    /** What a token's way between the matrix products takes. */
    private static final Set<Stage> ROUTING = Set.of(Stage.SHAPE, Stage.ROUTE, Stage.SORT);

    private static final Set<Stage> MOVES =
            Set.of(Stage.SHAPE, Stage.ROUTE, Stage.SORT, Stage.PERMUTE, Stage.UNPERMUTE);

    /**
     * Warms up and measures; again if others disturbed it, and then keeps the quietest attempt.
     *
     * @param layer one layer
     * @param tokens of a batch
     * @param nanos how long to warm up; measuring takes up to twice as long, or a few passes
     */
    static BenchCell measure(TimedLayer layer, int tokens, long nanos) {
        if (layer instanceof BenchLayer captured && captured.onDevice()) {
            try (BenchLayer.Batches batches = captured.open(tokens)) {
                return replayed(captured, batches, nanos);
            }
        }
        try (TimedLayer.Batches batches = layer.open(tokens)) {
            OtherLoad load = OtherLoad.watch();
            Passes cold = new Passes(layer.kernels());
            Total coldTotal = new Total();
            coldTotal.measure(cold, batches);
            if (cold.medianNanos() > SLOW_NANOS) {
                return of(batches, cold, coldTotal, load.perSecond());
            }
            warmUp(batches, nanos);
            BenchCell best = attempt(layer, batches, nanos);
            for (int more = 1; more < MAX_ATTEMPTS && best.disturbed(); more++) {
                BenchCell next = attempt(layer, batches, nanos);
                best = next.otherLoad < best.otherLoad ? next : best;
            }
            return best;
        }
    }

    /**
     * Times replays of captured passes; stages in passes that are not captured, in which the device
     * waits for the host before each operation. Other load on the host does not matter.
     */
    private static BenchCell replayed(BenchLayer layer, BenchLayer.Batches batches, long nanos) {
        Passes passes = new Passes(layer.kernels());
        Total total = new Total();
        if (!layer.emulated()) {
            batches.forward();
        }
        do {
            total.measure(passes, batches);
        } while (!layer.emulated() && passes.count() < MIN_PASSES);
        int turns = layer.emulated() ? 1 : TURNS;
        double[] samples = new double[layer.emulated() ? 1 : ENOUGH_PASSES];
        int count = 0;
        Replays replays;
        try (CapturedPasses captured = batches.capture()) {
            if (!layer.emulated()) {
                captured.nanos(turns);
            }
            long start = System.nanoTime();
            long allocated = allocatedSoFar();
            while (count < samples.length
                    && (count < MIN_PASSES || System.nanoTime() - start < 2 * nanos)) {
                samples[count++] = captured.nanos(turns);
            }
            total.allocated =
                    (allocatedSoFar() - allocated) / ((long) count * turns * captured.count());
            replays = Replays.of(batches.work(captured), captured.hostNanos(turns));
        }
        return of(batches, passes, total, Double.NaN).replayed(samples, count, replays);
    }

    /** The same with the times of replays, and the work of the batches that they were for. */
    private BenchCell replayed(double[] samples, int count, Replays replays) {
        double[] sorted = Arrays.copyOf(samples, count);
        Arrays.sort(sorted);
        return new BenchCell(
                tokens,
                count,
                sorted[count / 2],
                sorted[0],
                sorted[count - 1],
                stageNanos,
                replays.flops,
                replays.bytes,
                replays.experts,
                otherLoad,
                peakHeapBytes,
                allocatedBytes,
                workspaceBytes,
                notFinite,
                replays.hostNanos);
    }

    /**
     * What the captured passes came to, apart from their time.
     *
     * @param flops mean
     * @param bytes of the weights of the distinct experts that were asked for, and those that every
     *     pass reads; mean
     * @param experts that had rows, mean
     * @param hostNanos of a launch, median
     */
    private record Replays(double flops, double bytes, double experts, double hostNanos) {
        static Replays of(List<Work> works, double hostNanos) {
            double flops = 0;
            double bytes = 0;
            double experts = 0;
            for (Work work : works) {
                flops += work.flops();
                bytes += work.bytes();
                experts += work.experts();
            }
            int count = works.size();
            return new Replays(flops / count, bytes / count, experts / count, hostNanos);
        }
    }

    /** Sums over passes. */
    private static final class Total {
        private double flops;
        private double bytes;
        private double experts;
        private long allocated;
        private long peakHeap;

        void measure(Passes passes, TimedLayer.Batches batches) {
            passes.measure(batches::forward);
            Work work = batches.work();
            flops += work.flops();
            bytes += work.bytes();
            experts += work.experts();
        }
    }

    private static void warmUp(TimedLayer.Batches batches, long nanos) {
        long start = System.nanoTime();
        long elapsed = 0;
        for (int pass = 0;
                (pass < MIN_WARM_UP_PASSES || elapsed < nanos) && elapsed < MAX_WARM_UP_NANOS;
                pass++) {
            batches.forward();
            elapsed = System.nanoTime() - start;
        }
    }

    private static BenchCell attempt(TimedLayer layer, TimedLayer.Batches batches, long nanos) {
        Passes passes = new Passes(layer.kernels());
        Total total = new Total();
        System.gc();
        long heapBefore = heapBytes(false);
        resetPeak();
        OtherLoad load = OtherLoad.watch();
        long start = System.nanoTime();
        long elapsed = 0;
        while (passes.count() < MIN_PASSES
                || (elapsed < 2 * nanos
                        && !(passes.count() >= ENOUGH_PASSES && elapsed > nanos / 2))) {
            total.measure(passes, batches);
            elapsed = System.nanoTime() - start;
        }
        double others = load.perSecond();
        total.peakHeap = Math.max(0, heapBytes(true) - heapBefore);
        long allocated = allocatedSoFar();
        batches.forward();
        total.allocated = allocatedSoFar() - allocated;
        return of(batches, passes, total, others);
    }

    private static BenchCell of(
            TimedLayer.Batches batches, Passes passes, Total total, double otherLoad) {
        Map<Stage, Double> stages = new EnumMap<>(Stage.class);
        for (Stage stage : Stage.values()) {
            if (passes.medianNanos(stage) > 0) {
                stages.put(stage, passes.medianNanos(stage));
            }
        }
        return new BenchCell(
                batches.tokens(),
                passes.count(),
                passes.medianNanos(),
                passes.minNanos(),
                passes.maxNanos(),
                stages,
                total.flops / passes.count(),
                total.bytes / passes.count(),
                total.experts / passes.count(),
                otherLoad,
                total.peakHeap,
                total.allocated,
                batches.workspaceBytes(),
                batches.notFinite(),
                Double.NaN);
    }

    private static long allocatedSoFar() {
        return ManagementFactory.getThreadMXBean() instanceof ThreadMXBean threads
                ? threads.getTotalThreadAllocatedBytes()
                : 0;
    }

    /** Of all parts of the heap; their peaks need not fall together. */
    private static long heapBytes(boolean peak) {
        long bytes = 0;
        for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans()) {
            if (pool.getType() == MemoryType.HEAP) {
                bytes += (peak ? pool.getPeakUsage() : pool.getUsage()).getUsed();
            }
        }
        return bytes;
    }

    private static void resetPeak() {
        for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans()) {
            pool.resetPeakUsage();
        }
    }

    /** Whether others took so much of the processor that the times say nothing. */
    boolean disturbed() {
        return otherLoad > OtherLoad.DISTURBING;
    }

    double gflops() {
        return flops / medianNanos;
    }

    double gbps() {
        return bytes / medianNanos;
    }

    /** Share of the layer that is spent on finding and moving rows; NaN as {@link #share}. */
    double movesShare() {
        return share(MOVES);
    }

    /** Share from logits to experts in order, which are of the moves; NaN as {@link #share}. */
    double routingShare() {
        return share(ROUTING);
    }

    /**
     * Share of the layer that stages take. Replayed passes take less than their stages one by one.
     * NaN where these are not apart from the others.
     */
    private double share(Set<Stage> part) {
        if (stageNanos.containsKey(Stage.EXPERTS)) {
            return Double.NaN;
        }
        double nanos = 0;
        double stages = 0;
        for (double stage : stageNanos.values()) {
            stages += stage;
        }
        for (Stage stage : part) {
            nanos += stageNanos.getOrDefault(stage, 0.0);
        }
        return nanos / Math.max(medianNanos, stages);
    }
}
