/**
 * Published claims about Mixture-of-Experts layers that one machine can check without training,
 * each tried with the operations that everybody else uses.
 */
@NullMarked
package jmoe.experiment;

import org.jspecify.annotations.NullMarked;
