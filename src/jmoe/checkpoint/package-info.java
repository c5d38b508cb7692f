/**
 * Files of weights: safetensors, NumPy and the JSON beside them. Data is mapped, not copied, and
 * every byte that steers a read is checked first.
 */
@NullMarked
package jmoe.checkpoint;

import org.jspecify.annotations.NullMarked;
