package jmoe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import jmoe.Preset.Published;
import jmoe.ops.Activation;
import jmoe.ops.Capacity;
import jmoe.ops.CapacityLimit;
import jmoe.ops.LogitTransform;
import jmoe.ops.MoeConfig;
import jmoe.ops.RouterConfig;
import jmoe.ops.Selection;
import jmoe.tensor.DType;

import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;

final class PresetTest {
    @Test
    void names_areUniqueAndInLowerCase() {
        List<String> names = new ArrayList<>();
        for (Preset preset : Presets.all()) {
            names.add(preset.name());
            names.addAll(preset.aliases());
        }
        assertThat(names)
                .doesNotHaveDuplicates()
                .allMatch(n -> n.equals(n.toLowerCase(Locale.ROOT)));
        for (String name : names) {
            assertThat(
                            Presets.of(name).name().equals(name)
                                    || Presets.of(name).aliases().contains(name))
                    .isTrue();
        }
    }

    @Test
    void of_takesAliasesAndSuggestsNames() {
        assertThat(Presets.of("DeepSeek-R1")).isEqualTo(Presets.of("deepseek-v3"));
        assertThat(Presets.of("minimax-text-01")).isEqualTo(Presets.of("minimax-m1"));
        assertThat(Presets.of(Presets.DEFAULT).config().hidden()).isEqualTo(2048);
        assertThatThrownBy(() -> Presets.of("mixtral-8x7"))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage(
                        "preset: expected the name of a published layer, got mixtral-8x7; nearest:"
                                + " mixtral-8x7b, mixtral-8x22b, minimax-m1");
    }

    @Test
    void weightBytes_areThoseOfThePublishedModels() {
        assertThat(Presets.of("olmoe-1b-7b").weightBytes(DType.BF16))
                .isEqualTo(2L * 3 * 64 * 1024 * 2048 + 2L * 64 * 2048);
        assertThat(Presets.of("deepseek-v2-lite").weightBytes(DType.F32))
                .isEqualTo(4L * (3 * 66 * 1408 * 2048 + 64 * 2048));
        // Not gated: two matrices.
        assertThat(Presets.of("switch-base-128").weightBytes(DType.F16))
                .isEqualTo(2L * 2 * 128 * 3072 * 768 + 2L * 128 * 768);
        assertThat(Presets.of("ernie-4.5-vl-28b").weightBytes(DType.BF16))
                .isEqualTo(2L * 3 * 2560 * (64 * (1536 + 512) + 2 * 1536) + 2L * 2 * 64 * 2560);
    }

    @Test
    void halved_stopsWhereTheRuleNeedsMore() {
        Preset preset = Presets.of("deepseek-v3");
        int last = 0;
        for (Preset next = preset; next != null; next = next.halved()) {
            RouterConfig router = next.config().routers().getFirst();
            assertThat(router.numExperts()).isEqualTo(next.config().numExperts());
            last = router.numExperts();
        }
        // Four of eight groups must hold eight experts.
        assertThat(last).isEqualTo(16);
        assertThat(Presets.of("jetmoe-8b").halved().halved().config().numExperts()).isEqualTo(2);
        assertThat(Presets.of("jetmoe-8b").halved().halved().halved()).isNull();
    }

    @Test
    void halved_keepsGroupsAndHalvesKeys() {
        Preset pangu = Presets.of("pangu-pro-moe-72b").halved().halved().halved();
        assertThat(pangu.config().numExperts()).isEqualTo(8);
        assertThat(pangu.halved()).isNull();
        Preset peer = Presets.of("peer-1m").halved();
        assertThat(peer.config().numExperts()).isEqualTo(512 * 512);
        assertThat(peer.config().routers().getFirst().numLogits()).isEqualTo(2 * 512);
        assertThat(peer.form()).isEqualTo(new ExpertForm.Neurons(8, 128));
        // Every text expert may take the same token.
        assertThat(Presets.of("moma-1.4b").halved()).isNull();
    }

    @Test
    void halved_isNotOfExpertsWithoutWeightsNorOfDevicesThatDoNotDivide() {
        Preset mixtral = Presets.of("mixtral-8x7b");
        RouterConfig rule = mixtral.config().routers().getFirst();
        assertThat(preset(RouterConfig.softmaxTopK(10, 2, true), 2).halved()).isNull();
        Capacity devices =
                new Capacity(new CapacityLimit.Tokens(4), Capacity.Priority.WEIGHT, false)
                        .perDevice(8);
        assertThat(preset(with(rule, rule.selection(), null), 0).halved()).isNotNull();
        assertThat(preset(with(rule, rule.selection(), devices), 0).halved()).isNull();
        RouterConfig levels = with(rule, new Selection.TwoLevel(4, 1, 2), null);
        assertThat(preset(levels, 0).halved()).isNull();
    }

    private static RouterConfig with(
            RouterConfig rule, Selection selection, @Nullable Capacity capacity) {
        return new RouterConfig(
                rule.numExperts(),
                rule.topK(),
                rule.score(),
                selection,
                rule.normalisation(),
                rule.factor(),
                false,
                capacity,
                RouterConfig.ALL_TOKENS);
    }

    private static Preset preset(RouterConfig rule, int numNullExperts) {
        MoeConfig config =
                new MoeConfig(
                        "own",
                        16,
                        16,
                        rule.numExperts() - numNullExperts,
                        0,
                        Activation.SWIGLU,
                        List.of(rule),
                        List.of(8),
                        0,
                        false,
                        1,
                        numNullExperts);
        return new Preset("own", config, Set.of());
    }

    @Test
    void halved_keepsEachExpertsShareOfTheTokens() {
        Preset preset = Presets.of("switch-base-128");
        assertThat(limit(preset)).isEqualTo(20);
        assertThat(limit(preset.halved())).isEqualTo(40);
    }

    private static long limit(Preset preset) {
        RouterConfig router = preset.config().routers().getFirst();
        return router.capacity().limit(router, 1280);
    }

    @Test
    void of_suggestsFirstWhatWasTypedInPart() {
        assertThatThrownBy(() -> Presets.of("olmoe"))
                .hasMessageContaining("nearest: olmoe-1b-7b, ");
        assertThatThrownBy(() -> Presets.of("granite"))
                .hasMessageContaining("nearest: granite-3.0-1b-a400m, granite-3.0-3b-a800m, ");
    }

    @Test
    void sharedExperts_areOfTheRoutedOnesWidth() {
        assertThat(Presets.of("deepseek-v2").sharedExperts()).isEqualTo(2);
        assertThat(Presets.of("mixtral-8x7b").sharedExperts()).isZero();
        assertThat(Presets.of("qwen1.5-moe-a2.7b").sharedExperts()).isEqualTo(4);
        assertThat(Presets.of("ernie-4.5-vl-28b").sharedExperts()).isEqualTo(2);
    }

    @Test
    void publishedBytes_countScales() {
        // 17 bytes for 32 elements.
        assertThat(Presets.of("gpt-oss-20b").publishedBytes())
                .isEqualTo(32L * 3 * 2880 * 2880 / 32 * 17 + 2L * 32 * 2880);
        // 257 experts of three matrices in blocks of 128 x 128.
        assertThat(Presets.of("deepseek-v3").publishedBytes())
                .isEqualTo(257L * 3 * (7168 * 2048 + 4 * 56 * 16) + 2L * 256 * 7168);
        assertThat(Presets.of("survey4-demo").publishedBytes())
                .isEqualTo(4L * (8 * 512 + 8 * 512 * 512));
        assertThat(Presets.of("survey2-demo").publishedBytes())
                .isEqualTo(4L * (4 * 10 + 4 * (10 * 32 + 32 * 2)));
        assertThat(Presets.of("minimax-m1").publishedBytes())
                .isEqualTo(Presets.of("minimax-m1").weightBytes(DType.BF16));
    }

    /**
     * Everything of a model but its MoE layers, after its released configuration: norms and biases
     * are left out.
     */
    private static double dense(String name) {
        return switch (name) {
            // T5: encoder and decoder, every second layer sparse; cross-attention in the decoder.
            case "switch-base-128" ->
                    table(32128, 768) + 12 * (4 + 8) * 768.0 * 768 + 12 * 2 * 768.0 * 3072;
            case "switch-large-128" ->
                    table(32128, 1024) + 24 * (4 + 8) * 1024.0 * 1024 + 24 * 2 * 1024.0 * 4096;
            case "switch-xxl-128" ->
                    2 * table(32128, 4096)
                            + 24 * (4 + 8) * 4096.0 * 4096
                            + 24 * swiglu(4096, 10240);
            // Every fourth layer sparse, each with a dense one beside it.
            case "st-moe-32b" ->
                    2 * table(32128, 5120)
                            + 24 * (4 + 8) * 5120.0 * 64 * 128
                            + 48 * swiglu(5120, 20480);
            case "glam-64b64e" ->
                    table(256000, 8192)
                            + 64 * attention(8192, 128, 128, 128)
                            + 32 * swiglu(8192, 32768);
            // Patches of 16 x 16 of images of 224 x 224; a head for the classes of JFT-300M.
            case "v-moe-b16" ->
                    16 * 16 * 3 * 768
                            + table(197, 768)
                            + 12 * attention(768, 12, 12, 64)
                            + 6 * 2 * 768.0 * 3072
                            + 768.0 * 768
                            + table(18291, 768);
            case "grok-1" -> table(131072, 6144) + 64 * attention(6144, 48, 8, 128);
            case "skywork-moe-146b" -> 2 * table(65519, 4608) + 52 * attention(4608, 36, 36, 128);
            case "pangu-pro-moe-72b" -> 2 * table(153376, 5120) + 48 * attention(5120, 40, 8, 128);
            case "moma-1.4b" -> 2 * table(65536, 2048) + 24 * attention(2048, 16, 16, 128);
            case "switch-c-2048" -> table(32128, 2080) + 15 * (4 + 8) * 2080.0 * 2048;
            case "mixtral-8x7b" -> 2 * table(32000, 4096) + 32 * attention(4096, 32, 8, 128);
            case "mixtral-8x22b" -> 2 * table(32000, 6144) + 56 * attention(6144, 48, 8, 128);
            case "deepseek-moe-16b" ->
                    2 * table(102400, 2048)
                            + 28 * attention(2048, 16, 16, 128)
                            + swiglu(2048, 10944);
            case "deepseek-v2" ->
                    2 * table(102400, 5120) + 60 * latent(5120, 1536, 128) + swiglu(5120, 12288);
            case "deepseek-v2-lite" ->
                    2 * table(102400, 2048) + 27 * latent(2048, 0, 16) + swiglu(2048, 10944);
            case "deepseek-v3" ->
                    2 * table(129280, 7168)
                            + 61 * latent(7168, 1536, 128)
                            + 3 * swiglu(7168, 18432);
            case "qwen1.5-moe-a2.7b" -> 2 * table(151936, 2048) + 24 * attention(2048, 16, 16, 128);
            case "qwen3-30b-a3b" -> 2 * table(151936, 2048) + 48 * attention(2048, 32, 4, 128);
            case "qwen3-235b-a22b" -> 2 * table(151936, 4096) + 94 * attention(4096, 64, 4, 128);
            case "olmoe-1b-7b" -> 2 * table(50304, 2048) + 16 * attention(2048, 16, 16, 128);
            case "gpt-oss-20b" -> 2 * table(201088, 2880) + 24 * attention(2880, 64, 8, 64);
            case "gpt-oss-120b" -> 2 * table(201088, 2880) + 36 * attention(2880, 64, 8, 64);
            case "dbrx" -> 2 * table(100352, 6144) + 40 * attention(6144, 48, 8, 128);
            case "ernie-4.5-300b-a47b" ->
                    2 * table(103424, 8192)
                            + 54 * attention(8192, 64, 8, 128)
                            + 3 * swiglu(8192, 28672);
            // Lightning attention with an output gate in seven of eight layers.
            case "minimax-m1" ->
                    2 * table(200064, 6144)
                            + 10 * attention(6144, 64, 8, 128)
                            + 70 * 5 * 6144.0 * 8192;
            case "minimax-m2" -> 2 * table(200064, 3072) + 62 * attention(3072, 48, 8, 128);
            case "kimi-k2" ->
                    2 * table(163840, 7168) + 61 * latent(7168, 1536, 64) + swiglu(7168, 18432);
            case "moonlight-16b" ->
                    2 * table(163840, 2048) + 27 * latent(2048, 0, 16) + swiglu(2048, 11264);
            case "phi-3.5-moe" -> 2 * table(32064, 4096) + 32 * attention(4096, 32, 8, 128);
            case "granite-3.0-1b-a400m" -> table(49152, 1024) + 24 * attention(1024, 16, 8, 64);
            case "granite-3.0-3b-a800m" -> table(49152, 1536) + 32 * attention(1536, 24, 8, 64);
            default -> throw new IllegalArgumentException(name);
        };
    }

    private static double table(double vocabulary, double hidden) {
        return vocabulary * hidden;
    }

    private static double swiglu(double hidden, double intermediate) {
        return 3 * hidden * intermediate;
    }

    /** Queries and output of all heads, keys and values of fewer. */
    private static double attention(double hidden, int heads, int keyHeads, int width) {
        return 2 * hidden * width * (heads + keyHeads);
    }

    /** DeepSeek's: 128 + 64 per head of a query, 512 + 64 for keys and values of all heads. */
    private static double latent(double hidden, double queryRank, double heads) {
        double query = queryRank == 0 ? hidden * heads * 192 : queryRank * (hidden + heads * 192);
        return query + hidden * 576 + 512 * heads * 256 + heads * 128 * hidden;
    }

    /** In units of 1e9, to the last digit that the source or the released weights have. */
    @ParameterizedTest
    @CsvSource({
        "switch-base-128, 7.4",
        "switch-large-128, 26",
        "switch-xxl-128, 395",
        "switch-c-2048, 1571",
        "st-moe-32b, 269",
        "glam-64b64e, 1162",
        "v-moe-b16, 0.979",
        "grok-1, 316",
        "skywork-moe-146b, 146",
        "pangu-pro-moe-72b, 72.0",
        "moma-1.4b, 7.1",
        "mixtral-8x7b, 46.70",
        "mixtral-8x22b, 141",
        "deepseek-moe-16b, 16.4",
        "deepseek-v2, 236",
        "deepseek-v2-lite, 15.7",
        "deepseek-v3, 671",
        "qwen1.5-moe-a2.7b, 14.3",
        "qwen3-30b-a3b, 30.5",
        "qwen3-235b-a22b, 235",
        "olmoe-1b-7b, 6.9",
        "gpt-oss-20b, 20.9",
        "gpt-oss-120b, 116.8",
        "dbrx, 132",
        "ernie-4.5-300b-a47b, 299.5",
        "minimax-m1, 456",
        "minimax-m2, 229",
        "moonlight-16b, 16.0",
        "phi-3.5-moe, 41.9",
        "granite-3.0-1b-a400m, 1.3",
        "granite-3.0-3b-a800m, 3.3",
        "kimi-k2, 1026"
    })
    void parameters_ofAllLayersAndTheRestAreTheModel(String name, String billions) {
        Preset preset = Presets.of(name);
        Published published = preset.published();
        double model = (double) published.moeLayers() * preset.parameters() + dense(name);
        assertThat(billions(model, billions)).isEqualTo(billions);
        assertThat(published.totalParameters() / model).isBetween(0.97, 1.01);
    }

    /** The same of one token; some sources leave the embedding of the input out, or both. */
    @ParameterizedTest
    @CsvSource({
        "mixtral-8x7b, 12.88, 0, 0",
        "mixtral-8x22b, 39, 0, 0",
        "deepseek-moe-16b, 2.8, 0, 0",
        "deepseek-v2, 21, 102400, 1",
        "deepseek-v3, 37, 129280, 1",
        "qwen1.5-moe-a2.7b, 2.7, 0, 0",
        "qwen3-235b-a22b, 22, 0, 0",
        "olmoe-1b-7b, 1.3, 0, 0",
        "gpt-oss-20b, 3.6, 201088, 1",
        "gpt-oss-120b, 5.1, 201088, 1",
        "dbrx, 36, 0, 0",
        "ernie-4.5-300b-a47b, 47, 103424, 1",
        "minimax-m1, 45.9, 200064, 2",
        "glam-64b64e, 96.6, 0, 0",
        "skywork-moe-146b, 22, 65519, 1",
        "pangu-pro-moe-72b, 16.5, 0, 0",
        "moonlight-16b, 2.24, 163840, 2",
        "phi-3.5-moe, 6.6, 0, 0"
    })
    void activeParameters_ofAllLayersAndTheRestAreThoseOfAToken(
            String name, String billions, int vocabulary, int uncounted) {
        Preset preset = Presets.of(name);
        double active =
                (double) preset.published().moeLayers() * preset.activeParameters()
                        + dense(name)
                        - uncounted * table(vocabulary, preset.config().hidden());
        assertThat(billions(active, billions)).isEqualTo(billions);
    }

    private static String billions(double count, String like) {
        int decimals = like.contains(".") ? like.length() - like.indexOf('.') - 1 : 0;
        return String.format(Locale.ROOT, "%." + decimals + "f", count / 1e9);
    }

    /** Nothing is stated of these, so the layers alone, counted by hand. */
    @Test
    void parameters_ofLayersWithoutAModelAreThoseOfTheirForm() {
        Preset oneMap = Presets.of("survey4-demo");
        long map = 512 * 512 + 512;
        assertThat(oneMap.parameters()).isEqualTo(8 * 512 + 8 + 8 * map);
        assertThat(oneMap.activeParameters()).isEqualTo(8 * 512 + 8 + 2 * map);
        Preset narrow = Presets.of("survey2-demo");
        long expert = 10 * 32 + 32 + 32 * 2 + 2;
        assertThat(narrow.parameters()).isEqualTo(4 * 10 + 4 + 4 * expert);
        assertThat(narrow.activeParameters()).isEqualTo(4 * 10 + 4 + 2 * expert);
        Preset peer = Presets.of("peer-1m");
        long queriesAndKeys = 2 * 8 * 128 * 512 + 2 * 8 * 128 + 2 * 1024 * 128;
        assertThat(peer.parameters()).isEqualTo(queriesAndKeys + 2L * 512 * 1024 * 1024);
        assertThat(peer.activeParameters()).isEqualTo(queriesAndKeys + 8 * 16 * 2 * 512);
        assertThat(peer.weightBytes(DType.BF16)).isEqualTo(2 * (peer.parameters() - 2 * 8 * 128));
    }

    @Test
    void activeParameters_whereExpertsChooseTokensAreTheirMean() {
        Preset moma = Presets.of("moma-1.4b");
        assertThat(moma.activeParameters()).isEqualTo(4 * 2048 + 3 * 2048 * 5464);
        assertThat(moma.config().numTokenTypes()).isEqualTo(2);
    }

    @Test
    void presets_haveTheRulesOfTheirSources() {
        RouterConfig pangu = rule("pangu-pro-moe-72b");
        assertThat(pangu.selection())
                .isEqualTo(new Selection.OnePerGroup(8, RouterConfig.Scope.GLOBAL));
        assertThat(Presets.of("pangu-pro-moe-72b").biases())
                .containsExactly(Preset.Bias.EXPERT_SCALE);
        assertThat(Presets.of("pangu-pro-moe-72b").config().sharedIntermediate()).isEqualTo(5376);
        assertThat(rule("skywork-moe-146b").logitTransforms())
                .containsExactly(new LogitTransform.Standardise(1));
        assertThat(rule("v-moe-b16").logitTransforms())
                .containsExactly(new LogitTransform.FixedNoise(0, 1 / 32.0));
        // 1.05 x 1000 x 2 / 32 = 65.6 and up to a multiple of 4.
        assertThat(limit("v-moe-b16", 1000)).isEqualTo(68);
        assertThat(limit("switch-xxl-128", 32)).isEqualTo(2);
        assertThat(limit("switch-base-128", 32)).isEqualTo(4);
        assertThat(limit("switch-xxl-128", 4096)).isEqualTo(128);
        // 2 x 1000 / 64 = 31.25, down and up to a multiple of 4.
        assertThat(limit("glam-64b64e", 1000)).isEqualTo(32);
        // ceil(1.2 x 100) x 2 / 8.
        assertThat(limit("survey4-demo", 100)).isEqualTo(30);
        assertThat(Presets.of("grok-1").published().weights()).isEqualTo(DType.I8);
        assertThat(Presets.of("grok-1").publishedBytes())
                .isEqualTo(8L * 3 * 6144 * 32768 + 2L * 8 * 6144);
    }

    private static RouterConfig rule(String name) {
        return Presets.of(name).config().routers().getFirst();
    }

    private static long limit(String name, long tokens) {
        return rule(name).capacity().limit(rule(name), tokens);
    }

    /** What the sources say of experts alone. */
    @Test
    void parameters_ofExpertsAreThoseStated() {
        assertThat(experts("switch-c-2048", 0)).isEqualTo("1570");
        assertThat(experts("gshard-600b", 0)).isEqualTo("618");
        assertThat(experts("ernie-4.5-vl-424b", 1)).isEqualTo("123");
        assertThat(Presets.of("ernie-4.5-vl-424b").config().intermediates().getFirst())
                .isEqualTo(Presets.of("ernie-4.5-300b-a47b").config().intermediates().getFirst());
    }

    private static String experts(String name, int tokenType) {
        Preset preset = Presets.of(name);
        int matrices = preset.config().activation().gated() ? 3 : 2;
        double layer =
                (double) preset.config().numExperts()
                        * matrices
                        * preset.config().hidden()
                        * preset.config().intermediates().get(tokenType);
        return billions(preset.published().moeLayers() * layer, "0");
    }

    /** Attention, dense layers and embeddings are the smaller part of every one of these models. */
    @Test
    void published_isCompleteAndFits() {
        for (Preset preset : Presets.all()) {
            Published published = preset.published();
            assertThat(published.source()).as(preset.name()).isNotBlank();
            if (published.moeLayers() == 0) {
                assertThat(published.totalParameters()).as(preset.name()).isZero();
                continue;
            }
            double layers = (double) published.moeLayers() * preset.parameters();
            assertThat(layers / published.totalParameters())
                    .as(preset.name())
                    .isBetween(0.75, 1.04);
            double active = (double) published.moeLayers() * preset.activeParameters();
            if (published.activeParameters() > 0) {
                assertThat(active / published.activeParameters())
                        .as(preset.name())
                        .isBetween(0.3, 1.0);
            }
        }
    }
}
