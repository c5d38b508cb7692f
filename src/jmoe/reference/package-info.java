/**
 * The law: plain loops in double precision, one after the other. Read these to learn what an
 * operation means.
 */
@NullMarked
package jmoe.reference;

import org.jspecify.annotations.NullMarked;
