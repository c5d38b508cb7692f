package jmoe.vector;

import static jdk.incubator.vector.VectorOperators.FMA;

import jdk.incubator.vector.FloatVector;

/** Sums of products in F32, in an order of our own: that of reduceLanes is left to the JVM. */
final class DotProduct {
    private DotProduct() {}

    /**
     * The sum of the products; the content of b is lost.
     *
     * @param a one factor
     * @param b the other
     * @param count elements of each, a multiple of the lanes
     */
    static double of(float[] a, float[] b, int count) {
        FloatVector even = FloatVector.zero(Lanes.FLOATS);
        FloatVector odd = FloatVector.zero(Lanes.FLOATS);
        for (int i = 0; i < count; i += 2 * Lanes.COUNT) {
            FloatVector x = FloatVector.fromArray(Lanes.FLOATS, a, i);
            even = x.lanewise(FMA, FloatVector.fromArray(Lanes.FLOATS, b, i), even);
            int next = i + Lanes.COUNT;
            if (next < count) {
                FloatVector y = FloatVector.fromArray(Lanes.FLOATS, a, next);
                odd = y.lanewise(FMA, FloatVector.fromArray(Lanes.FLOATS, b, next), odd);
            }
        }
        even.add(odd).intoArray(b, 0);
        double sum = 0;
        for (int lane = 0; lane < Lanes.COUNT; lane++) {
            sum += b[lane];
        }
        return sum;
    }
}
