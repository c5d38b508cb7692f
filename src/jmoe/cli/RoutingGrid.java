package jmoe.cli;

import jmoe.cli.RoutedTokens.OfType;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The weights that tokens give to experts, as a grid of a size that can be seen: neighbours share a
 * row or a column where there are too many.
 *
 * @param tokens of all types
 * @param experts of all token types, one type after the other
 * @param tokensPerRow neighbours in a row; the last row may have fewer
 * @param expertsPerColumn neighbours in a column; the last column may have fewer
 * @param weights [rows][columns]: sum over the column's experts, mean over the row's tokens;
 *     weights that are not finite count as 0
 */
record RoutingGrid(
        long tokens, int experts, long tokensPerRow, int expertsPerColumn, double[][] weights) {
    static final int MAX_ROWS = 64;
    static final int MAX_COLUMNS = 128;

    static RoutingGrid of(RoutedTokens routed) {
        int experts = 0;
        for (OfType type : routed.types()) {
            experts += type.rule().numExperts();
        }
        long tokens = routed.tokens();
        long tokensPerRow = Math.max(1, Math.ceilDiv(tokens, MAX_ROWS));
        int expertsPerColumn = Math.ceilDiv(experts, MAX_COLUMNS);
        int rows = (int) Math.ceilDiv(tokens, tokensPerRow);
        double[][] weights = new double[rows][Math.ceilDiv(experts, expertsPerColumn)];
        RoutingGrid grid =
                new RoutingGrid(tokens, experts, tokensPerRow, expertsPerColumn, weights);
        int firstExpert = 0;
        for (OfType type : routed.types()) {
            grid.add(type, firstExpert);
            firstExpert += type.rule().numExperts();
        }
        return grid;
    }

    private void add(OfType type, int firstExpert) {
        int topK = type.rule().topK();
        for (long token = 0; token < tokens; token++) {
            int row = (int) (token / tokensPerRow);
            long tokensOfRow = Math.min(tokensPerRow, tokens - row * tokensPerRow);
            for (long slot = token * topK; slot < (token + 1) * topK; slot++) {
                int id = type.topkIds().getInt(slot);
                float weight = type.topkWeights().getFloat(slot);
                if (id >= 0 && Float.isFinite(weight)) {
                    int column = (firstExpert + id) / expertsPerColumn;
                    weights[row][column] += weight / tokensOfRow;
                }
            }
        }
    }

    /** The largest weight. */
    double max() {
        double max = 0;
        for (double[] row : weights) {
            for (double weight : row) {
                max = Math.max(max, weight);
            }
        }
        return max;
    }

    /** For programs. */
    Map<String, Object> json() {
        List<List<Double>> rows = new ArrayList<>();
        for (double[] row : weights) {
            List<Double> cells = new ArrayList<>();
            for (double weight : row) {
                cells.add(weight);
            }
            rows.add(cells);
        }
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("tokens_per_row", tokensPerRow);
        json.put("experts_per_column", expertsPerColumn);
        json.put("weights", rows);
        return json;
    }
}
