package jmoe.cli;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.NavigableSet;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.LongStream;

/** Tensors of a file, folded: a model has thousands whose names differ in numbers only. */
final class TensorList {
    /**
     * A number that stands for a layer or an expert, as in {@code layers.3} or {@code expert_3}.
     */
    private static final Pattern INDEX = Pattern.compile("(?<=[._])\\d{1,9}(?=[._]|$)");

    /**
     * Tensors shown as one line.
     *
     * @param parts what stands between the numbers, one more than there are numbers
     * @param indices the numbers of each tensor
     */
    private record Group(List<String> parts, DType dtype, long[] shape, List<int[]> indices) {
        /** The names, for example {@code layers.{0..15}.experts.{0..63}.up_proj.weight}. */
        String pattern() {
            StringBuilder name = new StringBuilder(parts.getFirst());
            for (int i = 1; i < parts.size(); i++) {
                NavigableSet<Integer> values = values(i - 1);
                name.append(values.size() == 1 ? values.first().toString() : ranges(values));
                name.append(parts.get(i));
            }
            return name.toString();
        }

        private NavigableSet<Integer> values(int position) {
            NavigableSet<Integer> values = new TreeSet<>();
            for (int[] index : indices) {
                values.add(index[position]);
            }
            return values;
        }

        /** Whether every combination of the numbers occurs, so that the pattern tells no lie. */
        boolean isComplete() {
            long combinations = 1;
            for (int i = 0; i < parts.size() - 1; i++) {
                combinations *= values(i).size();
            }
            return combinations == indices.size();
        }

        long numBytes() {
            long elements = 1;
            for (long dim : shape) {
                elements *= dim;
            }
            return dtype.numBytes(elements) * indices.size();
        }
    }

    private final Map<String, Tensor> tensors;

    /**
     * A listing.
     *
     * @param tensors by name, in the order to show them in
     */
    TensorList(Map<String, Tensor> tensors) {
        this.tensors = tensors;
    }

    /** For example {@code 39 tensors, 66,872 bytes}. */
    String summary() {
        return Units.plural(tensors.size(), "tensor", "tensors")
                + ", "
                + (numBytes() < 1000 ? numBytes() + " bytes" : Units.bytes(numBytes()));
    }

    private long numBytes() {
        return tensors.values().stream().mapToLong(Tensor::numBytes).sum();
    }

    void print(Screen screen, boolean all) {
        if (tensors.isEmpty()) {
            screen.line("  none");
            return;
        }
        TextTable table = new TextTable("llrrl", "type", "shape", "bytes", "count", "name");
        for (Group group : all ? single() : folded()) {
            table.row(
                    group.dtype.name(),
                    Units.shape(group.shape),
                    Units.bytes(group.numBytes()),
                    group.indices.size() == 1 ? "" : screen.times() + group.indices.size(),
                    group.pattern());
        }
        table.print(screen);
    }

    private List<Group> single() {
        List<Group> groups = new ArrayList<>();
        tensors.forEach((name, tensor) ->
                groups.add(
                        new Group(
                                List.of(oneLine(name)),
                                tensor.dtype(),
                                tensor.shape(),
                                List.of(new int[0]))));
        return groups;
    }

    /** Over all numbers where every combination occurs, else over the last one only. */
    private List<Group> folded() {
        List<Group> groups = new ArrayList<>();
        for (Group group : folded(tensors, Integer.MAX_VALUE)) {
            if (group.isComplete()) {
                groups.add(group);
            } else {
                Map<String, Tensor> members = new LinkedHashMap<>();
                for (int[] index : group.indices) {
                    String name = name(group, index);
                    members.put(name, tensors.get(name));
                }
                groups.addAll(folded(members, 1));
            }
        }
        return groups;
    }

    private static String name(Group group, int[] index) {
        StringBuilder name = new StringBuilder(group.parts.getFirst());
        for (int i = 0; i < index.length; i++) {
            name.append(index[i]).append(group.parts.get(i + 1));
        }
        return name.toString();
    }

    private static List<Group> folded(Map<String, Tensor> tensors, int maxNumbers) {
        Map<List<Object>, Group> groups = new LinkedHashMap<>();
        tensors.forEach((name, tensor) -> {
            List<String> parts = new ArrayList<>();
            int[] index = split(name, maxNumbers, parts);
            List<Object> key = new ArrayList<>(parts);
            key.add(tensor.dtype());
            key.add(Units.shape(tensor.shape()));
            groups.computeIfAbsent(
                            key,
                            k ->
                                    new Group(
                                            parts,
                                            tensor.dtype(),
                                            tensor.shape(),
                                            new ArrayList<>()))
                    .indices
                    .add(index);
        });
        return List.copyOf(groups.values());
    }

    /** The last numbers of a name; what is between them goes to {@code parts}. */
    private static int[] split(String name, int maxNumbers, List<String> parts) {
        List<int[]> spans = new ArrayList<>();
        Matcher matcher = INDEX.matcher(name);
        while (matcher.find()) {
            String digits = matcher.group();
            // A leading zero would be lost.
            if (digits.length() == 1 || digits.charAt(0) != '0') {
                spans.add(new int[] {matcher.start(), matcher.end()});
            }
        }
        List<int[]> last = spans.subList(Math.max(0, spans.size() - maxNumbers), spans.size());
        int[] index = new int[last.size()];
        int from = 0;
        for (int i = 0; i < index.length; i++) {
            int[] span = last.get(i);
            parts.add(oneLine(name.substring(from, span[0])));
            index[i] = Integer.parseInt(name, span[0], span[1], 10);
            from = span[1];
        }
        parts.add(oneLine(name.substring(from)));
        return index;
    }

    private static String oneLine(String text) {
        return text.replaceAll("\\p{Cntrl}", " ");
    }

    private static String ranges(NavigableSet<Integer> values) {
        List<String> ranges = new ArrayList<>();
        int first = values.first();
        int last = first;
        for (int value : values.tailSet(first, false)) {
            if (value != last + 1) {
                ranges.add(range(first, last));
                first = value;
            }
            last = value;
        }
        ranges.add(range(first, last));
        return "{" + String.join(",", ranges) + "}";
    }

    private static String range(int first, int last) {
        return first == last
                ? Integer.toString(first)
                : last == first + 1 ? first + "," + last : first + ".." + last;
    }

    /** Every tensor for programs, and their sums. */
    void putJson(Map<String, Object> object) {
        List<Map<String, Object>> list = new ArrayList<>();
        tensors.forEach((name, tensor) -> {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("name", name);
            json.put("dtype", tensor.dtype().name());
            json.put("shape", LongStream.of(tensor.shape()).boxed().toList());
            json.put("bytes", tensor.numBytes());
            list.add(json);
        });
        object.put("tensors", list);
        object.put("total_bytes", numBytes());
    }
}
