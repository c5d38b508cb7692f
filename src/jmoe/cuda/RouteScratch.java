package jmoe.cuda;

import jmoe.ops.Capacity;
import jmoe.ops.Capacity.Priority;
import jmoe.ops.RouterConfig;

/**
 * Scratch memory of a routed batch, each array after the other; 0 for those that nobody needs.
 *
 * @param candidates of the rules of {@link RareRoute}
 * @param keys what slots or tokens queue by, F32
 * @param order what that gives, I32
 * @param asks queue of each slot, I32, or -2 minus that of a protected one
 * @param placed 1 or 0 by slot, F32
 * @param used slots of each queue, I32
 * @param ranked experts by falling candidate, I32 [tokens, numRanked]
 * @param rankedWeights F32, not used
 * @param numRanked experts of each token in {@code ranked}
 */
record RouteScratch(
        long candidates,
        long keys,
        long order,
        long asks,
        long placed,
        long used,
        long ranked,
        long rankedWeights,
        int numRanked) {
    static RouteScratch of(
            Scratch scratch,
            RouterConfig config,
            int tokens,
            boolean protects,
            long candidateBytes) {
        Capacity capacity = config.capacity();
        if (capacity == null) {
            long candidates = candidateBytes == 0 ? 0 : scratch.address(candidateBytes);
            return new RouteScratch(candidates, 0, 0, 0, 0, 0, 0, 0, 0);
        }
        RouterConfig ranking = capacity.ranking(config);
        // Never empty: an address of 0 says that there is no such array.
        long tokenBytes = 4L * Math.max(1, tokens);
        long slots = tokenBytes * config.topK();
        boolean byWeight = capacity.priority() == Priority.WEIGHT;
        boolean moves = capacity.overflow().rounds(config.numExperts()) > 0;
        boolean asks =
                moves
                        || protects
                        || capacity.randomRouting() != null
                        || capacity.numDevices() > 0
                        || (byWeight && capacity.normaliseAfter());
        long keyBytes =
                switch (capacity.priority()) {
                    case POSITION -> 0;
                    case PROBABILITY -> tokenBytes;
                    case WEIGHT -> slots;
                };
        long rankedBytes = ranking == null ? 0 : tokenBytes * ranking.topK();
        long[] bytes = {
            candidateBytes,
            keyBytes,
            keyBytes,
            asks ? slots : 0,
            moves ? slots : 0,
            moves ? 4L * config.numExperts() : 0,
            rankedBytes,
            rankedBytes
        };
        long all = 0;
        for (long one : bytes) {
            all += one;
        }
        long next = all == 0 ? 0 : scratch.address(all);
        for (int i = 0; i < bytes.length; i++) {
            long size = bytes[i];
            bytes[i] = size == 0 ? 0 : next;
            next += size;
        }
        return new RouteScratch(
                bytes[0],
                bytes[1],
                bytes[2],
                bytes[3],
                bytes[4],
                bytes[5],
                bytes[6],
                bytes[7],
                ranking == null ? 0 : ranking.topK());
    }
}
