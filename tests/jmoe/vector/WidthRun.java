package jmoe.vector;

import static org.junit.platform.engine.discovery.DiscoverySelectors.selectClass;
import static org.junit.platform.engine.discovery.DiscoverySelectors.selectNestedClass;

import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.TagFilter;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;
import org.junit.platform.launcher.listeners.SummaryGeneratingListener;

import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.List;

/**
 * A program that runs the tests of this package whose course depends on the width of vectors, in a
 * JVM of its own because the width is fixed when the classes load. It ends with status 1 if any
 * failed.
 */
final class WidthRun {
    private WidthRun() {}

    /**
     * Runs the tests.
     *
     * @param args none; the width comes from {@link Lanes#BITS_PROPERTY}
     */
    public static void main(String[] args) {
        LauncherDiscoveryRequest request =
                LauncherDiscoveryRequestBuilder.request()
                        .selectors(
                                selectNestedClass(
                                        List.of(VectorKernelsTest.class),
                                        VectorKernelsTest.TwoThreads.class),
                                selectClass(VectorProperties.class),
                                selectClass(HalfFloatsTest.class),
                                selectClass(SigmoidTest.class),
                                selectClass(GeluTest.class))
                        .filters(TagFilter.excludeTags("large"))
                        .build();
        SummaryGeneratingListener listener = new SummaryGeneratingListener();
        LauncherFactory.create().execute(request, listener);
        var summary = listener.getSummary();
        PrintWriter out = new PrintWriter(System.out, true, StandardCharsets.UTF_8);
        summary.printFailuresTo(out);
        out.println(
                Lanes.FLOATS.vectorBitSize()
                        + " bits: "
                        + summary.getTestsSucceededCount()
                        + " passed, "
                        + summary.getTotalFailureCount()
                        + " failed");
        boolean good = summary.getTotalFailureCount() == 0 && summary.getTestsSucceededCount() > 0;
        System.exit(good ? 0 : 1);
    }
}
