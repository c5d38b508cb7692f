package jmoe.cuda;

/**
 * An operand of wgmma in shared memory at a 1024-byte boundary, 128 bytes of each row along k, as a
 * matrix descriptor tells the hardware.
 *
 * @param kMajor whether the elements of a row follow each other
 * @param mode 0 no swizzle, 1 of 128, 2 of 64, 3 of 32 bytes
 * @param elementBytes bytes of an element
 * @param extent rows, of a or of b
 */
record SharedTile(boolean kMajor, int mode, int elementBytes, int extent) {
    private static final int CHUNK = 16;
    private static final int ROW_BYTES = 128;
    private static final int STEP_BYTES = 32;

    /** Elements along k. */
    int depth() {
        return ROW_BYTES / elementBytes;
    }

    int bytes() {
        return extent * ROW_BYTES;
    }

    /** Bytes from one group of eight rows (along k, of eight k) to the next. */
    int strideBytes() {
        if (kMajor) {
            return 8 * pitch(mode);
        }
        return mode == 0 ? 8 * CHUNK : 8 * pitch(mode);
    }

    /** Bytes between what does not follow by {@link #strideBytes}. */
    int leadingBytes() {
        if (kMajor) {
            return mode == 0 ? extent * CHUNK : CHUNK;
        }
        return mode == 0 ? extent * CHUNK : depth() / 8 * strideBytes();
    }

    /** Where a step along k, 32 bytes deep, begins. */
    int start(int step) {
        if (!kMajor) {
            int groups = STEP_BYTES / elementBytes / 8 * step;
            return groups * (mode == 0 ? leadingBytes() : strideBytes());
        }
        if (mode == 0) {
            return 2 * step * leadingBytes();
        }
        int bytes = step * STEP_BYTES;
        return bytes / pitch(mode) * pitch(mode) * extent + bytes % pitch(mode);
    }

    /** Byte of an element. */
    int offset(int row, int k) {
        int stepDepth = STEP_BYTES / elementBytes;
        return offset(
                kMajor,
                mode,
                elementBytes,
                start(k / stepDepth),
                leadingBytes(),
                strideBytes(),
                row,
                k % stepDepth);
    }

    /** The descriptor of a step of this tile at an address. */
    long descriptor(int address, int step) {
        return descriptor(address + start(step), leadingBytes(), strideBytes(), mode);
    }

    static long descriptor(int start, int leadingBytes, int strideBytes, int mode) {
        return (start & 0x3ffffL) >> 4
                | (leadingBytes & 0x3ffffL) >> 4 << 16
                | (strideBytes & 0x3ffffL) >> 4 << 32
                | (long) mode << 62;
    }

    /** Bytes of a row within an atom. */
    private static int pitch(int mode) {
        return mode == 0 ? CHUNK : 256 >> mode;
    }

    /** Byte of an element that a descriptor with these fields reaches. */
    static int offset(
            boolean kMajor,
            int mode,
            int elementBytes,
            int start,
            int leadingBytes,
            int strideBytes,
            int row,
            int k) {
        int pitch = pitch(mode);
        int chunkElements = CHUNK / elementBytes;
        int address = start;
        if (kMajor && mode != 0) {
            address += row % 8 * pitch + row / 8 * strideBytes + k * elementBytes;
        } else if (kMajor) {
            address += row % 8 * CHUNK + row / 8 * strideBytes;
            address += k / chunkElements * leadingBytes + k % chunkElements * elementBytes;
        } else if (mode != 0) {
            int across = pitch / elementBytes;
            address += row % across * elementBytes + row / across * leadingBytes;
            address += k % 8 * pitch + k / 8 * strideBytes;
        } else {
            address += row % chunkElements * elementBytes + row / chunkElements * strideBytes;
            address += k % 8 * CHUNK + k / 8 * leadingBytes;
        }
        return swizzled(mode, address);
    }

    /** Exchanges 16-byte pieces by the bits of the address above them. */
    static int swizzled(int mode, int address) {
        int bits = mode == 0 ? 0 : 4 - mode;
        return address ^ (address >> 7 & (1 << bits) - 1) << 4;
    }
}
