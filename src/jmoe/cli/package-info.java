/**
 * The {@code jmoe} command: run a layer, look into files, check against golden data. Results go to
 * standard output, everything else to standard error.
 */
@NullMarked
package jmoe.cli;

import org.jspecify.annotations.NullMarked;
