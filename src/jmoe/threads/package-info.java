/** The threads of a CPU backend, and how a product is shared out among them. */
@NullMarked
package jmoe.threads;

import org.jspecify.annotations.NullMarked;
