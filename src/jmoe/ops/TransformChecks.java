package jmoe.ops;

import java.util.List;

/** What a {@link RouterConfig} may ask to happen in front of its rule. */
final class TransformChecks {
    private TransformChecks() {}

    static void logits(List<LogitTransform> transforms, Selection selection) {
        RouterConfig.require(
                transforms.size() <= RouterConfig.MAX_TRANSFORMS,
                "logitTransforms",
                "at most " + RouterConfig.MAX_TRANSFORMS,
                transforms.size());
        RouterConfig.require(
                transforms.isEmpty() || !(selection instanceof Selection.ProductKeys),
                "logitTransforms",
                "none with product keys, whose experts have no logits of their own",
                transforms);
        RouterConfig.require(
                transforms.isEmpty() || !(selection instanceof Selection.Hash),
                "logitTransforms",
                "none with a hash, which has no logits",
                transforms);
        int learned = 0;
        for (LogitTransform transform : transforms) {
            learned += transform instanceof LogitTransform.LearnedNoise ? 1 : 0;
        }
        RouterConfig.require(
                learned <= 1, "logitTransforms", "at most one LearnedNoise", transforms);
    }

    static void inputs(List<InputTransform> transforms, Selection selection) {
        boolean cosine = false;
        for (int place = 0; place < transforms.size(); place++) {
            boolean last = place == transforms.size() - 1;
            cosine = transforms.get(place) instanceof InputTransform.Cosine;
            RouterConfig.require(
                    cosine ? last : place == 0,
                    "inputTransforms",
                    "at most a Jitter and then a Cosine",
                    transforms);
        }
        RouterConfig.require(
                transforms.isEmpty() || !(selection instanceof Selection.Hash),
                "inputTransforms",
                "none with a hash, which reads no input",
                transforms);
        RouterConfig.require(
                !cosine || !(selection instanceof Selection.ProductKeys),
                "inputTransforms",
                "no Cosine with product keys, whose logits are sums",
                transforms);
    }
}
