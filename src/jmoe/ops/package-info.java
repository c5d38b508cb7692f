/**
 * The operations of a MoE layer, their arguments and the layer's configuration; no implementation.
 *
 * <p>What {@link jmoe.ops.Kernels#route} and what belongs to it can do:
 *
 * <table>
 * <caption>Routing schemes, their sources and backends</caption>
 * <tr><th>Scheme</th><th>As</th><th>Source</th><th>reference</th><th>vector</th><th>native</th><th>cuda</th></tr>
 * <tr><td>Temperature, standardised logits, cap</td><td>{@code LogitTransform.Temperature}, {@code Standardise}, {@code Cap}</td><td>Skywork-MoE 2024; Gemma 2</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Noise: fixed, learned, Gumbel</td><td>{@code FixedNoise}, {@code LearnedNoise}, {@code GumbelNoise}, by counters: the same bits everywhere</td><td>V-MoE 2021; Shazeer 2017; Gumbel 1954</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Jitter of what the router reads, unseen by experts</td><td>{@code InputTransform.Jitter}, by counters: the same bits everywhere</td><td>Switch 2021; Mesh TensorFlow</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Cosine of token and expert, projected or not</td><td>{@code InputTransform.Cosine}; {@code RouterWeights.projection}</td><td>X-MoE, Chi 2022; Tutel</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Score</td><td>{@code Score.SOFTMAX}, {@code SIGMOID}, {@code SQRT_SOFTPLUS}, {@code NONE}</td><td>Shazeer 2017; DeepSeek-V3; DeepSeek-V4</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Selection bias; shared experts inside the softmax (bias +infinity)</td><td>{@code RouteInputs.selectionBias}</td><td>DeepSeek-V3; Uni-MoE-Audio</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Absent tokens, tokens of a type, inactive experts</td><td>{@code RouteInputs.tokenTypes}, {@code activeExperts}; {@code Workspace.setActiveExperts}</td><td>ERNIE 4.5</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>The K best; all experts (K = E)</td><td>{@code Selection.TopK}</td><td>Shazeer 2017</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>The K best of the best groups</td><td>{@code GroupLimited}: {@code MAX}, {@code TOP2_SUM}, {@code TOP_SHARE_SUM}</td><td>DeepSeek-V2, V3; Megatron-LM</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>One of each group</td><td>{@code OnePerGroup}: {@code GLOBAL}, {@code LOCAL} softmax</td><td>Pangu Pro MoE 2025; M6-T 2021</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Groups, then experts in them</td><td>{@code TwoLevel}</td><td>Shazeer 2017</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>As many as reach a probability</td><td>{@code TopP}</td><td>Huang 2024</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>As many as the entropy says</td><td>{@code EntropyK}</td><td>survey form</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Two argmaxes of masked softmaxes</td><td>{@code SparseMixer}</td><td>Phi-3.5-MoE 2024</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>By the token's id</td><td>{@code Hash}; in a layer with {@code RouterWeights.ofHash} and {@code TokenInputs.withTokenIds}</td><td>Roller 2021</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Product keys, up to a million experts</td><td>{@code ProductKeys}; {@code PeerLayer}</td><td>He 2024; Doge 2024</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Experts choose tokens, by a softmax over experts or over tokens</td><td>{@code ExpertChoice}, {@code Scope.TOKENS}</td><td>Zhou 2022; MoMa 2024; Mesh TensorFlow</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Sinkhorn</td><td>{@code Sinkhorn}</td><td>Clark 2022; Megatron-LM</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Balanced assignment</td><td>{@code BalancedAssignment}</td><td>BASE layers, Lewis 2021</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Every token in every slot</td><td>{@code SoftMoeLayer}</td><td>Soft-MoE, Puigcerver 2023</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Weights: as they are, over their sum (plus epsilon, at least a minimum), over a norm, over the number of experts; factor; factor of each expert</td><td>{@code Normalisation.None}, {@code Sum}, {@code ClampedSum}, {@code PNorm}, {@code Count}; {@code factor}; {@code RouteInputs.expertScale}</td><td>DeepSeek-V2; Mixtral; ERNIE 4.5; DBRX; Pangu Pro MoE</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Weight on the input</td><td>{@code weightOnInput}</td><td>Llama 4</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Capacity: tokens, a share, a factor with published roundings, grown</td><td>{@code CapacityLimit.Tokens}, {@code Fraction}, {@code Factor} ({@code MESH}, {@code FLAXFORMER}, {@code LINGVO}, {@code VMOE}, {@code MEGATRON}, {@code TUTEL}, {@code ERNIE}, {@code FASTMOE}), {@code Grown}</td><td>Mesh TensorFlow, Flaxformer, Lingvo, V-MoE, Megatron-LM, Tutel, ERNIE, FastMoE</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Who is kept: by position, best score, weight; second choices at random; per device; tokens that are never dropped</td><td>{@code Capacity.Priority} ({@code POSITION}, {@code PROBABILITY}, {@code WEIGHT}), {@code RandomRouting}, {@code perDevice}; {@code TokenInputs.protectedTokens}</td><td>Switch 2021; V-MoE; Megatron-LM; GShard 2020; DeepSeek-V2</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Who is not: dropped, next choice, neighbours</td><td>{@code Capacity.Overflow}: {@code Drop}, {@code NextChoice}, {@code Ring}</td><td>No Token Left Behind (next choice); a survey (neighbours)</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Identity and null experts</td><td>{@code MoeConfig.numIdentityExperts}, {@code numNullExperts}</td><td>MoE++ 2024; LongCat-Flash 2025</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Constant experts</td><td>{@code MoeConfig.numConstantExperts}, {@code ConstantExperts}</td><td>MoE++, Jin 2024</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * <tr><td>Experts of several sizes, without padding</td><td>{@code MoeConfig.sizeClasses}</td><td>HMoE, Wang 2024</td><td>yes</td><td>yes</td><td>yes</td><td>yes</td></tr>
 * </table>
 */
@NullMarked
package jmoe.ops;

import org.jspecify.annotations.NullMarked;
