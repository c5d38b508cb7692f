package jmoe.cuda;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Arrays as the device has them: little-endian. */
final class Words {
    private Words() {}

    static byte[] bytes(int... words) {
        ByteBuffer bytes = ByteBuffer.allocate(4 * words.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asIntBuffer().put(words);
        return bytes.array();
    }

    static byte[] bytes(short... halves) {
        ByteBuffer bytes = ByteBuffer.allocate(2 * halves.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asShortBuffer().put(halves);
        return bytes.array();
    }

    /** The value of 1, 2, 4 or 8 bytes at an index; only the last kind has a sign. */
    static long at(byte[] bytes, int width, int index) {
        long value = 0;
        for (int i = width - 1; i >= 0; i--) {
            value = value << 8 | bytes[index * width + i] & 0xff;
        }
        return value;
    }

    /** Sets 1, 2 or 4 bytes at an offset. */
    static void set(byte[] bytes, int offset, int width, int value) {
        for (int i = 0; i < width; i++) {
            bytes[offset + i] = (byte) (value >> 8 * i);
        }
    }
}
