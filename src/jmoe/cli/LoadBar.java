package jmoe.cli;

import jmoe.checkpoint.LoadProgress;

import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

import org.jspecify.annotations.Nullable;

/** A progress bar on standard error while many weights load, if somebody watches. */
final class LoadBar implements LoadProgress, AutoCloseable {
    /** Less is loaded before a bar could be read. */
    private static final long MIN_BYTES = 64L << 20;

    private final Screen screen;
    private @Nullable ProgressBar bar;

    LoadBar(Screen screen) {
        this.screen = screen;
    }

    @Override
    public void loaded(long bytes, long totalBytes) {
        if (!screen.progress() || totalBytes < MIN_BYTES) {
            return;
        }
        if (bar == null) {
            bar =
                    new ProgressBarBuilder()
                            .setTaskName("loading weights")
                            .setInitialMax(totalBytes)
                            .setUnit(" MB", 1_000_000)
                            .setStyle(
                                    screen.unicode()
                                            ? ProgressBarStyle.UNICODE_BLOCK
                                            : ProgressBarStyle.ASCII)
                            .setConsumer(
                                    new ConsoleProgressBarConsumer(System.err, Screen.COLUMNS - 1))
                            .build();
        }
        bar.stepTo(bytes);
    }

    @Override
    public void close() {
        if (bar != null) {
            bar.close();
        }
    }
}
