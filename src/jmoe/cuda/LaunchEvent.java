package jmoe.cuda;

import jdk.jfr.Category;
import jdk.jfr.Description;
import jdk.jfr.Event;
import jdk.jfr.Label;
import jdk.jfr.Name;
import jdk.jfr.StackTrace;

import org.jspecify.annotations.Nullable;

/** A kernel handed to the driver. */
@Name("jmoe.KernelLaunch")
@Label("Kernel Launch")
@Category({"jmoe", "CUDA"})
@Description("A kernel queued on the device; the duration is the host's")
@StackTrace(false)
final class LaunchEvent extends Event {
    @Label("Kernel")
    @Nullable String kernel;

    @Label("Grid X")
    int gridX;

    @Label("Grid Y")
    int gridY;

    @Label("Threads per Block")
    int threads;

    @Label("Dynamic Shared Memory")
    int sharedBytes;
}
