"""Times MoE layers of PyTorch on the CPU next to ours.

From the root of the repository: python bench/peers/torch_moe.py --preset all --jmoe ./jmoe

Every round measures, one after the other, the implementations below on every token count and then
`jmoe bench` on the same preset, so that a drift of the machine meets all of them. Prints a Markdown
table per preset, milliseconds as `median [min-max]`; a star marks a cell that other processes
disturbed however often it was repeated.

loop        eager loop over the experts that have tokens, as transformers does by default
grouped_mm  tokens sorted by expert, torch.nn.functional.grouped_mm for the products
hf          the MoE block of transformers itself, eager (imported only if asked for)

Needs torch (and transformers for hf); nothing in the build or in CI runs this.
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


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("olmoe-1b-7b", 2048, 1024, 64, 8, False, 0),
        Preset("qwen3-30b-a3b", 2048, 768, 128, 8, True, 0),
        Preset("deepseek-v2-lite", 2048, 1408, 64, 6, False, 2 * 1408),
        Preset("mixtral-8x7b", 4096, 14336, 8, 2, True, 0),
    )
}


class Weights:
    """Random weights [out, in] of one layer; never zeros, a product is as large as its operand."""

    def __init__(self, preset, dtype):
        def random(*shape):
            bound = math.sqrt(3 / shape[-1])
            return torch.empty(*shape, dtype=dtype).uniform_(-bound, bound)

        h, i, e, s = preset.hidden, preset.intermediate, preset.experts, preset.shared
        self.router = random(e, h)
        self.gate_up = random(e, 2 * i, h)
        self.down = random(e, h, i)
        self.shared_gate_up = random(2 * s, h) if s else None
        self.shared_down = random(h, s) if s else None


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up


def route(preset, weights, x):
    scores = torch.softmax(linear(x, weights.router), -1, dtype=torch.float32)
    top, ids = scores.topk(preset.top_k, -1)
    if preset.renormalise:
        top /= top.sum(-1, keepdim=True)
    return top.to(x.dtype), ids


def add_shared(weights, x, y):
    if weights.shared_down is None:
        return y
    return y + linear(swiglu(linear(x, weights.shared_gate_up)), weights.shared_down)


def loop(preset, weights):
    def layer(x):
        top, ids = route(preset, weights, x)
        y = torch.zeros_like(x)
        for expert in ids.unique().tolist():
            token, slot = torch.where(ids == expert)
            hidden = swiglu(linear(x[token], weights.gate_up[expert]))
            rows = linear(hidden, weights.down[expert])
            y.index_add_(0, token, rows * top[token, slot, None])
        return add_shared(weights, x, y)

    return layer


def grouped_mm(preset, weights):
    product = getattr(torch.nn.functional, "grouped_mm", getattr(torch, "_grouped_mm", None))
    if product is None:
        raise NotImplementedError(f"torch {torch.__version__} has no grouped_mm")
    gate_up, down = weights.gate_up.transpose(1, 2), weights.down.transpose(1, 2)

    def layer(x):
        top, ids = route(preset, weights, x)
        sorted_ids, order = ids.flatten().sort(stable=True)
        ends = torch.bincount(sorted_ids, minlength=preset.experts).cumsum(0).to(torch.int32)
        hidden = swiglu(product(x[order // preset.top_k], gate_up, offs=ends))
        rows = product(hidden, down, offs=ends) * top.flatten()[order, None]
        slots = torch.empty_like(rows)
        slots[order] = rows
        return add_shared(weights, x, slots.view(*ids.shape, -1).sum(1))

    return layer


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


IMPLEMENTATIONS = {"loop": loop, "grouped_mm": grouped_mm, "hf": hf}


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
        foreign = meter.stop()
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

    def add(self, impl, preset, tokens, ms, passes, foreign):
        entry = {"ms": ms, "passes": passes, "foreign": round(foreign, 3)}
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


def measure_torch(name, options, results):
    preset = PRESETS[name]
    for dtype in options.dtypes:
        weights = Weights(preset, DTYPES[dtype])
        layers = {}
        for impl in options.impl:
            try:
                layers[impl] = IMPLEMENTATIONS[impl](preset, weights)
                expected = layers.get("loop") or loop(preset, weights)
                x = torch.randn(3, preset.hidden).to(DTYPES[dtype])
                check(layers[impl], expected, x, f"{name} {impl} {dtype}")
            except (ImportError, NotImplementedError, RuntimeError) as reason:
                print(f"{name} {impl} {dtype}: left out, {reason}", file=sys.stderr)
                layers.pop(impl, None)
        for tokens in options.tokens:
            batches = max(4, 64 // tokens)  # few tokens must not find their experts in the cache
            inputs = list(torch.randn(batches, tokens, preset.hidden).to(DTYPES[dtype]))
            for impl, layer in layers.items():
                row = f"torch {impl} {dtype}"
                if results.slowest(row, name, tokens) > 1e3 * options.once_above:
                    continue
                times, foreign = undisturbed(
                    lambda: time_passes(layer, inputs, options.seconds, options.passes)
                )
                ms = {"median": statistics.median(times), "min": times[0], "max": times[-1]}
                results.add(row, name, tokens, ms, len(times), foreign)


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}: exit status {done.returncode}, expected 0")
    return done.stdout


def measure_jmoe(name, options, results):
    """Ours guards its cells itself where it can; the figure of the whole run is a last resort."""
    tokens = ",".join(map(str, options.tokens))
    command = [options.jmoe, "bench", "--preset", name, "--tokens", tokens, "--backend", "vector"]
    command += ["--weights", ",".join(reversed(options.jmoe_dtypes or options.dtypes))]
    command += ["--threads", str(options.threads), "--json"]
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
        results.add(impl, name, row["tokens"], row["ms"], row.get("passes"), foreign)
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
        names = list(known) if text == "all" else text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            expected = "all or some of " + ",".join(known)
            raise argparse.ArgumentTypeError(f"no {unknown[0]}, expected {expected}")
        return names

    return parse


def numbers(text):
    return [int(number) for number in text.split(",")]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--preset", type=some_of(PRESETS), default="olmoe-1b-7b", help="a list or all")
    option("--tokens", type=numbers, default="1,16,128,512,2048")
    option("--dtypes", type=some_of(DTYPES), default="all", help="f32,bf16")
    option("--impl", type=some_of(IMPLEMENTATIONS), default="loop,grouped_mm", help="a list or all")
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
    return parser.parse_args()


def main():
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    results, jmoe_reports = Results(), []
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
