/** jmoe: Mixture-of-Experts layers on the JVM. */
@NullMarked
package jmoe;

import org.jspecify.annotations.NullMarked;
