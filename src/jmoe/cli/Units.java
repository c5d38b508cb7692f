package jmoe.cli;

import java.math.BigDecimal;
import java.math.MathContext;
import java.util.Arrays;
import java.util.Locale;

/** Numbers as people read them: three significant digits, decimal prefixes, one spelling. */
final class Units {
    private static final String[] BYTES = {"B", "kB", "MB", "GB", "TB"};
    private static final String[] COUNTS = {"", "k", "M", "B", "T"};

    private Units() {}

    /** For example {@code 805 MB}. */
    static String bytes(long bytes) {
        return scaled(bytes, BYTES, " ");
    }

    /** For example {@code 6.29M}, {@code 1.2B}. */
    static String count(long count) {
        return scaled(count, COUNTS, "");
    }

    /** For example {@code 2.43G}: arithmetic is counted in giga, parameters in billions. */
    static String flops(long flops) {
        return count(flops).replace('B', 'G');
    }

    /** For example {@code 12,345,678}. */
    static String exact(long count) {
        return String.format(Locale.ROOT, "%,d", count);
    }

    private static String scaled(long value, String[] prefixes, String gap) {
        double number = value;
        int prefix = 0;
        while (number >= 999.5 && prefix < prefixes.length - 1) {
            number /= 1000;
            prefix++;
        }
        String digits = prefix == 0 ? Long.toString(value) : significant(number);
        return digits + gap + prefixes[prefix];
    }

    /** Milliseconds, three significant digits, for example {@code 0.0321}. */
    static String millis(double nanos) {
        return significant(nanos / 1e6);
    }

    /** A rate, three significant digits; a dash if there is nothing to count. */
    static String rate(long amount, double nanos) {
        return amount == 0 || nanos == 0 ? "-" : significant(amount / nanos);
    }

    /** Three significant digits without an exponent; very small numbers are 0.000. */
    static String significant(double value) {
        if (value == 0 || !Double.isFinite(value)) {
            return value == 0 ? "0" : Double.toString(value);
        }
        // The magnitude after rounding: 0.9996 is 1.00, not 1.000.
        BigDecimal rounded = new BigDecimal(value).round(new MathContext(3));
        int magnitude = rounded.precision() - rounded.scale() - 1;
        int decimals = Math.clamp(2 - magnitude, 0, 4);
        return String.format(Locale.ROOT, "%." + decimals + "f", value);
    }

    /** A relative error, for example {@code 1.2e-07}; zero is {@code 0}. */
    static String error(double error) {
        return error == 0 ? "0" : String.format(Locale.ROOT, "%.1e", error);
    }

    /** For example {@code [64, 2048]}. */
    static String shape(long[] shape) {
        return Arrays.toString(shape);
    }

    /** {@code one} or {@code many} with the count before it. */
    static String plural(long count, String one, String many) {
        return exact(count) + " " + (count == 1 ? one : many);
    }
}
