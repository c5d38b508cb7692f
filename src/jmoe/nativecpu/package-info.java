/**
 * The products of a layer with AMX, AVX-512 or AVX2, in a library written in C; the other
 * operations come from the kernels that this backend is given. Users call it {@code native}.
 *
 * <p>Results have the same bits for any number of threads and do not depend on the batch. On the
 * tiers AVX2 and AVX-512, and on AMX wherever no tiles are used, they have the bits of a sum in
 * rising order of inputs with one rounding per product and addition, whatever the vectors' width.
 * Tiles multiply BF16 by BF16 where there are no slot weights; they add pairs of products, so that
 * last places differ, and take numbers below the normal range of F32 for zero.
 *
 * <p>{@code NativeProbe} finds and loads the library; {@code NativeLibrary} is its functions,
 * {@code Tier} what they compute with; {@code Product} describes a product to them, {@code Panels}
 * is a weight as they read it, in {@code PanelMemory}; {@code GroupedGemm} shares a product out,
 * with {@code Scratch} for every worker.
 *
 * <p>The library is the one in the jar, or the one that {@code -Djmoe.native.library} names; {@code
 * -Djmoe.native.tier=avx2}, {@code avx512} or {@code amx} lowers the tier, never raises it.
 */
@NullMarked
package jmoe.nativecpu;

import org.jspecify.annotations.NullMarked;
