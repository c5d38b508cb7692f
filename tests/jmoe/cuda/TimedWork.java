package jmoe.cuda;

import org.jspecify.annotations.Nullable;

/**
 * A kernel at one size, before it is timed.
 *
 * @param kernel operation and types, as in the kernel's symbol
 * @param shape sizes
 * @param tokens T
 * @param tile it is made to use, or null where it chooses
 * @param sets of operands, used in turn
 * @param bytes that must be read and written, at least
 * @param flops multiplications and additions; 0 where bytes are what counts
 */
record TimedWork(
        String kernel,
        TimedShape shape,
        int tokens,
        @Nullable Tile tile,
        int sets,
        long bytes,
        double flops) {}
