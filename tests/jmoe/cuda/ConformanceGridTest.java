package jmoe.cuda;

import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import java.util.Arrays;

/** What launches see of those in front of them, and blocks of those that arrived before. */
final class ConformanceGridTest {
    private static final String FILE = "probe_grid";
    private static final int THREADS = 128;
    private static final int BLOCKS = 8;
    private static final int COUNT = BLOCKS * THREADS;
    private static final int ROUNDS = 5;

    private static Probes probes;

    @BeforeAll
    static void open() {
        Emulator.requireDevice();
        Probes.require(Probes.HOPPER);
        probes = new Probes();
    }

    @AfterAll
    static void close() {
        ConformanceReport.write();
        if (probes != null) {
            probes.close();
        }
    }

    /** Three buffers that launches fill one from the other, and the times at which they did. */
    private static final class Chain {
        private final long in = probes.upload(Words.bytes(counted(0, 1)));
        private final long first = probes.output(4 * COUNT);
        private final long second = probes.output(4 * COUNT);
        private final long third = probes.output(4 * COUNT);
        private final long ends = probes.output(8 * BLOCKS);
        private final long starts = probes.output(8 * BLOCKS);
        private final long laterStarts = probes.output(8 * BLOCKS);

        /** first = in + value, long after it lets the next grid start. */
        void queueFirst(int value, boolean trigger) {
            probes.queue(
                    FILE,
                    "probe_grid_first",
                    BLOCKS,
                    false,
                    launch ->
                            launch.pointer(in)
                                    .pointer(first)
                                    .pointer(ends)
                                    .int32(value)
                                    .int32(trigger ? 1 : 0));
        }

        /** second = 2 first + value. */
        void queueSecond(int value, boolean early, boolean trigger) {
            queueNext(first, first, second, starts, value, early, trigger);
        }

        /** third = first + second + value. */
        void queueThird(int value, boolean early) {
            queueNext(first, second, third, laterStarts, value, early, false);
        }

        private static void queueNext(
                long a, long b, long out, long times, int value, boolean early, boolean trigger) {
            probes.queue(
                    FILE,
                    "probe_grid_next",
                    BLOCKS,
                    early,
                    launch ->
                            launch.pointer(a)
                                    .pointer(b)
                                    .pointer(out)
                                    .pointer(times)
                                    .int32(value)
                                    .int32(trigger ? 1 : 0));
        }
    }

    /** start, start + step, ... */
    private static int[] counted(int start, int step) {
        int[] values = new int[COUNT];
        Arrays.setAll(values, i -> start + step * i);
        return values;
    }

    private static void check(String probe, int[] expected, long got) {
        ConformanceReport.exact(
                probe, 4, 1, Words.bytes(expected), probes.download(got, 4 * expected.length));
    }

    /**
     * The wait shows all that the launch in front stores, though that lets others start before it
     * stores anything. Whether they do start is the device's choice: the report tells by how much.
     */
    @ParameterizedTest
    @CsvSource({
        "true, true, true",
        "true, true, false",
        "true, false, false",
        "false, true, false",
        "false, false, true"
    })
    void wait_showsWhatTheLaunchInFrontStores(boolean early, boolean first, boolean second) {
        String name = "griddepcontrol, early " + early + ", triggers " + first + " and " + second;
        Chain chain = new Chain();
        for (int round = 1; round <= ROUNDS; round++) {
            int value = 1000 * round;
            probes.together(() -> {
                chain.queueFirst(value, first);
                chain.queueSecond(7, early, second);
            });
            check(name, counted(2 * value + 7, 2), chain.second);
        }
        byte[] ends = probes.download(chain.ends, 8 * BLOCKS);
        byte[] starts = probes.download(chain.starts, 8 * BLOCKS);
        long lastEnd = Long.MIN_VALUE;
        long firstStart = Long.MAX_VALUE;
        for (int block = 0; block < BLOCKS; block++) {
            lastEnd = Math.max(lastEnd, Words.at(ends, 8, block));
            firstStart = Math.min(firstStart, Words.at(starts, 8, block));
        }
        ConformanceReport.observe(name, "nanoseconds_started_before_the_end", lastEnd - firstStart);
    }

    /** What the first launch stores is there for the third, since the second waits. */
    @Test
    void wait_showsWhatIsStoredTwoLaunchesBefore() {
        Chain chain = new Chain();
        for (int round = 1; round <= ROUNDS; round++) {
            int value = 1000 * round;
            probes.together(() -> queueThree(chain, value));
            check("griddepcontrol, three launches", counted(3 * value + 16, 3), chain.third);
        }
    }

    private static void queueThree(Chain chain, int value) {
        chain.queueFirst(value, true);
        chain.queueSecond(7, true, true);
        chain.queueThird(9, true);
    }

    @Test
    void wait_holdsInAGraph() {
        Chain chain = new Chain();
        probes.together(() -> queueThree(chain, 1));
        CudaContext context = probes.context();
        context.enter();
        try (CudaGraph graph = new CudaGraph(context, () -> queueThree(chain, 500))) {
            for (int round = 0; round < ROUNDS; round++) {
                graph.run();
            }
            context.stream().synchronise();
        } finally {
            context.exit();
        }
        check("griddepcontrol, captured", counted(1516, 3), chain.third);
    }

    @Test
    void wait_isHandedOnByAnMbarrier() {
        Chain chain = new Chain();
        probes.together(() -> {
            chain.queueFirst(300, true);
            probes.queue(
                    FILE,
                    "probe_grid_handed_on",
                    BLOCKS,
                    true,
                    launch -> launch.pointer(chain.first).pointer(chain.second).int32(5));
        });
        check("griddepcontrol, handed on", counted(305, 1), chain.second);
    }

    /** Each of many launches finds the counter as the one before it left it. */
    @Test
    void lastBlockToArrive_seesWhatAllHaveStored() {
        int blocks = 264;
        int[] in = new int[THREADS];
        Arrays.setAll(in, i -> i + 1);
        long input = probes.upload(Words.bytes(in));
        long parts = probes.output(4 * blocks * THREADS);
        long arrivals = probes.upload(new byte[4]);
        long out = probes.upload(new byte[4 * (THREADS + 1)]);
        probes.together(() -> {
            for (int launch = 0; launch < ROUNDS; launch++) {
                probes.queue(
                        FILE,
                        "probe_last_to_arrive",
                        blocks,
                        false,
                        one -> one.pointer(input).pointer(parts).pointer(arrivals).pointer(out));
            }
        });
        int[] expected = new int[THREADS + 1];
        Arrays.setAll(expected, i -> in[(i + 33) % THREADS] * (blocks * (blocks + 1) / 2));
        expected[THREADS] = ROUNDS;
        check("last to arrive", expected, out);
        check("last to arrive, counter", new int[1], arrivals);
    }
}
