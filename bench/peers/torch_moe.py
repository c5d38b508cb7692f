"""Times MoE layers of PyTorch on the CPU or a GPU next to ours.

From the root of the repository: python bench/peers/torch_moe.py --preset all --jmoe ./jmoe
On a GPU:   python bench/peers/torch_moe.py --device cuda --preset all --tokens 1,8,64,512,4096

Every round measures, one after the other, the implementations below on every token count and then
`jmoe bench` on the same preset, so that a drift of the machine meets all of them. Prints a Markdown
table per preset, milliseconds as `median [min-max]`; a star marks a cell that other processes
disturbed however often it was repeated.

loop        eager loop over the experts that have tokens, as transformers does by default
onednn      the same loop over matrices that oneDNN packed once; BF16 needs AVX-512
grouped_mm  tokens sorted by expert, torch.nn.functional.grouped_mm for the products
compile     torch.compile of grouped_mm, anew for every number of tokens
triton      the same with the products of triton_grouped_gemm.py, tuned for like numbers of rows
hf          the MoE block of transformers itself, eager (imported only if asked for)

On a GPU everything is BF16 and timed by CUDA events: around the replay of a CUDA graph over all
inputs where the layer can be captured, else (always for the loop, which waits for the device) around
each pass, launches included; "timing" in the JSON says which. Inputs take turns, and the weights of a
layer exceed the cache. A copy within the device and a dense product are measured in the same run.

Needs torch (transformers for hf, triton for triton); nothing in the build or in CI runs this.
"""

import argparse
import importlib
import json
import math
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
from torch.nn.functional import linear, silu

MAX_FOREIGN = 0.1
REPEATS = 3
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Preset:
    name: str
    hidden: int
    intermediate: int
    experts: int
    top_k: int
    renormalise: bool
    shared: int  # intermediate size of the shared experts taken as one, 0 for none
    groups: int = 0  # of experts; a token goes to those of the best few, chosen by sigmoid scores
    top_groups: int = 0
    factor: float = 1  # of the weights of the experts

    def bytes(self, dtype):
        matrices = self.experts * self.intermediate + self.shared
        return dtype.itemsize * self.hidden * (3 * matrices + self.experts)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("olmoe-1b-7b", 2048, 1024, 64, 8, False, 0),
        Preset("qwen3-30b-a3b", 2048, 768, 128, 8, True, 0),
        Preset("deepseek-v2-lite", 2048, 1408, 64, 6, False, 2 * 1408),
        Preset("mixtral-8x7b", 4096, 14336, 8, 2, True, 0),
        Preset("deepseek-v3", 7168, 2048, 256, 8, True, 2048, 8, 4, 2.5),
    )
}

# What "all" does not mean on a CPU: as large as its memory, and slow to build.
GPU_ONLY = ("deepseek-v3", "compile", "triton")


class Weights:
    """Random weights [out, in] of one layer; never zeros, a product is as large as its operand."""

    def __init__(self, preset, dtype, device):
        def random(*shape):
            bound = math.sqrt(3 / shape[-1])
            return torch.empty(*shape, dtype=dtype, device=device).uniform_(-bound, bound)

        h, i, e, s = preset.hidden, preset.intermediate, preset.experts, preset.shared
        self.router = random(e, h)
        self.gate_up = random(e, 2 * i, h)
        self.down = random(e, h, i)
        self.shared_gate_up = random(2 * s, h) if s else None
        self.shared_down = random(h, s) if s else None
        self.selection_bias = random(e).float() if preset.groups else None


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up


def route_groups(preset, weights, x):
    scores = torch.sigmoid(linear(x, weights.router).float())
    choice = (scores + weights.selection_bias).view(len(x), preset.groups, -1)
    best = choice.topk(2, -1).values.sum(-1).topk(preset.top_groups, -1).indices
    out = torch.ones_like(choice[..., 0], dtype=torch.bool).scatter(1, best, False)
    ids = choice.masked_fill(out[..., None], -math.inf).flatten(1).topk(preset.top_k, -1).indices
    top = scores.gather(1, ids)
    top = top / top.sum(-1, keepdim=True) * preset.factor
    return top.to(x.dtype), ids


def route(preset, weights, x):
    if preset.groups:
        return route_groups(preset, weights, x)
    scores = torch.softmax(linear(x, weights.router), -1, dtype=torch.float32)
    top, ids = scores.topk(preset.top_k, -1)
    if preset.renormalise:
        top /= top.sum(-1, keepdim=True)
    return top.to(x.dtype), ids


def add_shared(weights, x, y):
    if weights.shared_down is None:
        return y
    return y + linear(swiglu(linear(x, weights.shared_gate_up)), weights.shared_down)


def loop_over(preset, weights, gate_up, down, product):
    """One expert after the other; product multiplies rows by one of its matrices."""

    def layer(x):
        top, ids = route(preset, weights, x)
        y = torch.zeros_like(x)
        for expert in ids.unique().tolist():
            token, slot = torch.where(ids == expert)
            hidden = swiglu(product(x[token], gate_up[expert]))
            rows = product(hidden, down[expert])
            y.index_add_(0, token, rows * top[token, slot, None])
        return add_shared(weights, x, y)

    return layer


def loop(preset, weights):
    return loop_over(preset, weights, weights.gate_up, weights.down, linear)


def onednn(preset, weights):
    """The loop over matrices that oneDNN has brought into its own order once."""
    if weights.down.is_cuda:
        raise NotImplementedError("oneDNN computes on CPUs")
    operations = torch.ops.mkldnn

    def packed(matrices):
        return [operations._reorder_linear_weight(matrix) for matrix in matrices]

    def product(rows, matrix):
        return operations._linear_pointwise(rows, matrix, None, "none", [], "")

    return loop_over(preset, weights, packed(weights.gate_up), packed(weights.down), product)


def grouped(preset, weights, product):
    """Tokens sorted by expert; product multiplies each expert's rows by its matrix [out, in]."""
    experts = torch.arange(preset.experts, device=weights.down.device)

    def layer(x):
        top, ids = route(preset, weights, x)
        sorted_ids, order = ids.flatten().sort(stable=True)
        if x.is_cuda:  # bincount would wait for the device
            ends = torch.searchsorted(sorted_ids, experts, right=True).to(torch.int32)
        else:
            ends = torch.bincount(sorted_ids, minlength=preset.experts).cumsum(0).to(torch.int32)
        hidden = swiglu(product(x[order // preset.top_k], weights.gate_up, ends))
        rows = product(hidden, weights.down, ends) * top.flatten()[order, None]
        slots = torch.empty_like(rows)
        slots[order] = rows
        return add_shared(weights, x, slots.view(*ids.shape, -1).sum(1))

    return layer


def grouped_mm(preset, weights):
    product = getattr(torch.nn.functional, "grouped_mm", getattr(torch, "_grouped_mm", None))
    if product is None:
        raise NotImplementedError(f"torch {torch.__version__} has no grouped_mm")
    return grouped(
        preset, weights, lambda x, weight, ends: product(x, weight.transpose(1, 2), offs=ends)
    )


def triton(preset, weights):
    if not weights.down.is_cuda:
        raise NotImplementedError("Triton needs a GPU")
    from triton_grouped_gemm import grouped_gemm

    return grouped(preset, weights, grouped_gemm)


def compiled(preset, weights, mode="max-autotune-no-cudagraphs"):
    return torch.compile(grouped_mm(preset, weights), mode=mode, dynamic=False)


# What transformers calls the model's module, block, configuration and, in that, our sizes.
HF_BLOCKS = {
    "olmoe-1b-7b": (
        "olmoe",
        "OlmoeSparseMoeBlock",
        "OlmoeConfig",
        {"intermediate_size": "intermediate", "num_experts": "experts"},
    ),
    "qwen3-30b-a3b": (
        "qwen3_moe",
        "Qwen3MoeSparseMoeBlock",
        "Qwen3MoeConfig",
        {
            "moe_intermediate_size": "intermediate",
            "num_experts": "experts",
            "norm_topk_prob": "renormalise",
        },
    ),
    "deepseek-v2-lite": (
        "deepseek_v2",
        "DeepseekV2Moe",
        "DeepseekV2Config",
        {"moe_intermediate_size": "intermediate", "n_routed_experts": "experts"},
    ),
    "mixtral-8x7b": (
        "mixtral",
        "MixtralSparseMoeBlock",
        "MixtralConfig",
        {"intermediate_size": "intermediate", "num_local_experts": "experts"},
    ),
}


def hf(preset, weights):
    import transformers

    if preset.name not in HF_BLOCKS:
        raise NotImplementedError("its block is not known here")
    model, block_name, config_name, sizes = HF_BLOCKS[preset.name]
    config = getattr(transformers, config_name)(
        hidden_size=preset.hidden,
        num_experts_per_tok=preset.top_k,
        **{theirs: getattr(preset, ours) for theirs, ours in sizes.items()},
    )
    config._experts_implementation = "eager"
    if preset.shared:
        config.n_shared_experts = preset.shared // preset.intermediate
    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    with torch.device("meta"):  # the block gets our weights, not memory of its own
        block = getattr(module, block_name)(config)
    values = {
        "gate.weight": weights.router,
        "experts.gate_up_proj": weights.gate_up,
        "experts.down_proj": weights.down,
    }
    if preset.shared:
        gate, up = weights.shared_gate_up.chunk(2)
        values["shared_experts.gate_proj.weight"] = gate
        values["shared_experts.up_proj.weight"] = up
        values["shared_experts.down_proj.weight"] = weights.shared_down
    block.load_state_dict(values, assign=True)
    block.eval()
    return lambda x: block(x[None])[0]


IMPLEMENTATIONS = {
    "loop": loop,
    "onednn": onednn,
    "grouped_mm": grouped_mm,
    "compile": compiled,
    "triton": triton,
    "hf": hf,
}


class ForeignMeter:
    """CPU seconds per wall second that processes other than this one and its children burn."""

    def __init__(self):
        self.start = self.read()

    @staticmethod
    def read():
        own = 0
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            own += usage.ru_utime + usage.ru_stime
        with open("/proc/stat") as stat:
            user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy - own

    def stop(self):
        wall, foreign = (now - then for now, then in zip(self.read(), self.start))
        return max(0.0, foreign / wall)


def undisturbed(measure):
    """Result of measure() and what others burnt meanwhile; repeated until that is little."""
    best = None
    for attempt in range(1 + REPEATS):
        time.sleep(min(attempt, 1))
        meter = ForeignMeter()
        result = measure()
        foreign = meter.stop() if result[1] != "graph" else 0  # which needs no CPU
        if best is None or foreign < best[1]:
            best = result, foreign
        if foreign <= MAX_FOREIGN:
            break
    return best


def time_passes(layer, inputs, seconds, passes):
    """Milliseconds of each pass, sorted; the first is warm-up unless it alone fills the time."""
    times, start, end = [], time.perf_counter(), 0
    while len(times) < 4 or (end - start < seconds and len(times) <= passes):
        x = inputs[len(times) % len(inputs)]
        before = time.perf_counter()
        layer(x)
        end = time.perf_counter()
        times.append(1e3 * (end - before))
        if times[0] > 1e3 * seconds:
            return times
    return sorted(times[1:])


def event_passes(run, runs, seconds, passes):
    """Milliseconds of each of the runs by CUDA events, as often as time allows; sorted."""
    times, start = [], time.perf_counter()
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    while len(times) < 4 or (time.perf_counter() - start < seconds and len(times) <= passes):
        before.record()
        run(len(times))
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after) / runs)
        if times[0] * runs > 1e3 * seconds:
            return times
    return sorted(times[1:])


def captured(layer, inputs):
    """A CUDA graph of the layer on every input, or None if it waits for the device on its way."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for x in inputs[:3]:
            layer(x)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for x in inputs:
                layer(x)
    except RuntimeError as reason:
        torch.cuda.synchronize()
        first = str(reason).strip().split("\n")[0]
        print(f"cannot be captured, timed with its launches: {first}", file=sys.stderr)
        return None
    return graph


def timed_passes(impl, layer, inputs, options):
    """Milliseconds of each pass, sorted, and how they were taken."""
    limits = options.seconds, options.passes
    if options.device == "cpu":
        return time_passes(layer, inputs, *limits), "host"
    graph = captured(layer, inputs) if impl not in ("loop", "hf") else None
    if graph is not None:
        return event_passes(lambda _: graph.replay(), len(inputs), *limits), "graph"
    return event_passes(lambda i: layer(inputs[i % len(inputs)]), 1, *limits), "stream"


def gpu_ceilings():
    """What this device reaches in a copy and in a dense product, by CUDA events."""
    size, copied = 8192, 1 << 31
    source, target = (torch.empty(copied, dtype=torch.uint8, device="cuda") for _ in range(2))
    copy_ms = statistics.median(event_passes(lambda _: target.copy_(source), 1, 1, 20))
    del source, target
    a, b, c = (torch.randn(size, size, device="cuda").to(torch.bfloat16) for _ in range(3))
    dense_ms = statistics.median(event_passes(lambda _: torch.mm(a, b, out=c), 1, 1, 50))
    return {
        "device": torch.cuda.get_device_name(),
        "copy_gbps": 2 * copied / 1e6 / copy_ms,
        "dense_bf16_tflops": 2 * size**3 / 1e9 / dense_ms,
    }


def check(layer, expected, x, what):
    """Stops if two implementations do not compute the same layer: equal weights, equal input."""
    want, got = expected(x).float(), layer(x).float()
    error = ((want - got).abs().max() / want.abs().max()).item()
    if not error < (1e-5 if x.dtype == torch.float32 else 3e-2):
        sys.exit(f"{what}: the result differs from the loop by {error:.1e}, expected rounding only")


class Results:
    """The median of every round of every cell, rows in order of appearance."""

    def __init__(self):
        self.rounds = {}

    def add(self, impl, preset, tokens, ms, passes, foreign, timing="host"):
        entry = {"ms": ms, "passes": passes, "foreign": round(foreign, 3), "timing": timing}
        self.rounds.setdefault((preset, impl, tokens), []).append(entry)
        noise = "" if foreign <= MAX_FOREIGN else f", others burnt {foreign:.2f} CPUs"
        line = f"{preset} {impl} T={tokens}: {ms['median']:.2f} ms{noise}"
        print(line, file=sys.stderr, flush=True)

    def slowest(self, impl, preset, tokens):
        """Of the rounds that nobody disturbed; the others say nothing."""
        entries = self.rounds.get((preset, impl, tokens), [])
        clean = (e["ms"]["median"] for e in entries if e["foreign"] <= MAX_FOREIGN)
        return max(clean, default=0)

    def merged(self):
        for (preset, impl, tokens), entries in self.rounds.items():
            clean = [e for e in entries if e["foreign"] <= MAX_FOREIGN]
            used = clean or entries
            yield {
                "impl": impl,
                "preset": preset,
                "tokens": tokens,
                "ms": {
                    "median": statistics.median(e["ms"]["median"] for e in used),
                    "min": min(e["ms"]["min"] for e in used),
                    "max": max(e["ms"]["max"] for e in used),
                },
                "rounds": len(used),
                "disturbed": not clean,
                "timing": used[-1]["timing"],
                "foreign": max(e["foreign"] for e in used),
            }

    def table(self, preset):
        cells = {}
        for row in self.merged():
            if row["preset"] == preset:
                ms = (shorten(row["ms"][key]) for key in ("median", "min", "max"))
                text = "{} [{}-{}]".format(*ms) + (" *" if row["disturbed"] else "")
                cells.setdefault(row["impl"], {})[row["tokens"]] = text
        columns = sorted({tokens for row in cells.values() for tokens in row})
        lines = [f"| {preset}, ms | " + " | ".join(f"T = {t}" for t in columns) + " |"]
        lines.append("|---|" + "--:|" * len(columns))
        for impl, row in cells.items():
            lines.append(f"| {impl} | " + " | ".join(row.get(t, "-") for t in columns) + " |")
        return "\n".join(lines)


def shorten(ms):
    """Three digits or all of those before the point."""
    return f"{ms:.{max(0, 2 - math.floor(math.log10(ms)))}f}" if ms > 0 else "0"


def layers_of(preset, weights, dtype, options):
    """The implementations that this torch has, each compared with the loop on the same input."""
    layers = {}
    for impl in options.impl:
        what = f"{preset.name} {impl} {dtype}"
        try:
            if impl == "compile":  # compared per number of tokens, which is when it is built
                layers[impl] = compiled(preset, weights, options.compile_mode)
                continue
            layers[impl] = IMPLEMENTATIONS[impl](preset, weights)
            expected = layers.get("loop") or loop(preset, weights)
            x = torch.randn(3, preset.hidden, device=options.device).to(DTYPES[dtype])
            check(layers[impl], expected, x, what)
        except Exception as reason:  # it is missing, or whatever its compiler makes of it
            first = str(reason).strip().split("\n")[0]
            print(f"{what}: left out, {first}", file=sys.stderr)
            layers.pop(impl, None)
    return layers


def measure_torch(name, options, results):
    preset = PRESETS[name]
    for dtype in options.dtypes:
        if options.device == "cuda":
            torch.cuda.empty_cache()
            needed, free = preset.bytes(DTYPES[dtype]), torch.cuda.mem_get_info()[0]
            if needed > 0.8 * free:
                text = f"left out, {needed / 1e9:.1f} GB of weights, {free / 1e9:.1f} GB are free"
                print(f"{name} {dtype}: {text}", file=sys.stderr)
                continue
        weights = Weights(preset, DTYPES[dtype], options.device)
        layers = layers_of(preset, weights, dtype, options)
        for tokens in options.tokens:
            batches = max(4, 64 // tokens)  # few tokens must not find their experts in the cache
            shape = batches, tokens, preset.hidden
            inputs = list(torch.randn(*shape, device=options.device).to(DTYPES[dtype]))
            for impl, layer in layers.items():
                row = f"torch {impl} {dtype}"
                if results.slowest(row, name, tokens) > 1e3 * options.once_above:
                    continue
                if impl == "compile":
                    torch.compiler.reset()  # it gives up after some numbers of tokens
                    try:
                        check(layer, loop(preset, weights), inputs[0], f"{row} {name} T={tokens}")
                    except Exception as reason:  # whatever its compilers make of it
                        first = str(reason).strip().split("\n")[0]
                        print(f"{row} {name} T={tokens}: left out, {first}", file=sys.stderr)
                        continue
                (times, timing), foreign = undisturbed(
                    lambda: timed_passes(impl, layer, inputs, options)
                )
                ms = {"median": statistics.median(times), "min": times[0], "max": times[-1]}
                results.add(row, name, tokens, ms, len(times), foreign, timing)


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: exit status {done.returncode}, expected 0")
    return done.stdout


def measure_jmoe(name, options, results):
    """Ours guards its cells itself where it can; the figure of the whole run is a last resort."""
    tokens = ",".join(map(str, options.tokens))
    backends = options.jmoe_backends or ("cuda" if options.device == "cuda" else "vector,native")
    command = [options.jmoe, "bench", "--preset", name, "--tokens", tokens, "--backend", backends]
    command += ["--weights", ",".join(reversed(options.jmoe_dtypes or options.dtypes)), "--json"]
    if options.device == "cpu":
        command += ["--threads", str(options.threads)]
    meter = ForeignMeter()
    report = json.loads(run(command))
    whole_run = meter.stop()
    for row in report["results"]:
        impl = f"jmoe {row['backend']} {row['weights']}".lower()
        experts = row.get("experts")
        if experts != row.get("experts_of_the_model"):  # memory does not hold the real layer
            impl += f" ({experts} experts)"
        foreign = row.get("other_cpu_seconds_per_second")
        foreign = whole_run if foreign is None else foreign
        timing = row.get("timing", "host")
        results.add(impl, name, row["tokens"], row["ms"], row.get("passes"), foreign, timing)
    return report


def measure_also(command, name, options, results):
    """A program of somebody else's that prints one cell per line as JSON and guards itself."""
    tokens = ",".join(map(str, options.tokens))
    arguments = [word.format(preset=name, tokens=tokens) for word in shlex.split(command)]
    for line in run(arguments).splitlines():
        row = json.loads(line)
        cell = row["impl"], row["preset"], row["tokens"]
        results.add(*cell, row["ms"], row.get("passes"), row["foreign"])


def some_of(known):
    def parse(text):
        if text == "all":  # depends on the device
            return text
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            expected = "all or some of " + ",".join(known)
            raise argparse.ArgumentTypeError(f"no {unknown[0]}, expected {expected}")
        return names

    return parse


def numbers(text):
    return [int(number) for number in text.split(",")]


def all_of(known, options):
    return [name for name in known if options.device == "cuda" or name not in GPU_ONLY]


def complete(options):
    """Fills in what depends on the device."""
    gpu = options.device == "cuda"
    if gpu and not torch.cuda.is_available():
        sys.exit(
            f"--device cuda: torch {torch.__version__} finds no GPU; expected one that nvidia-smi"
            " lists and a build of torch for CUDA, or use --device cpu"
        )
    if gpu and (options.dtypes or ["bf16"]) != ["bf16"]:
        sys.exit("--dtypes: expected bf16 on a GPU; leave the option out")
    options.dtypes = options.dtypes or ("bf16" if gpu else "all")
    options.impl = options.impl or ["loop", "grouped_mm"] + (["compile", "triton"] if gpu else [])
    known = {"preset": PRESETS, "dtypes": DTYPES, "impl": IMPLEMENTATIONS, "jmoe_dtypes": DTYPES}
    for name, names in known.items():
        if getattr(options, name) == "all":
            setattr(options, name, all_of(names, options))
        elif isinstance(getattr(options, name), str):
            setattr(options, name, [getattr(options, name)])
    return options


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--device", choices=("cpu", "cuda"), default="cpu")
    option("--preset", type=some_of(PRESETS), default="olmoe-1b-7b", help="a list or all")
    option("--tokens", type=numbers, default="1,16,128,512,2048")
    option("--dtypes", type=some_of(DTYPES), help="f32,bf16; on a GPU bf16")
    option(
        "--impl",
        type=some_of(IMPLEMENTATIONS),
        help="a list or all; default: loop,grouped_mm, and compile,triton on a GPU",
    )
    option(
        "--compile-mode",
        choices=("default", "max-autotune-no-cudagraphs"),
        default="max-autotune-no-cudagraphs",
        help="of torch.compile",
    )
    option("--threads", type=int, default=os.cpu_count())
    option("--rounds", type=int, default=3)
    option("--seconds", type=float, default=1.5, help="time of a cell in a round")
    option("--passes", type=int, default=50, help="most passes of a cell in a round")
    option(
        "--once-above",
        type=float,
        default=5,
        metavar="SECONDS",
        help="cells whose pass takes longer are measured once, not in every round",
    )
    option("--jmoe", metavar="LAUNCHER", help="run `LAUNCHER bench` in every round too")
    option("--jmoe-backends", metavar="LIST", help="by default vector,native, or cuda on a GPU")
    option("--jmoe-dtypes", type=some_of(DTYPES), help="its weights, if not those of --dtypes")
    option(
        "--also",
        action="append",
        default=[],
        metavar="COMMAND",
        help="run this in every round too, with {preset} and {tokens} filled in; it prints"
        " a line of JSON per cell: impl, preset, tokens, ms {median, min, max}, foreign",
    )
    option("--json", metavar="FILE", help="write the medians and every round there")
    return complete(parser.parse_args())


def main():
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    results, jmoe_reports, ceilings = Results(), [], None
    if options.device == "cuda":
        ceilings = gpu_ceilings()
        copy, dense = ceilings["copy_gbps"], ceilings["dense_bf16_tflops"]
        text = f"copy {copy:.0f} GB/s, dense bf16 {dense:.0f} TFLOP/s"
        print(f"{ceilings['device']}: {text}\n", flush=True)
    for name in options.preset:
        for _ in range(options.rounds):
            measure_torch(name, options, results)
            for command in options.also:
                measure_also(command, name, options, results)
            if options.jmoe:
                jmoe_reports.append(measure_jmoe(name, options, results))
        print(results.table(name) + "\n", flush=True)
    if options.json:
        report = {
            "torch": torch.__version__,
            "threads": options.threads,
            "device": options.device,
            "ceilings": ceilings,
            "results": list(results.merged()),
            "rounds": [
                {"preset": p, "impl": i, "tokens": t, **e}
                for (p, i, t), entries in results.rounds.items()
                for e in entries
            ],
            "jmoe": jmoe_reports,
        }
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
