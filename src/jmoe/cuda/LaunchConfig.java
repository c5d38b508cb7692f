package jmoe.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;

/** The CUlaunchConfig of cuda.h with up to two attributes. */
final class LaunchConfig {
    static final StructLayout LAYOUT =
            MemoryLayout.structLayout(
                    JAVA_INT.withName("gridDimX"),
                    JAVA_INT.withName("gridDimY"),
                    JAVA_INT.withName("gridDimZ"),
                    JAVA_INT.withName("blockDimX"),
                    JAVA_INT.withName("blockDimY"),
                    JAVA_INT.withName("blockDimZ"),
                    JAVA_INT.withName("sharedMemBytes"),
                    MemoryLayout.paddingLayout(4),
                    JAVA_LONG.withName("hStream"),
                    JAVA_LONG.withName("attrs"),
                    JAVA_INT.withName("numAttrs"),
                    MemoryLayout.paddingLayout(4));

    /** CUlaunchAttribute: a number, padding, and a union of which the first twelve bytes serve. */
    static final StructLayout ATTRIBUTE =
            MemoryLayout.structLayout(
                    JAVA_INT.withName("id"),
                    MemoryLayout.paddingLayout(4),
                    MemoryLayout.sequenceLayout(3, JAVA_INT).withName("value"),
                    MemoryLayout.paddingLayout(52));

    private static final int CLUSTER_DIMENSION = 4;
    private static final int PROGRAMMATIC_STREAM_SERIALIZATION = 6;

    private static final long STREAM = offset("hStream");
    private static final long ATTRIBUTES = offset("attrs");
    private static final long NUM_ATTRIBUTES = offset("numAttrs");
    private static final long VALUE =
            ATTRIBUTE.byteOffset(MemoryLayout.PathElement.groupElement("value"));

    private final MemorySegment config;
    private final MemorySegment attributes;

    LaunchConfig(Arena arena) {
        config = arena.allocate(LAYOUT);
        attributes = arena.allocate(2 * ATTRIBUTE.byteSize(), 8);
    }

    private static long offset(String name) {
        return LAYOUT.byteOffset(MemoryLayout.PathElement.groupElement(name));
    }

    /** The structure for a launch; valid until the next one. */
    MemorySegment fill(
            CudaKernel kernel, int gridX, int gridY, int clusterX, boolean early, long stream) {
        config.setAtIndex(JAVA_INT, 0, gridX);
        config.setAtIndex(JAVA_INT, 1, gridY);
        config.setAtIndex(JAVA_INT, 2, 1);
        config.setAtIndex(JAVA_INT, 3, kernel.threads());
        config.setAtIndex(JAVA_INT, 4, 1);
        config.setAtIndex(JAVA_INT, 5, 1);
        config.setAtIndex(JAVA_INT, 6, kernel.sharedBytes());
        config.set(JAVA_LONG, STREAM, stream);
        int count = 0;
        if (clusterX > 1) {
            setAttribute(count++, CLUSTER_DIMENSION, clusterX);
        }
        if (early) {
            setAttribute(count++, PROGRAMMATIC_STREAM_SERIALIZATION, 1);
        }
        config.set(JAVA_LONG, ATTRIBUTES, count == 0 ? 0 : attributes.address());
        config.set(JAVA_INT, NUM_ATTRIBUTES, count);
        return config;
    }

    private void setAttribute(int index, int id, int value) {
        long at = index * ATTRIBUTE.byteSize();
        attributes.set(JAVA_INT, at, id);
        attributes.set(JAVA_INT, at + VALUE, value);
        // The other dimensions of a cluster; not read for other attributes.
        attributes.set(JAVA_INT, at + VALUE + 4, 1);
        attributes.set(JAVA_INT, at + VALUE + 8, 1);
    }
}
