/**
 * The operations of a MoE layer, their arguments and the layer's configuration; no implementation.
 */
@NullMarked
package jmoe.ops;

import org.jspecify.annotations.NullMarked;
