package jmoe.nativecpu;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;

/**
 * The functions of a library, and the tier that they are to compute with. They check what numbers
 * they can check; memory must be as large as the product says, which only the caller knows.
 */
@SuppressWarnings("restricted")
public final class NativeLibrary {
    static final int OK = 0;
    static final int BAD_PRODUCT = 1;
    static final int BAD_SLOT = 2;
    static final int BAD_TIER = 3;

    private final Functions functions;
    private final Tier tier;

    /** Handles by the name of the function. */
    private record Functions(
            MethodHandle features,
            MethodHandle bestTier,
            MethodHandle blocks,
            MethodHandle blockBytes,
            MethodHandle preferLargePages,
            MethodHandle pack,
            MethodHandle itemRows,
            MethodHandle tileRows,
            MethodHandle itemBlocks,
            MethodHandle scratchBytes,
            MethodHandle multiply,
            MethodHandle multiplyAdds) {}

    private NativeLibrary(Functions functions, Tier tier) {
        this.functions = functions;
        this.tier = tier;
    }

    /**
     * Binds all functions.
     *
     * @param symbols of a library of the right ABI
     * @throws IllegalArgumentException if it lacks one
     */
    static NativeLibrary of(SymbolLookup symbols) {
        MemoryLayout[] item = {
            ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS, ADDRESS,
            JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG
        };
        Functions functions =
                new Functions(
                        function(symbols, "jmoe_cpu_features", JAVA_INT),
                        function(symbols, "jmoe_cpu_best_tier", JAVA_INT),
                        function(symbols, "jmoe_cpu_blocks", JAVA_LONG, ADDRESS),
                        function(symbols, "jmoe_cpu_block_bytes", JAVA_LONG, ADDRESS),
                        Linker.nativeLinker()
                                .downcallHandle(
                                        symbol(symbols, "jmoe_cpu_prefer_large_pages"),
                                        FunctionDescriptor.ofVoid(ADDRESS, JAVA_LONG)),
                        function(
                                symbols,
                                "jmoe_cpu_pack",
                                JAVA_INT,
                                ADDRESS,
                                ADDRESS,
                                ADDRESS,
                                JAVA_LONG,
                                JAVA_LONG,
                                JAVA_LONG),
                        function(symbols, "jmoe_cpu_item_rows", JAVA_LONG, ADDRESS),
                        function(symbols, "jmoe_cpu_tile_rows", JAVA_LONG, ADDRESS),
                        function(symbols, "jmoe_cpu_item_blocks", JAVA_LONG, ADDRESS),
                        function(
                                symbols,
                                "jmoe_cpu_scratch_bytes",
                                JAVA_LONG,
                                ADDRESS,
                                JAVA_LONG,
                                JAVA_LONG),
                        function(symbols, "jmoe_cpu_multiply", JAVA_INT, item),
                        function(symbols, "jmoe_cpu_multiply_adds", JAVA_LONG, ADDRESS));
        return new NativeLibrary(functions, Tier.AVX2);
    }

    /** The number that says which functions there are, and what they take. */
    static int abi(SymbolLookup symbols) {
        return number(function(symbols, "jmoe_cpu_abi", JAVA_INT));
    }

    private static MethodHandle function(
            SymbolLookup symbols, String name, MemoryLayout result, MemoryLayout... parameters) {
        return Linker.nativeLinker()
                .downcallHandle(symbol(symbols, name), FunctionDescriptor.of(result, parameters));
    }

    private static MemorySegment symbol(SymbolLookup symbols, String name) {
        return symbols.find(name)
                .orElseThrow(() -> new IllegalArgumentException("lacks the function " + name));
    }

    /** The same functions, to compute with a tier that this machine has. */
    NativeLibrary at(Tier other) {
        return new NativeLibrary(functions, other);
    }

    /**
     * The instructions that are computed with.
     *
     * @return the tier
     */
    public Tier tier() {
        return tier;
    }

    int features() {
        return number(functions.features);
    }

    /** Number of the highest tier that this machine has, 0 for none. */
    int bestTier() {
        return number(functions.bestTier);
    }

    long blocks(MemorySegment product) {
        return number(functions.blocks, product);
    }

    long blockBytes(MemorySegment product) {
        return number(functions.blockBytes, product);
    }

    int itemRows(MemorySegment product) {
        return Math.toIntExact(number(functions.itemRows, product));
    }

    int tileRows(MemorySegment product) {
        return Math.toIntExact(number(functions.tileRows, product));
    }

    int itemBlocks(MemorySegment product) {
        return Math.toIntExact(number(functions.itemBlocks, product));
    }

    long scratchBytes(MemorySegment product, long rows, long blocks) {
        try {
            return (long) functions.scratchBytes.invokeExact(product, rows, blocks);
        } catch (Throwable e) {
            throw unchecked(e);
        }
    }

    void preferLargePages(MemorySegment memory) {
        try {
            functions.preferLargePages.invokeExact(memory, memory.byteSize());
        } catch (Throwable e) {
            throw unchecked(e);
        }
    }

    int pack(
            MemorySegment product,
            MemorySegment weight,
            MemorySegment packed,
            long group,
            long block,
            long blocks) {
        try {
            return (int) functions.pack.invokeExact(product, weight, packed, group, block, blocks);
        } catch (Throwable e) {
            throw unchecked(e);
        }
    }

    int multiply(
            MemorySegment product,
            MemorySegment x,
            MemorySegment rowToSlot,
            MemorySegment slotWeights,
            MemorySegment weight,
            MemorySegment weightScale,
            MemorySegment bias,
            MemorySegment y,
            MemorySegment scratch,
            long group,
            long row,
            long rows,
            long block,
            long blocks) {
        try {
            return (int)
                    functions.multiply.invokeExact(
                            product,
                            x,
                            rowToSlot,
                            slotWeights,
                            weight,
                            weightScale,
                            bias,
                            y,
                            scratch,
                            group,
                            row,
                            rows,
                            block,
                            blocks);
        } catch (Throwable e) {
            throw unchecked(e);
        }
    }

    /** Multiply-adds on registers alone; returns how many operations they were. */
    long multiplyAdds(MemorySegment product) {
        return number(functions.multiplyAdds, product);
    }

    private static int number(MethodHandle function) {
        try {
            return (int) function.invokeExact();
        } catch (Throwable e) {
            throw unchecked(e);
        }
    }

    private static long number(MethodHandle function, MemorySegment product) {
        try {
            return (long) function.invokeExact(product);
        } catch (Throwable e) {
            throw unchecked(e);
        }
    }

    /** C throws nothing; what passing the arguments may throw is unchecked. */
    private static RuntimeException unchecked(Throwable e) {
        switch (e) {
            case RuntimeException unchecked -> throw unchecked;
            case Error error -> throw error;
            default -> throw new IllegalStateException(e);
        }
    }
}
