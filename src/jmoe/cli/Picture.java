package jmoe.cli;

import de.erichseifert.vectorgraphics2d.Document;
import de.erichseifert.vectorgraphics2d.VectorGraphics2D;
import de.erichseifert.vectorgraphics2d.svg.SVGProcessor;
import de.erichseifert.vectorgraphics2d.util.PageSize;

import jmoe.checkpoint.CheckpointException;

import java.awt.Graphics2D;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.function.Consumer;

import javax.imageio.ImageIO;

/** Draws and writes; {@link ChartFile} has asked whether that is possible. */
final class Picture {
    private Picture() {}

    /**
     * Writes a picture in the format that the name of its file asks for.
     *
     * @param option that names the file
     */
    static void write(String option, Path file, int width, int height, Consumer<Graphics2D> paint) {
        System.setProperty("java.awt.headless", "true");
        try (OutputStream out = Files.newOutputStream(file)) {
            if (ChartFile.format(option, file).equals("svg")) {
                VectorGraphics2D graphics = new VectorGraphics2D();
                paint.accept(graphics);
                PageSize size = new PageSize(0, 0, width, height);
                Document svg = new SVGProcessor().getDocument(graphics.getCommands(), size);
                svg.writeTo(out);
            } else {
                BufferedImage image = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
                Graphics2D graphics = image.createGraphics();
                paint.accept(graphics);
                graphics.dispose();
                ImageIO.write(image, "png", out);
            }
        } catch (IOException e) {
            throw new CheckpointException(
                    option + ": " + file + ": cannot be written: " + e.getMessage(), e);
        }
    }
}
