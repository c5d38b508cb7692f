/** Typed views of off-heap memory: the element types, their exact conversions, and every check. */
@NullMarked
package jmoe.tensor;

import org.jspecify.annotations.NullMarked;
