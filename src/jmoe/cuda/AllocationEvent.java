package jmoe.cuda;

import jdk.jfr.Category;
import jdk.jfr.DataAmount;
import jdk.jfr.Event;
import jdk.jfr.Label;
import jdk.jfr.Name;

/** Device memory taken from the pool. */
@Name("jmoe.DeviceAllocation")
@Label("Device Allocation")
@Category({"jmoe", "CUDA"})
final class AllocationEvent extends Event {
    @Label("Bytes")
    @DataAmount
    long bytes;
}
