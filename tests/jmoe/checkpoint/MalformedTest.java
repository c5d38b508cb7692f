package jmoe.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.tensor.DType;
import jmoe.tensor.Tensor;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** Every file of fixtures/malformed, see its TABLE.md. */
class MalformedTest {
    private static final Path FOLDER = Path.of("tests/golden/fixtures/malformed");

    private static final String REJECTED =
            """
            empty_file; has 0 bytes
            short_length; has 4 bytes
            truncated_header; reaches beyond the file
            header_length_beyond_file; reaches beyond the file
            header_length_huge; header length 9223372036854775807 is above the limit
            header_length_all_ones; header length 18446744073709551615 is above the limit
            header_length_zero; header length is 0
            header_over_100MB; above the limit of 100000000
            header_not_json; not valid JSON
            header_is_array; must begin with '{'
            header_leading_space; must begin with '{'
            header_invalid_utf8; not valid UTF-8
            truncated_data; tensor 'b': data_offsets [24, 32] reach beyond the 28 bytes
            offsets_beyond_file; tensor 'b': data_offsets [24, 4096] reach beyond
            offsets_overlap; tensor 'b': begins at byte 20 of the data but the tensor before it ends at byte 24: they overlap
            offsets_hole; tensor 'b': begins at byte 28 of the data but the tensor before it ends at byte 24: a hole
            offsets_reversed; tensor 'b': data_offsets: begin 32 is after end 24
            offsets_negative; tensor 'b': data_offsets: -8 is negative
            offsets_not_two; tensor 'b': data_offsets: expected 2 integers, got 3
            offsets_string; tensor 'b': data_offsets: expected an integer, got a string
            offsets_fraction; tensor 'b': data_offsets: expected an integer, got 24.5
            trailing_bytes; has 16 bytes after the last tensor
            size_mismatch; tensor 'b': F32 [3] has 12 bytes but data_offsets hold 8
            dtype_unknown; tensor 'b': dtype 'F33' is not known
            dtype_wrong_size; tensor 'b': F64 [2] has 16 bytes but data_offsets hold 8
            dtype_lowercase; tensor 'b': dtype 'f32' is not known
            dtype_missing; tensor 'b': dtype is missing
            shape_missing; tensor 'b': shape is missing
            shape_negative; tensor 'b': shape: -2 is negative
            shape_two_negatives; tensor 'b': shape: -1 is negative
            shape_overflow_64; tensor 'b': F32 [4294967296, 4294967296] overflows
            shape_overflow_bytes; tensor 'b': F32 [4611686018427387904] overflows
            shape_overflow_31; tensor 'b': F32 [65536, 65536] has 17179869184 bytes but data_offsets hold 0
            shape_beyond_u64; tensor 'b': shape: 36893488147419103234 is above 2^63 - 1
            duplicate_key; Duplicate Object property "a"
            duplicate_key_same; Duplicate Object property "a"
            metadata_not_strings; __metadata__: 'n': expected a string, got 3
            metadata_not_object; __metadata__: expected an object of strings, got a string
            entry_not_object; tensor 'b': expected an object, got 7
            nested_deep; tensor 'a': expected an object, got a list
            """;

    @ParameterizedTest
    @CsvSource(textBlock = REJECTED, delimiter = ';', quoteCharacter = '`')
    void open_namesFileAndViolation(String name, String violation) {
        Path file = FOLDER.resolve(name + ".safetensors");

        assertThatThrownBy(() -> Safetensors.open(file))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith(file + ": ")
                .hasMessageContaining(violation)
                .message()
                .doesNotContain("\n")
                .hasSizeLessThan(400);
    }

    @ParameterizedTest
    @CsvSource({
        "valid_reference, 'a b'",
        "valid_padded_header, 'a b'",
        "valid_metadata, 'a b'",
        "valid_zero_size, 'a b z'"
    })
    void open_readsValid(String name, String names) {
        try (Safetensors file = Safetensors.open(FOLDER.resolve(name + ".safetensors"))) {
            assertThat(String.join(" ", file.names())).isEqualTo(names);
            Tensor a = file.tensor("a");
            assertThat(a.describe()).isEqualTo("F32 [2, 3]");
            Tensor b = file.tensor("b");
            assertThat(b.describe()).isEqualTo("F32 [2]");
            for (int i = 0; i < 6; i++) {
                assertThat(a.getDouble(i)).isEqualTo(i);
            }
            assertThat(b.getDouble(0)).isEqualTo(6);
            assertThat(b.getDouble(1)).isEqualTo(7);
        }
    }

    @Test
    void open_readsScalarZeroSizeAndMetadata() {
        try (Safetensors file = Safetensors.open(FOLDER.resolve("valid_scalar.safetensors"))) {
            assertThat(file.names()).containsExactly("s");
            assertThat(file.tensor("s").describe()).isEqualTo("F32 []");
            assertThat(file.tensor("s").dtype()).isEqualTo(DType.F32);
            assertThat(file.metadata()).isEmpty();
        }
        try (Safetensors file = Safetensors.open(FOLDER.resolve("valid_zero_size.safetensors"))) {
            assertThat(file.tensor("z").describe()).isEqualTo("F32 [0, 4]");
        }
        try (Safetensors file = Safetensors.open(FOLDER.resolve("valid_metadata.safetensors"))) {
            assertThat(file.metadata()).containsOnly(Map.entry("format", "pt"));
        }
    }

    @Test
    void table_coversEveryFile() throws IOException {
        List<String> tested = new ArrayList<>();
        REJECTED.lines().forEach(line -> tested.add(line.substring(0, line.indexOf(';'))));
        assertThat(tested).hasSize(40);
        Stream.of("reference", "padded_header", "metadata", "zero_size", "scalar")
                .forEach(name -> tested.add("valid_" + name));
        try (Stream<Path> files = Files.list(FOLDER)) {
            assertThat(
                            files.map(file -> file.getFileName().toString())
                                    .filter(name -> name.endsWith(".safetensors"))
                                    .map(name -> name.replace(".safetensors", "")))
                    .containsExactlyInAnyOrderElementsOf(tested);
        }
    }
}
