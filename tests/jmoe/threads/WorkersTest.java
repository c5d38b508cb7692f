package jmoe.threads;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicReference;

@Timeout(value = 60, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class WorkersTest {
    @ParameterizedTest
    @ValueSource(ints = {1, 2, 5})
    void run_doesEveryItemOnce(int count) {
        try (Workers workers = new Workers("test", count)) {
            for (int items : new int[] {0, 1, 2, 7, 1000}) {
                for (int grain : new int[] {1, 3, 5000}) {
                    AtomicIntegerArray done = new AtomicIntegerArray(items);
                    workers.exclusively(() ->
                            workers.run(
                                    items,
                                    grain,
                                    (worker, from, to) -> {
                                        assertThat(worker).isBetween(0, count - 1);
                                        for (long i = from; i < to; i++) {
                                            done.incrementAndGet((int) i);
                                        }
                                    }));
                    for (int i = 0; i < items; i++) {
                        assertThat(done.get(i)).isEqualTo(1);
                    }
                }
            }
        }
    }

    @Test
    void run_usesAllWorkers() {
        try (Workers workers = new Workers("test", 3)) {
            // Every item waits for all others to begin, so each worker must take one.
            CountDownLatch begun = new CountDownLatch(3);
            AtomicIntegerArray items = new AtomicIntegerArray(3);
            workers.exclusively(() ->
                    workers.run(
                            3,
                            1,
                            (worker, from, to) -> {
                                items.incrementAndGet(worker);
                                begun.countDown();
                                await(begun);
                            }));
            assertThat(items.toString()).isEqualTo("[1, 1, 1]");
        }
    }

    @Test
    void run_throwsInTheCallerWhatATaskThrows_andStaysUsable() {
        try (Workers workers = new Workers("test", 3)) {
            for (Throwable thrown :
                    List.of(
                            new IllegalStateException("task"),
                            new IndexOutOfBoundsException("task"),
                            new AssertionError("task"))) {
                for (long culprit : new long[] {0, 1, 57, 999}) {
                    assertThatThrownBy(() -> runFailing(workers, culprit, thrown)).isSameAs(thrown);
                }
                assertThat(countItems(workers, 1000)).isEqualTo(1000);
            }
        }
    }

    @Test
    void run_survivesAFailureOfEveryItem() {
        try (Workers workers = new Workers("test", 4)) {
            for (int repeat = 0; repeat < 200; repeat++) {
                assertThatThrownBy(() ->
                                workers.exclusively(() ->
                                        workers.run(
                                                100,
                                                1,
                                                (worker, from, to) -> {
                                                    throw new IllegalStateException("item " + from);
                                                })))
                        .isInstanceOf(IllegalStateException.class)
                        .hasMessageStartingWith("item");
            }
            assertThat(countItems(workers, 1000)).isEqualTo(1000);
        }
    }

    private static void runFailing(Workers workers, long culprit, Throwable thrown) {
        workers.exclusively(() ->
                workers.run(
                        1000,
                        1,
                        (worker, from, to) -> {
                            if (from == culprit) {
                                if (thrown instanceof Error e) {
                                    throw e;
                                }
                                throw (RuntimeException) thrown;
                            }
                        }));
    }

    private static int countItems(Workers workers, int items) {
        AtomicInteger done = new AtomicInteger();
        workers.exclusively(() ->
                workers.run(items, 1, (worker, from, to) -> done.addAndGet((int) (to - from))));
        return done.get();
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 3})
    void exclusively_refusesToNest(int count) {
        try (Workers workers = new Workers("test", count)) {
            List<Runnable> misuses =
                    List.of(
                            () -> workers.exclusively(() -> {}),
                            workers::close,
                            () -> workers.run(1, 1, (worker, from, to) -> {}));
            for (Runnable misuse : misuses) {
                assertThatThrownBy(() ->
                                workers.exclusively(() ->
                                        workers.run(100, 1, (worker, from, to) -> misuse.run())))
                        .isInstanceOf(IllegalStateException.class);
            }
            assertThatThrownBy(() -> workers.run(1, 1, (worker, from, to) -> {}))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessageContaining("out of turn");
            assertThatThrownBy(() -> workers.exclusively(workers::close))
                    .isInstanceOf(IllegalStateException.class);
            assertThat(countItems(workers, 10)).isEqualTo(10);
        }
    }

    @Test
    void exclusively_letsThreadsTakeTurns() throws InterruptedException {
        try (Workers workers = new Workers("test", 3)) {
            AtomicInteger inside = new AtomicInteger();
            AtomicReference<Throwable> failure = new AtomicReference<>();
            List<Thread> callers = new ArrayList<>();
            for (int c = 0; c < 8; c++) {
                Thread caller =
                        new Thread(() -> {
                            for (int repeat = 0; repeat < 100; repeat++) {
                                workers.exclusively(() -> {
                                    assertThat(inside.incrementAndGet()).isEqualTo(1);
                                    AtomicInteger done = new AtomicInteger();
                                    workers.run(10, 1, (w, from, to) -> done.incrementAndGet());
                                    assertThat(done.get()).isEqualTo(10);
                                    inside.decrementAndGet();
                                });
                            }
                        });
                caller.setUncaughtExceptionHandler((t, e) -> failure.set(e));
                callers.add(caller);
                caller.start();
            }
            for (Thread caller : callers) {
                caller.join();
            }
            assertThat(failure.get()).isNull();
        }
    }

    @Test
    void run_finishesDespiteInterruptsAndKeepsThem() {
        try (Workers workers = new Workers("test", 3)) {
            Thread.currentThread().interrupt();
            assertThat(countItems(workers, 1000)).isEqualTo(1000);
            assertThat(Thread.interrupted()).isTrue();
            Thread caller = Thread.currentThread();
            CountDownLatch helping = new CountDownLatch(2);
            workers.exclusively(() ->
                    workers.run(
                            2,
                            1,
                            (worker, from, to) -> {
                                helping.countDown();
                                await(helping);
                                if (worker != 0) {
                                    caller.interrupt();
                                }
                            }));
            assertThat(Thread.interrupted()).isTrue();
            assertThat(countItems(workers, 1000)).isEqualTo(1000);
        }
    }

    @Test
    void close_endsTheThreadsAndLaterCallsFail() {
        List<Thread> threads = new ArrayList<>();
        Workers workers = new Workers("test", 3);
        CountDownLatch begun = new CountDownLatch(3);
        workers.exclusively(() ->
                workers.run(
                        3,
                        1,
                        (worker, from, to) -> {
                            synchronized (threads) {
                                threads.add(Thread.currentThread());
                            }
                            begun.countDown();
                            await(begun);
                        }));
        workers.close();
        workers.close();
        threads.remove(Thread.currentThread());
        assertThat(threads)
                .hasSize(2)
                .allSatisfy(t -> {
                    assertThat(t.isDaemon()).isTrue();
                    assertThat(t.isAlive()).isFalse();
                    assertThat(t.getName()).startsWith("jmoe-test-");
                });
        assertThatThrownBy(workers::checkOpen).isInstanceOf(IllegalStateException.class);
        assertThatThrownBy(() -> workers.exclusively(() -> {}))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("the test backend is closed; close it after its last use");
    }

    @Test
    void close_waitsForTheRunningOperation() throws InterruptedException {
        Workers workers = new Workers("test", 2);
        CountDownLatch begun = new CountDownLatch(1);
        CountDownLatch release = new CountDownLatch(1);
        AtomicInteger done = new AtomicInteger();
        Thread caller =
                new Thread(() ->
                        workers.exclusively(() ->
                                workers.run(
                                        100,
                                        1,
                                        (worker, from, to) -> {
                                            begun.countDown();
                                            await(release);
                                            done.incrementAndGet();
                                        })));
        caller.start();
        begun.await();
        Thread closer = new Thread(workers::close);
        closer.start();
        release.countDown();
        closer.join();
        assertThat(done.get()).isEqualTo(100);
        caller.join();
    }

    @Test
    void view_opensMemoryConfinedToTheCallerOnly() {
        try (Workers workers = new Workers("test", 2);
                Arena confined = Arena.ofConfined();
                Arena shared = Arena.ofShared()) {
            MemorySegment mine = confined.allocate(8);
            MemorySegment everyones = shared.allocate(8);
            assertThat(workers.view(everyones)).isSameAs(everyones);
            MemorySegment view = workers.view(mine);
            assertThat(view.byteSize()).isEqualTo(8);
            assertThat(workers.view(mine.asReadOnly()).isReadOnly()).isTrue();
            workers.exclusively(() ->
                    workers.run(
                            8,
                            1,
                            (worker, from, to) ->
                                    view.set(ValueLayout.JAVA_BYTE, from, (byte) from)));
            assertThat(mine.get(ValueLayout.JAVA_BYTE, 7)).isEqualTo((byte) 7);
        }
    }

    @Test
    void constructor_wantsAThread() {
        assertThatThrownBy(() -> new Workers("test", 0))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("threads: expected at least 1, got 0");
    }

    private static void await(CountDownLatch latch) {
        boolean interrupted = false;
        while (latch.getCount() > 0) {
            try {
                latch.await();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
