package jmoe.cli;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

final class UnitsTest {
    @Test
    void bytes_haveThreeDigits() {
        assertThat(Units.bytes(0)).isEqualTo("0 B");
        assertThat(Units.bytes(999)).isEqualTo("999 B");
        assertThat(Units.bytes(1_000)).isEqualTo("1.00 kB");
        assertThat(Units.bytes(999_499)).isEqualTo("999 kB");
        assertThat(Units.bytes(999_500)).isEqualTo("1.00 MB");
        assertThat(Units.bytes(805_306_368)).isEqualTo("805 MB");
        assertThat(Units.bytes(Long.MAX_VALUE)).isEqualTo("9223372 TB");
    }

    @Test
    void count_hasNoGap() {
        assertThat(Units.count(12)).isEqualTo("12");
        assertThat(Units.count(402_784_256)).isEqualTo("403M");
        assertThat(Units.flops(2_430_000_000L)).isEqualTo("2.43G");
        assertThat(Units.exact(1_234_567)).isEqualTo("1,234,567");
        assertThat(Units.plural(1, "token", "tokens")).isEqualTo("1 token");
        assertThat(Units.plural(0, "token", "tokens")).isEqualTo("0 tokens");
    }

    @Test
    void significant_keepsThreeDigits() {
        assertThat(Units.significant(0)).isEqualTo("0");
        assertThat(Units.significant(1234.5)).isEqualTo("1235");
        assertThat(Units.significant(123.45)).isEqualTo("123");
        assertThat(Units.significant(1.2345)).isEqualTo("1.23");
        assertThat(Units.significant(0.012345)).isEqualTo("0.0123");
        assertThat(Units.significant(0.000001)).isEqualTo("0.0000");
    }

    @Test
    void rate_ofNothingIsADash() {
        assertThat(Units.rate(0, 5)).isEqualTo("-");
        assertThat(Units.rate(5, 0)).isEqualTo("-");
        assertThat(Units.rate(10, 5)).isEqualTo("2.00");
        assertThat(Units.error(0)).isEqualTo("0");
        assertThat(Units.error(1.23e-7)).isEqualTo("1.2e-07");
    }
}
