package jmoe.cuda;

import jdk.jfr.Category;
import jdk.jfr.DataAmount;
import jdk.jfr.Description;
import jdk.jfr.Event;
import jdk.jfr.Label;
import jdk.jfr.Name;
import jdk.jfr.StackTrace;

import org.jspecify.annotations.Nullable;

/** A copy to, from or within the device. */
@Name("jmoe.DeviceCopy")
@Label("Device Copy")
@Category({"jmoe", "CUDA"})
@Description("A copy to, from or within the device; the duration is the host's")
@StackTrace(false)
final class CopyEvent extends Event {
    @Label("Direction")
    @Nullable String direction;

    @Label("Bytes")
    @DataAmount
    long bytes;

    void end(String copyDirection, long copyBytes) {
        direction = copyDirection;
        bytes = copyBytes;
        commit();
    }
}
