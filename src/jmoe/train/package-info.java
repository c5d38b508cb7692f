/**
 * What keeps the load of experts even: statistics of a routed batch, the losses that training adds
 * for them, and the updates that work without a loss. Everything is computed on the host in double,
 * in the order of tokens, so a result has the same bits whatever backend routed. Entropies and
 * divergences are in nats.
 */
@NullMarked
package jmoe.train;

import org.jspecify.annotations.NullMarked;
