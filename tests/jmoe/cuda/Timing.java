package jmoe.cuda;

import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/**
 * A kernel at one size, timed.
 *
 * @param work what was done
 * @param time how long it takes
 */
record Timing(TimedWork work, DeviceTimer.Time time) {
    double gigabytesPerSecond() {
        return work.bytes() / (1000 * time.micros());
    }

    double teraflops() {
        return work.flops() / 1e6 / time.micros();
    }

    /** Columns of a table: microseconds, share of the copy, and the operations' rate if any. */
    String text(double copyGigabytesPerSecond) {
        String rate = work.flops() == 0 ? "" : String.format(Locale.ROOT, "%.4g", teraflops());
        return String.format(
                Locale.ROOT,
                "%10.2f %8.0f %7.1f %9s",
                time.micros(),
                gigabytesPerSecond(),
                100 * gigabytesPerSecond() / copyGigabytesPerSecond,
                rate);
    }

    Map<String, Object> json(boolean timed, double copyGigabytesPerSecond) {
        TimedShape shape = work.shape();
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("kernel", work.kernel());
        json.put("model", shape.model());
        json.put("tokens", work.tokens());
        json.put("hidden", shape.hidden());
        json.put("intermediate", shape.intermediate());
        json.put("experts", shape.numExperts());
        json.put("top_k", shape.topK());
        Tile tile = work.tile();
        if (tile != null) {
            json.put("tile", tile.label());
        }
        json.put("sets", work.sets());
        json.put("bytes", work.bytes());
        json.put("flops", work.flops());
        if (timed) {
            json.put("microseconds", time.micros());
            json.put("gigabytes_per_second", gigabytesPerSecond());
            json.put("share_of_copy", gigabytesPerSecond() / copyGigabytesPerSecond);
            json.put("host_microseconds", time.hostMicros());
            json.put("repeats", time.repeats());
        }
        return json;
    }
}
