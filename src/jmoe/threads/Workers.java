package jmoe.threads;

import org.jspecify.annotations.Nullable;

import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Threads that share out the items of a loop. The caller takes part as worker 0; the other threads
 * are parked between loops. Which worker gets which items is left to chance, so a task must not let
 * its result depend on it.
 */
public final class Workers implements AutoCloseable {
    /** The body of a loop. */
    public interface Task {
        /**
         * Does some of the items.
         *
         * @param worker 0 to {@link #count} - 1; never used by two threads at the same time
         * @param from first item
         * @param to past the last item
         */
        void run(int worker, long from, long to);
    }

    private final String name;
    private final ReentrantLock turn = new ReentrantLock();
    private final Thread[] threads;
    private volatile @Nullable Loop loop;
    private volatile boolean closed;

    /** Whether {@link #view} was once seen to be allowed; that never changes back. */
    private volatile boolean opensConfined;

    /**
     * Starts the threads.
     *
     * @param name of the backend that they compute for, for messages and the names of threads
     * @param count workers, the caller among them
     */
    public Workers(String name, int count) {
        this.name = name;
        if (count < 1) {
            throw new IllegalArgumentException("threads: expected at least 1, got " + count);
        }
        threads = new Thread[count - 1];
        for (int i = 0; i < threads.length; i++) {
            int worker = i + 1;
            threads[i] =
                    Thread.ofPlatform()
                            .daemon()
                            .name("jmoe-" + name + "-" + worker)
                            .unstarted(() -> serve(worker));
        }
        try {
            for (Thread thread : threads) {
                thread.start();
            }
        } catch (Throwable e) {
            close();
            throw e;
        }
    }

    /**
     * The backend that the threads compute for.
     *
     * @return its name
     */
    public String name() {
        return name;
    }

    /**
     * How many threads compute.
     *
     * @return workers, the caller among them
     */
    public int count() {
        return threads.length + 1;
    }

    /**
     * Refuses work after {@link #close}.
     *
     * @throws IllegalStateException if closed
     */
    public void checkOpen() {
        if (closed) {
            throw new IllegalStateException(
                    "the " + name + " backend is closed; close it after its last use");
        }
    }

    /**
     * Runs an operation, made of any number of loops, while no other thread runs one.
     *
     * @param operation what to do on the calling thread
     * @throws IllegalStateException if closed, or if called inside an operation
     */
    public void exclusively(Runnable operation) {
        checkNotInside();
        turn.lock();
        try {
            checkOpen();
            operation.run();
        } finally {
            turn.unlock();
        }
    }

    /**
     * Runs a loop on all workers and returns when all items are done. What a task throws is thrown
     * here, after the items that had begun; the others are skipped.
     *
     * @param items how many; 0 is allowed
     * @param grain items that a worker takes at a time
     * @param task the body
     * @throws IllegalStateException if called outside {@link #exclusively} or inside another loop
     */
    public void run(long items, long grain, Task task) {
        if (!turn.isHeldByCurrentThread() || loop != null) {
            throw new IllegalStateException("a loop was started inside a task or out of turn");
        }
        Loop current = new Loop(items, grain, task, Thread.currentThread());
        loop = current;
        long helpers = Math.min(threads.length, (items - 1) / grain);
        for (int i = 0; i < helpers; i++) {
            LockSupport.unpark(threads[i]);
        }
        current.work(0);
        boolean interrupted = false;
        while (!current.isDone()) {
            LockSupport.park(this);
            interrupted |= Thread.interrupted();
        }
        loop = null;
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
        current.rethrow();
    }

    /**
     * The segment as every worker may use it. Memory confined to the calling thread is viewed anew:
     * its arena cannot be closed meanwhile because its owner waits in {@link #run}. Other memory
     * stays as it is, so that closing its arena is noticed.
     *
     * @param data memory that the calling thread may use
     * @return the same memory
     */
    @SuppressWarnings("restricted")
    public MemorySegment view(MemorySegment data) {
        if (isShared(data)) {
            return data;
        }
        MemorySegment open = MemorySegment.ofAddress(data.address()).reinterpret(data.byteSize());
        return data.isReadOnly() ? open.asReadOnly() : open;
    }

    /**
     * Refuses memory that {@link #view} could not open, before an operation begins. Nothing is
     * tried for other memory: where the JVM only warns of native access, it would do so for users
     * who do not need it.
     *
     * @param argument its name
     * @param data its memory
     * @throws UnsupportedOperationException if only the calling thread may use it
     */
    public void checkViewable(String argument, MemorySegment data) {
        if (opensConfined || isShared(data)) {
            return;
        }
        try {
            view(data);
            opensConfined = true;
        } catch (IllegalCallerException e) {
            throw new UnsupportedOperationException(
                    argument
                            + ": belongs to a confined arena, which the threads of the "
                            + name
                            + " backend may not share without native access; start the JVM with"
                            + " --enable-native-access=ALL-UNNAMED or use Arena.ofShared()",
                    e);
        }
    }

    private boolean isShared(MemorySegment data) {
        return threads.length == 0 || data.isAccessibleBy(threads[0]);
    }

    /** Ends the threads, after the running operation if there is one; may be called again. */
    @Override
    public void close() {
        checkNotInside();
        turn.lock();
        try {
            closed = true;
        } finally {
            turn.unlock();
        }
        boolean interrupted = false;
        for (Thread thread : threads) {
            LockSupport.unpark(thread);
            while (thread.isAlive()) {
                try {
                    thread.join();
                } catch (InterruptedException e) {
                    interrupted = true;
                }
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private void checkNotInside() {
        Thread self = Thread.currentThread();
        boolean inside = turn.isHeldByCurrentThread();
        for (Thread thread : threads) {
            inside |= thread == self;
        }
        if (inside) {
            throw new IllegalStateException(
                    "the " + name + " backend was called from inside one of its own operations");
        }
    }

    private void serve(int worker) {
        while (!closed) {
            if (!takePart(worker)) {
                LockSupport.park(this);
                Thread.interrupted(); // an interrupted thread would not park again but spin
            }
        }
    }

    /** A method of its own, so that a parked thread's frame does not keep the last loop alive. */
    private boolean takePart(int worker) {
        Loop current = loop;
        if (current == null || current.isDrawn()) {
            return false;
        }
        current.work(worker);
        return true;
    }

    /** One run. A thread that comes late finds everything drawn and touches nothing else. */
    private static final class Loop {
        private final long items;
        private final long grain;
        private final Task task;
        private final Thread caller;
        private final AtomicLong drawn = new AtomicLong();
        private final AtomicLong done = new AtomicLong();
        private final AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();

        Loop(long items, long grain, Task task, Thread caller) {
            this.items = items;
            this.grain = grain;
            this.task = task;
            this.caller = caller;
        }

        boolean isDrawn() {
            return drawn.get() >= items;
        }

        boolean isDone() {
            return done.get() >= items;
        }

        void work(int worker) {
            for (long from = drawn.getAndAdd(grain); from < items; from = drawn.getAndAdd(grain)) {
                long to = Math.min(items, from + grain);
                try {
                    task.run(worker, from, to);
                } catch (Throwable e) {
                    failure.compareAndSet(null, e);
                    finish(Math.max(0, items - drawn.getAndSet(items)));
                }
                finish(to - from);
            }
        }

        private void finish(long count) {
            if (done.addAndGet(count) == items) {
                LockSupport.unpark(caller);
            }
        }

        void rethrow() {
            switch (failure.get()) {
                case null -> {}
                case RuntimeException e -> throw e;
                case Error e -> throw e;
                case Throwable e -> throw new IllegalStateException(e);
            }
        }
    }
}
