package jmoe.vector;

import static java.nio.ByteOrder.nativeOrder;

import jdk.incubator.vector.FloatVector;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.concurrent.BrokenBarrierException;
import java.util.concurrent.CyclicBarrier;
import java.util.function.LongSupplier;

/**
 * The best that this machine does right now, by which the rates of kernels are judged: what is a
 * share of a ceiling of the same minute means the same on every machine and beside any neighbour.
 *
 * @param threads that ran at the same time
 * @param fmaGflops F32 multiply-adds on registers, two operations each, in 10^9 per second
 * @param streamGbps bytes read in order from memory that no cache holds, in 10^9 per second
 */
public record Ceilings(int threads, double fmaGflops, double streamGbps) {
    private static final long MIN_STREAM_BYTES = 256L << 20;

    /** Machines with a larger cache share it among more cores than such a run has. */
    private static final long MAX_STREAM_BYTES = 2L << 30;

    private static final long UNKNOWN_CACHE_STREAM_BYTES = 512L << 20;
    private static final int CACHES_PER_STREAM = 8;
    private static final Path CACHES = Path.of("/sys/devices/system/cpu/cpu0/cache");

    /** In which the optimising compiler takes over between short calls. */
    private static final long WARM_UP_NANOS = 250_000_000;

    /** How long it is waited for, if others keep it from its work. */
    private static final long MAX_WARM_UP_NANOS = 5_000_000_000L;

    /** Operations or bytes per nanosecond that no machine misses, but every interpreter. */
    private static final double COMPILED_RATE = 1;

    private static final long FMA_NANOS = 15_000_000;
    private static final long STREAM_NANOS = 40_000_000;
    private static final int REPEATS = 9;

    private static final int FMAS_PER_STEP = 30;
    private static final int FMA_STEPS = 512;
    private static final int WARM_UP_STEPS = 32;
    private static final int CALLS_PER_CLOCK = 16;

    /** What a thread reads from a stream in one call. */
    private static final long SPAN_BYTES = 64 << 10;

    /** Streams at multiples of a power of two would meet in the same cache sets. */
    private static final long SKEW_BYTES = 4096 + 64;

    private static final int[] STREAMS = {1, 4, 8};

    /** Takes results, so that the compiler cannot leave out what computes them. */
    private static volatile float sink;

    /**
     * Measures both, in about two seconds, with native memory of several times the last-level cache
     * that is freed again.
     *
     * @param threads at least 1; what the kernels to be judged run on
     * @return medians of several repeats; for the stream, of the fastest of several orders
     */
    public static Ceilings measure(int threads) {
        if (threads < 1) {
            throw new IllegalArgumentException("threads: expected at least 1, got " + threads);
        }
        warmUp(Ceilings::multiplyAdd);
        double gflops = rate(threads, FMA_NANOS, (thread, nanos) -> multiplyAdd(nanos));
        double gbps = 0;
        try (Arena arena = Arena.ofShared()) {
            MemorySegment[] shares = shares(arena, threads);
            for (int streams : STREAMS) {
                Reader[] readers = new Reader[threads];
                Arrays.setAll(readers, thread -> new Reader(shares[thread], streams));
                warmUp(readers[0]::read);
                gbps =
                        Math.max(
                                gbps,
                                rate(
                                        threads,
                                        STREAM_NANOS,
                                        (thread, nanos) -> readers[thread].read(nanos)));
            }
        }
        if (!Float.isFinite(sink)) {
            throw new AssertionError("sums of small numbers are finite");
        }
        return new Ceilings(threads, gflops, gbps);
    }

    /**
     * The same ceilings with other multiply-adds: those of units that Java has no instructions for.
     *
     * @param piece some microseconds of them, on any thread; returns how many operations they were
     * @return with the median of several repeats on as many threads
     */
    public Ceilings withMultiplyAdds(LongSupplier piece) {
        warmUp(nanos -> repeat(piece, nanos));
        double gflops = rate(threads, FMA_NANOS, (thread, nanos) -> repeat(piece, nanos));
        return new Ceilings(threads, gflops, streamGbps);
    }

    private static double repeat(LongSupplier piece, long nanos) {
        double done = 0;
        long start = System.nanoTime();
        do {
            done += piece.getAsLong();
        } while (System.nanoTime() - start < nanos);
        return done;
    }

    /** Does something for a while and says how much it was. */
    private interface Work {
        double run(long nanos);
    }

    /** Does something on one of several threads. */
    private interface SharedWork {
        double run(int thread, long nanos);
    }

    private static void warmUp(Work work) {
        long start = System.nanoTime();
        long elapsed = 0;
        double rate = 0;
        while (elapsed < WARM_UP_NANOS || (rate < COMPILED_RATE && elapsed < MAX_WARM_UP_NANOS)) {
            long before = System.nanoTime();
            double done = work.run(0);
            long after = System.nanoTime();
            rate = done / Math.max(1, after - before);
            elapsed = after - start;
        }
    }

    /** Median over repeats of what all threads together do per nanosecond. */
    private static double rate(int threads, long nanos, SharedWork work) {
        double[][] done = new double[threads][REPEATS];
        long[][] start = new long[threads][REPEATS];
        long[][] stop = new long[threads][REPEATS];
        CyclicBarrier barrier = new CyclicBarrier(threads);
        together(
                threads,
                thread -> {
                    for (int repeat = 0; repeat < REPEATS; repeat++) {
                        barrier.await();
                        start[thread][repeat] = System.nanoTime();
                        done[thread][repeat] = work.run(thread, nanos);
                        stop[thread][repeat] = System.nanoTime();
                    }
                });
        double[] rates = new double[REPEATS];
        for (int repeat = 0; repeat < REPEATS; repeat++) {
            // Differences only: the clock may be anywhere, even below zero.
            long first = start[0][repeat];
            long earliest = 0;
            long latest = 0;
            double sum = 0;
            for (int thread = 0; thread < threads; thread++) {
                earliest = Math.min(earliest, start[thread][repeat] - first);
                latest = Math.max(latest, stop[thread][repeat] - first);
                sum += done[thread][repeat];
            }
            rates[repeat] = sum / (latest - earliest);
        }
        Arrays.sort(rates);
        return rates[REPEATS / 2];
    }

    /** What each of several threads runs. */
    private interface Body {
        void run(int thread) throws InterruptedException, BrokenBarrierException;
    }

    private static void together(int threads, Body body) {
        Thread[] others = new Thread[threads - 1];
        for (int i = 0; i < others.length; i++) {
            int thread = i + 1;
            others[i] =
                    Thread.ofPlatform()
                            .daemon()
                            .name("jmoe-ceilings-" + thread)
                            .start(() -> runUnchecked(body, thread));
        }
        runUnchecked(body, 0);
        for (Thread other : others) {
            try {
                other.join();
            } catch (InterruptedException e) {
                throw interrupted(e);
            }
        }
    }

    private static void runUnchecked(Body body, int thread) {
        try {
            body.run(thread);
        } catch (InterruptedException | BrokenBarrierException e) {
            throw interrupted(e);
        }
    }

    private static IllegalStateException interrupted(Exception e) {
        Thread.currentThread().interrupt();
        return new IllegalStateException("interrupted while the ceilings were measured", e);
    }

    /** One share per thread, written by that thread: pages then lie near the core that reads. */
    private static MemorySegment[] shares(Arena arena, int threads) {
        long bytes = streamBytes(lastLevelCacheBytes()) / threads / SPAN_BYTES * SPAN_BYTES;
        MemorySegment[] shares = new MemorySegment[threads];
        together(
                threads,
                thread -> {
                    shares[thread] = arena.allocate(bytes, 64);
                    shares[thread].fill((byte) 0x3f);
                });
        return shares;
    }

    /** How much memory is streamed on a machine with this cache; 0 if it is not known. */
    static long streamBytes(long cacheBytes) {
        return cacheBytes == 0
                ? UNKNOWN_CACHE_STREAM_BYTES
                : Math.clamp(CACHES_PER_STREAM * cacheBytes, MIN_STREAM_BYTES, MAX_STREAM_BYTES);
    }

    /**
     * The largest cache of the first core.
     *
     * @return bytes, or 0 where Linux does not tell
     */
    public static long lastLevelCacheBytes() {
        long largest = 0;
        for (int index = 0; ; index++) {
            Path size = CACHES.resolve("index" + index).resolve("size");
            if (!Files.isReadable(size)) {
                return largest;
            }
            try {
                largest = Math.max(largest, cacheBytes(Files.readString(size).strip()));
            } catch (IOException e) {
                // Then the size is not known.
                return 0;
            }
        }
    }

    /** Reads {@code 32768K}; 0 for anything else. */
    static long cacheBytes(String size) {
        return size.matches("\\d{1,12}K") ? Long.parseLong(size.replace("K", "")) << 10 : 0;
    }

    private static double multiplyAdd(long nanos) {
        long calls = 0;
        // A compiled loop that was entered in the middle would be slower for good: many calls.
        int steps = nanos == 0 ? WARM_UP_STEPS : FMA_STEPS;
        long start = System.nanoTime();
        do {
            float sum = 0;
            for (int i = 0; i < CALLS_PER_CLOCK; i++) {
                sum += chains(steps);
            }
            sink = sum;
            calls += CALLS_PER_CLOCK;
        } while (System.nanoTime() - start < nanos);
        return 2.0 * FMAS_PER_STEP * steps * Lanes.COUNT * calls;
    }

    /**
     * Ten chains hide the latency of two ports and leave registers free in every instruction set.
     */
    private static float chains(int steps) {
        FloatVector a = FloatVector.broadcast(Lanes.FLOATS, 1);
        FloatVector b = a;
        FloatVector c = a;
        FloatVector d = a;
        FloatVector e = a;
        FloatVector f = a;
        FloatVector g = a;
        FloatVector h = a;
        FloatVector i = a;
        FloatVector j = a;
        FloatVector factor = FloatVector.broadcast(Lanes.FLOATS, 0.999f);
        FloatVector small = FloatVector.broadcast(Lanes.FLOATS, 0.001f);
        for (int step = 0; step < steps; step++) {
            a = factor.fma(small, a);
            b = factor.fma(small, b);
            c = factor.fma(small, c);
            d = factor.fma(small, d);
            e = factor.fma(small, e);
            f = factor.fma(small, f);
            g = factor.fma(small, g);
            h = factor.fma(small, h);
            i = factor.fma(small, i);
            j = factor.fma(small, j);
            a = factor.fma(small, a);
            b = factor.fma(small, b);
            c = factor.fma(small, c);
            d = factor.fma(small, d);
            e = factor.fma(small, e);
            f = factor.fma(small, f);
            g = factor.fma(small, g);
            h = factor.fma(small, h);
            i = factor.fma(small, i);
            j = factor.fma(small, j);
            a = factor.fma(small, a);
            b = factor.fma(small, b);
            c = factor.fma(small, c);
            d = factor.fma(small, d);
            e = factor.fma(small, e);
            f = factor.fma(small, f);
            g = factor.fma(small, g);
            h = factor.fma(small, h);
            i = factor.fma(small, i);
            j = factor.fma(small, j);
        }
        return a.add(b).add(c).add(d).add(e).add(f).add(g).add(h).add(i).add(j).lane(0);
    }

    /** Reads one thread's share around and around, from one or several places at a time. */
    private static final class Reader {
        private final MemorySegment share;
        private final int streams;
        private final long distance;
        private long at;

        Reader(MemorySegment share, int streams) {
            this.share = share;
            this.streams = streams;
            long part = share.byteSize() / streams;
            distance = streams == 1 ? part : (part - SKEW_BYTES) / Long.BYTES / 8 * 64;
        }

        double read(long nanos) {
            long calls = 0;
            long start = System.nanoTime();
            do {
                at = at + SPAN_BYTES > distance ? 0 : at;
                sink = span(at);
                at += SPAN_BYTES;
                calls++;
            } while (System.nanoTime() - start < nanos);
            return (double) calls * streams * SPAN_BYTES;
        }

        private float span(long from) {
            return switch (streams) {
                case 1 -> one(share, from);
                case 4 -> four(share, from, distance);
                default -> four(share, from, distance) + four(share, from + 4 * distance, distance);
            };
        }
    }

    private static float one(MemorySegment share, long from) {
        FloatVector a = FloatVector.zero(Lanes.FLOATS);
        FloatVector b = a;
        FloatVector c = a;
        FloatVector d = a;
        long lanes = (long) Lanes.COUNT * Float.BYTES;
        for (long at = from; at < from + SPAN_BYTES; at += 4 * lanes) {
            a = a.add(load(share, at));
            b = b.add(load(share, at + lanes));
            c = c.add(load(share, at + 2 * lanes));
            d = d.add(load(share, at + 3 * lanes));
        }
        return a.add(b).add(c).add(d).lane(0);
    }

    private static float four(MemorySegment share, long from, long distance) {
        FloatVector a = FloatVector.zero(Lanes.FLOATS);
        FloatVector b = a;
        FloatVector c = a;
        FloatVector d = a;
        long lanes = (long) Lanes.COUNT * Float.BYTES;
        for (long at = from; at < from + SPAN_BYTES; at += lanes) {
            a = a.add(load(share, at));
            b = b.add(load(share, at + distance));
            c = c.add(load(share, at + 2 * distance));
            d = d.add(load(share, at + 3 * distance));
        }
        return a.add(b).add(c).add(d).lane(0);
    }

    private static FloatVector load(MemorySegment segment, long at) {
        return FloatVector.fromMemorySegment(Lanes.FLOATS, segment, at, nativeOrder());
    }
}
