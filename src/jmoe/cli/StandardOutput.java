package jmoe.cli;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;

/**
 * Standard output whose failures are seen: {@code System.out} keeps them to itself. A reader that
 * went away, as head does, is none; what it did not want is dropped.
 */
final class StandardOutput extends OutputStream {
    private final OutputStream out = new FileOutputStream(FileDescriptor.out);
    private boolean unread;

    @Override
    public void write(int b) throws IOException {
        write(new byte[] {(byte) b}, 0, 1);
    }

    @Override
    public void write(byte[] bytes, int offset, int length) throws IOException {
        if (unread) {
            return;
        }
        try {
            out.write(bytes, offset, length);
        } catch (IOException e) {
            String message = e.getMessage();
            if (message == null || !message.contains("Broken pipe")) {
                throw e;
            }
            unread = true;
        }
    }
}
