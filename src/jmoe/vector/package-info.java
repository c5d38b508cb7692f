/**
 * The operations with the Vector API on all cores.
 *
 * <p>Everything is computed in F32, whatever the storage, except routing, which is computed in
 * double. Results have the same bits for any number of threads and in every execution mode of the
 * JVM: an element is always computed by the same operations in the same order, however the work is
 * blocked, and nothing is used whose intrinsic may differ from its fallback (no reducing or
 * transcendental lanewise operation). A NaN in an output is always the canonical one. Only the
 * number of lanes, a property of the machine and of the JVM's flags, changes the order of sums.
 */
@NullMarked
package jmoe.vector;

import org.jspecify.annotations.NullMarked;
