package jmoe.ops;

import jmoe.ops.Capacity.Overflow;
import jmoe.ops.Capacity.Priority;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * A {@link Capacity} once more, from the descriptions: sorted lists of requests, a list of guests
 * for each queue, and the JDK's SplitMix64.
 */
final class CapacityOracle {
    private final RouterConfig config;
    private final Capacity capacity;
    private final List<Token> tokens;
    private final Map<Integer, List<Request>> guests = new HashMap<>();
    private final long limit;
    private double margin = Double.POSITIVE_INFINITY;

    /**
     * What is known of a token.
     *
     * @param ids of its slots, -1 for none; changed where slots move
     * @param weights of its slots, normalised if that happens before; changed as well
     * @param before the weights, normalised in any case
     * @param weightOf the weight that each expert would have in these slots
     * @param ranking all experts that it may have, by falling candidate, without NaN
     * @param dropped set where a slot is dropped
     * @param bestScore of all experts
     * @param stays whether it is protected
     */
    record Token(
            int[] ids,
            double[] weights,
            double[] before,
            double[] weightOf,
            int[] ranking,
            boolean[] dropped,
            double bestScore,
            boolean stays) {}

    /** A slot that wants a place. */
    private record Request(int token, int rank, double key) {}

    CapacityOracle(RouterConfig config, List<Token> tokens) {
        this.config = config;
        this.tokens = tokens;
        capacity = config.capacity();
        limit = capacity.limit(config, tokens.size());
    }

    /** The smallest relative distance of unequal numbers that decided something. */
    double margin() {
        return margin;
    }

    void apply() {
        List<Request> waiting = new ArrayList<>();
        for (int t = 0; t < tokens.size(); t++) {
            for (int k = 0; k < config.topK() && tokens.get(t).stays; k++) {
                if (tokens.get(t).ids[k] >= 0) {
                    guestsOf(tokens.get(t).ids[k]).add(new Request(t, k, Double.NaN));
                }
            }
        }
        for (Request request : requests()) {
            if (!admitted(request, tokens.get(request.token).ids[request.rank])) {
                waiting.add(request);
            }
        }
        int tries = capacity.overflow().rounds(config.numExperts());
        for (int round = 0; round < tries; round++) {
            List<Request> unlucky = new ArrayList<>();
            for (Request request : waiting) {
                if (!moved(request, round)) {
                    unlucky.add(request);
                }
            }
            waiting = unlucky;
        }
        for (Request request : waiting) {
            drop(request.token, request.rank);
        }
    }

    private void drop(int token, int rank) {
        tokens.get(token).weights[rank] = 0;
        tokens.get(token).dropped[rank] = true;
    }

    private List<Request> requests() {
        List<Request> requests = new ArrayList<>();
        Capacity.RandomRouting random = capacity.randomRouting();
        SplittableRandom numbers = new SplittableRandom(random == null ? 0 : random.seed());
        for (int t = 0; t < tokens.size(); t++) {
            Token token = tokens.get(t);
            double sum = Arrays.stream(token.before).sum();
            for (int k = 0; k < config.topK(); k++) {
                double drawn = (numbers.nextLong() >>> 40) / (double) (1 << 24);
                if (token.ids[k] < 0 || token.stays) {
                    continue;
                }
                double key =
                        capacity.priority() == Priority.WEIGHT ? token.before[k] : token.bestScore;
                Request request = new Request(t, k, (float) key);
                if (random != null && k > 0) {
                    double chance = token.before[k] / sum / random.threshold();
                    decidedBy(chance, drawn);
                    if (drawn >= chance) {
                        drop(t, k);
                        continue;
                    }
                }
                requests.add(request);
            }
        }
        requests.sort(order());
        if (capacity.priority() != Priority.POSITION) {
            for (int i = 1; i < requests.size(); i++) {
                decidedBy(requests.get(i - 1).key, requests.get(i).key);
            }
        }
        return requests;
    }

    private Comparator<Request> order() {
        Comparator<Request> falling = Comparator.comparing(r -> !Double.isNaN(r.key));
        falling = falling.thenComparing(r -> Double.isNaN(r.key) ? 0 : -r.key);
        Comparator<Request> earlier = Comparator.comparingInt(r -> r.token);
        Comparator<Request> rank = Comparator.comparingInt(r -> r.rank);
        return switch (capacity.priority()) {
            case POSITION -> rank.thenComparing(earlier);
            case PROBABILITY -> rank.thenComparing(falling).thenComparing(earlier);
            case WEIGHT -> falling.thenComparing(earlier).thenComparing(rank);
        };
    }

    private void decidedBy(double a, double b) {
        if (a != b && Double.isFinite(a) && Double.isFinite(b)) {
            margin = Math.min(margin, Math.abs(a - b) / Math.max(Math.abs(a), Math.abs(b)));
        }
    }

    private boolean admitted(Request request, int expert) {
        List<Request> there = guestsOf(expert);
        return there.size() < limit && there.add(request);
    }

    private List<Request> guestsOf(int expert) {
        int devices = capacity.numDevices() == 0 ? config.numExperts() : capacity.numDevices();
        int queue = (int) ((long) expert * devices / config.numExperts());
        return guests.computeIfAbsent(queue, q -> new ArrayList<>());
    }

    private boolean moved(Request request, int round) {
        Token token = tokens.get(request.token);
        int to;
        if (capacity.overflow() instanceof Overflow.Ring) {
            // 1, -1, 2, -2, ...
            int step = round % 2 == 0 ? round / 2 + 1 : -(round / 2 + 1);
            to = Math.floorMod(token.ids[request.rank] + step, config.numExperts());
        } else if (config.topK() + round < token.ranking.length) {
            to = token.ranking[config.topK() + round];
        } else {
            return false;
        }
        boolean has = Arrays.stream(token.ids).anyMatch(id -> id == to);
        if (has || !admitted(request, to)) {
            return false;
        }
        token.ids[request.rank] = to;
        if (capacity.overflow() instanceof Overflow.NextChoice
                && !Double.isNaN(token.weights[request.rank])) {
            token.weights[request.rank] = token.weightOf[to];
        }
        return true;
    }
}
