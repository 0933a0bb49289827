"""The exploration of one network: search each method alone, then all together, measure the finalists, look at the test once.

Nothing is chosen by test images. The joint search begins with what each method alone found, so it never ends with less; then
with pairs of these; then the sampler draws. The network's int8 weights, the methods, the board and the limits name a study in
the database; so a database holds many studies, and one that was begun with other weights is never continued by mistake.
"""

import hashlib
import itertools
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from tqdm import tqdm

from tinyredux import train
from tinyredux.boards import find_board
from tinyredux.datasets import cache_folder
from tinyredux.device import DoesNotFit
from tinyredux.explore import search
from tinyredux.explore.designs import LOOKS, SPACES, Cost, Design, Designs, Images, Parameters, errors_percent, merged
from tinyredux.explore.search import Judgement, RefusedError
from tinyredux.files import check_types, checked, is_network_file, read_json, require
from tinyredux.int8 import evaluator
from tinyredux.measurement import Measurement
from tinyredux.model import Model
from tinyredux.nets import short_name
from tinyredux.settings import Compiled, Network, Settings, compile_net, measure_compiled
from tinyredux.simulator import model_name

JOINED = 3  # designs of each method's front, spread evenly, of which all joins are tried
GIVEN_UP = 1e-6  # by which a design at least is short that was not looked at with all images
TUNE = train.Recipe(peak_rate=0.03, warmup_share=0.1, distil=0.5, dropout_factor=0.5)  # but for the epochs that are asked for


@dataclass(frozen=True)
class Exploration:
    """What to explore. `images`: validation images of a trial, None for all. `loss_points`: how far the front goes down.

    `trials` are those of each method alone, and as many of all together. `tune`: epochs for which finalists are trained on.
    `network` is the one where it has no name that leads to it, with its data: Network(int8 graph, float graph or None, data).
    """

    net: str
    methods: tuple[str, ...] = ("skip",)
    board: str = "disco_f469ni"
    kernels: str = "fast"
    data: str | None = None
    trials: int = 100
    seed: int = 0
    storage: str | None = None  # None: an SQLite file in the user's cache
    images: int | None = None
    loss_points: float = 5.0
    finalists: int = 6
    sram: int | None = None
    flash: int | str | None = None
    cycles: int | None = None
    tune: int = 0
    network: Network | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Rejects what cannot be explored, naming what can."""
        check_types(self)
        if not self.methods or set(self.methods) - set(SPACES) or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods is {','.join(self.methods)!r}, expected some of {','.join(SPACES)}, each once")
        least = {"trials": 1, "finalists": 0, "images": 1, "cycles": 1, "tune": 0}
        for name, value in ((name, getattr(self, name)) for name in least):
            if value is not None and value < least[name]:
                raise ValueError(f"{name} is {value}, expected at least {least[name]}")
        if not 0 <= self.loss_points <= 100:
            raise ValueError(f"loss is {self.loss_points} points of accuracy, expected 0 to 100")
        made = self.network is not None or is_network_file(self.net)
        require(not (self.tune and made), f"tune is {self.tune}, and {self.net} has no module to train; leave --tune out")
        _ = self.settings  # which check the rest

    @property
    def settings(self) -> Settings:
        """How the exact network is compiled, and a design measured."""
        return Settings(
            self.net, "exact", self.board, "simulator", self.kernels, self.sram, 1, self.data, seed=self.seed,
            flash=self.flash or "board",
        )  # fmt: skip

    @property
    def url(self) -> str:
        """URL of the database."""
        if self.storage:
            return self.storage
        folder = cache_folder() / "explore"
        folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{folder / 'studies.db'}"

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for, as JSON; where the trials lie is not said, since that may hold a password."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("network", "storage")}


def explore(options: Exploration) -> dict[str, Any]:
    """Returns the Pareto front of a network's designs, as `explore --json` prints it.

    Raises ValueError for wrong options or a database that is lost on the way (what it holds is continued from), MissingTool
    where optuna's database driver or the compiler is missing.
    """
    try:
        search.check_storage(options.url)
        return _Explorer(options).result()
    except optuna.exceptions.StorageInternalError as wrong:
        said = search.said_by(wrong, options.url)
        raise ValueError(
            f"the storage {search.safe(options.url)} was lost: {said}; give the same command again to go on"
        ) from None


def remade(source: str, network: Network | None = None) -> Measurement:
    """Returns the measurement of a design of a front, FRONT.json#N, made again from what the file says it chose.

    `network` is the one that was explored, where it has no name. Raises ValueError for a file that holds no such design.
    """
    name, _, number = source.rpartition("#")
    content: Any = read_json(Path(name or source), "front of designs")
    designs = content.get("front", []) if isinstance(content, dict) else []
    there = number.isascii() and number.isdigit() and int(number[:9]) < len(designs) and "options" in content
    require(there, f"{source!r} names no design that can be made again; expected FRONT.json#N, N of {len(designs)} from 0 on")
    asked, design = checked(dict[str, Any], content["options"], f"{name}, options"), designs[int(number)]
    explorer = _Explorer(replace(checked(Exploration, asked | {"tune": design["tuned"] or 0}, name), network=network))
    chosen = {label: explorer.spaces[label].chosen(design[label]) for label in explorer.spaces if design[label]}
    return explorer.measured(explorer.final(chosen))


class _Explorer:
    """One exploration: the network, the methods' choices for it, and what was found out about designs."""

    def __init__(self, options: Exploration) -> None:
        self.options, self.exact = options, compile_net(options.settings, options.network)
        self.data, self.graph, self.board = self.exact.data, self.exact.int8, find_board(options.board)
        made = {label: SPACES[label] for label in SPACES if label in options.methods}
        self.spaces = {label: space(self.graph, self.data, self.board, options.kernels) for label, space in made.items()}
        self.known: dict[str, Judgement | RefusedError] = {}

    def designs(self, labels: Sequence[str]) -> Designs:
        """Returns the designs under some of the methods."""
        asked, spaces = self.options, {label: self.spaces[label] for label in self.spaces if label in labels}
        limits = asked.sram, asked.flash, asked.cycles
        return Designs(self.graph, self.board, asked.kernels, spaces, *limits, self.exact.model.source)

    def final(self, design: Design) -> Model:
        """Returns a design compiled, with weights that are trained on where that is asked for."""
        asked, designs = self.options, self.designs(self.options.methods)
        if not asked.tune or not design:
            return designs.model(design)
        recipe = replace(TUNE, epochs=asked.tune, seed=asked.seed)
        return designs.model(design, designs.tuned(design, asked.net, self.data, recipe))

    def measured(self, model: Model) -> Measurement:
        """Returns the measurement of a compiled design in the simulator. Raises DoesNotFit."""
        return measure_compiled(self.options.settings, Compiled(self.exact.graph, model, self.data))

    def searched(
        self, labels: Sequence[str], images: Images, given: Sequence[Design], trials: int
    ) -> tuple[Designs, optuna.Study]:
        """Returns the finished study of some of the methods, which begins with the `given` designs."""
        designs = self.designs(labels)

        def judge(parameters: Parameters) -> Judgement:
            design = designs.design_of(parameters)
            key = repr(sorted((label, sorted(chosen.items())) for label, chosen in design.items()))
            if key not in self.known:
                self.known[key] = self.judged(designs, design, images)
            if isinstance(found := self.known[key], RefusedError):
                raise found
            return found

        study = search.open_study(self.options.url, self.study_name(labels, images))
        first = [designs.parameters_of(design) for design in given]
        most = max(len(first), math.prod(span + 1 for span in designs.spans.values()))  # designs that there are
        search.run(study, designs.spans, judge, min(trials, most), self.options.seed, first)
        return designs, study

    def judged(self, designs: Designs, design: Design, images: Images) -> Judgement | RefusedError:
        """Returns what a design comes to; one that breaks a limit is not looked at with images."""
        model = designs.model(design)
        cost = designs.cost(model)
        asked = model.limit_bytes or cost.sram_bytes  # what its schedule was to keep to
        if excess := designs.excess(cost) or replace(designs.limits, sram_bytes=asked).excess(0, cost.sram_bytes, 0):
            return RefusedError(excess)
        right, count = images.right(model.graph)
        short = max(0.0, images.least - right / count, GIVEN_UP * (count < images.count))
        facts = {"right": right, "images": count, "cost": asdict(cost)}
        return Judgement((right / count, cost.cycles, cost.flash_bytes, cost.sram_bytes), facts, short)

    def study_name(self, labels: Sequence[str], images: Images) -> str:
        """Returns a name that only the same search has, however many trials it is given."""
        asked, timing = self.options, model_name(self.board.cpu)
        choices = {label: self.spaces[label].choices for label in sorted(labels)}
        limits = (asked.sram, asked.flash, asked.cycles, asked.loss_points, images.count, LOOKS, search.GENERATION)
        content = hashlib.sha256(repr((self.board, timing, limits, choices)).encode() + self.data.sha256.encode())
        for name in sorted(self.graph.constants):
            content.update(self.graph.constants[name].tobytes())
        kind = f"{short_name(asked.net)}.{asked.kernels}.{self.board.name}.seed{asked.seed}"
        return f"{'+'.join(sorted(labels))}.{kind}.{content.hexdigest()[:12]}"

    def result(self) -> dict[str, Any]:
        """Returns the front, once every study is finished."""
        asked, images = self.options, Images(self.graph, self.data, self.options.images, self.options.loss_points / 100)
        alone, fronts = dict[str, list[dict[str, Any]]](), list[list[Design]]()
        for label, space in self.spaces.items():
            starts: list[Design] = [{}, *({label: start} if start else {} for start in space.starts)]
            designs, study = self.searched([label], images, starts[: asked.trials], asked.trials)
            best = search.front(study)
            fronts.append([designs.design_of(trial.params) for trial in best])
            alone[label] = [self.entry(designs, trial, images) for trial in best]
        if len(self.spaces) > 1:
            known: list[Design] = [design for found in fronts for design in found]
            joins = self.joins(alone, fronts)[: asked.trials // 2]
            designs, study = self.searched(list(self.spaces), images, [*known, *joins], len(known) + asked.trials)
        best = search.front(study)
        chosen, entries = [designs.design_of(trial.params) for trial in best], [self.entry(designs, one, images) for one in best]
        return self.finished(study, images, designs, chosen, entries, alone)

    def joins(self, alone: Mapping[str, Sequence[Mapping[str, Any]]], fronts: Sequence[Sequence[Design]]) -> list[Design]:
        """Returns designs of two or more methods, joined from some of what each has alone."""
        some: list[list[Design]] = []
        for entries, found in zip(alone.values(), fronts, strict=True):
            points = [(one["validation_correct"] / one["validation_images"], one["predicted"]["cycles"]) for one in entries]
            some.append([{}, *(found[i] for i in finalists(points, JOINED) if found[i])])
        joined = list[Design]()
        for parts in itertools.product(*some):
            if sum(map(bool, parts)) > 1:
                design: Design = {}
                for part in parts:
                    design = merged(design, part)
                joined.append(design)
        return joined

    def entry(self, designs: Designs, trial: optuna.trial.FrozenTrial, images: Images) -> dict[str, Any]:
        """Returns a design of the front as JSON, not measured yet: of each method what it chose, None for nothing."""
        facts, design = trial.user_attrs["facts"], designs.design_of(trial.params)
        counts = {"images": facts["images"], "exact": images.exact, "right": facts["right"]}
        chosen = {label: self.spaces[label].record(design[label], counts) if label in design else None for label in self.spaces}
        return {
            "method": "+".join(label for label in self.spaces if label in design) or "exact",
            "validation_correct": facts["right"], "validation_images": facts["images"], "test_correct": None, "tuned": None,
            "predicted": facts["cost"], "measured": None, **chosen,
        }  # fmt: skip

    def finished(
        self, study: optuna.Study, images: Images, designs: Designs, chosen: Sequence[Design], front: list[dict[str, Any]],
        alone: Mapping[str, Any],
    ) -> dict[str, Any]:  # fmt: skip
        """Returns the result with its finalists tuned, measured and tested; what breaks a limit after all is left out."""
        asked, pairs, broken = self.options, list[tuple[Cost, Measurement]](), set[int]()
        points = [(one["validation_correct"] / one["validation_images"], one["predicted"]["cycles"]) for one in front]
        picked = finalists(points, asked.finalists)
        right = [i for i, (share, _) in enumerate(points) if share >= images.exact / images.count]
        for i in tqdm(sorted({*picked, *right[:1]}) if picked else [], "finalists", leave=False, disable=None):
            model = self.final(chosen[i])
            cost, one = designs.cost(model), front[i]
            try:
                found = self.measured(model)
            except DoesNotFit:
                broken.add(i)
                continue
            sizes = found.flash_bytes["total"] or 0, found.planned_bytes, found.cycles or 0
            if designs.limits.excess(*sizes):
                broken.add(i)
                continue
            pairs.append((cost, found))
            if asked.tune and chosen[i]:
                correct, count = images.right(model.graph)
                one |= {"tuned": asked.tune, "untuned_correct": one["validation_correct"], "predicted": asdict(cost)}
                one |= {"validation_correct": correct, "validation_images": count}
            one |= {"measured": _measured(found), "test_correct": evaluator.correct(model.graph, self.data.test)}
        front = [one for i, one in enumerate(front) if i not in broken]
        tested = any(one["measured"] for one in front)
        uses = study.user_attrs.get("test_uses", 0) + tested
        study.set_user_attr("test_uses", uses)
        states = [trial.state.name for trial in search.by_index(study).values()]
        runs = {kernels: self.baseline(kernels) for kernels in ("reference", "fast")} if tested else {}
        errors = errors_percent(pairs)
        result: dict[str, Any] = {
            "schema": 1, "net": asked.net, "methods": list(asked.methods), "board": asked.board, "kernels": asked.kernels,
            "data": self.data.name, "seed": asked.seed, "study": study.study_name, "options": asked.asked,
            "trials": {"done": states.count("COMPLETE"), "refused": states.count("PRUNED")},
            "limits": asdict(designs.limits) | {"loss_points": asked.loss_points},
            "cost_model": {"designs": len(pairs), "error_percent": errors, "finalists_error_percent": errors},
            "validation": {"images": images.count, "exact": images.exact},
            "test": {
                "images": self.data.test.count, "uses": uses,
                "exact": evaluator.correct(self.graph, self.data.test) if tested else None,
            },
            "baselines": [{"kernels": kernels, "measured": _measured(run)} for kernels, run in runs.items() if run],
            "front": front, "alone": alone if len(self.spaces) > 1 else {},
        }  # fmt: skip
        for i, one in enumerate(front):
            words = ["python", "-m", "tinyredux", "explore", asked.net, "--design", f"{file_name(result)}#{i}"]
            one["command"] = shlex.join(words)
        return result | {"no_loss": no_loss(result)}

    def baseline(self, kernels: str) -> Measurement | None:
        """Returns the measurement of the exact network by a kernel set, None where it does not fit."""
        settings = replace(self.options.settings, kernels=kernels)
        try:
            return measure_compiled(settings, compile_net(settings, self.options.network))
        except DoesNotFit:
            return None


def no_loss(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the measured design of fewest cycles that gets as many validation images right as exact inference; None if none.

    With it by how many per cent it has fewer cycles than exact inference, by kernels, and the points it loses on test images.
    """
    exact = result["validation"]["exact"] / result["validation"]["images"]
    front, test = result["front"], result["test"]
    good = [i for i, one in enumerate(front) if one["measured"] and one["validation_correct"] / one["validation_images"] >= exact]
    if not good:
        return None
    number = min(good, key=lambda i: front[i]["measured"]["cycles"])
    cycles = front[number]["measured"]["cycles"]
    lost = 100 * (test["exact"] - front[number]["test_correct"]) / test["images"]
    whole = {one["kernels"]: one["measured"]["cycles"] for one in result["baselines"]}
    fewer = {kernels: round(100 * (1 - cycles / there), 2) for kernels, there in whole.items()}
    return {"design": number, "cycles": cycles, "fewer_percent": fewer, "test_points_lost": round(lost, 2)}


def _measured(found: Measurement) -> dict[str, Any]:
    names = "cycles cycles_kind timing_model ms flash_bytes sram_bytes macs_executed bit_exact model_hash"
    shown = {name: getattr(found, name) for name in names.split()}
    return shown | {name: shown[name]["total"] for name in ("flash_bytes", "sram_bytes")}


def finalists(points: Sequence[tuple[float, float]], count: int) -> list[int]:
    """Returns the numbers of at most `count` of the (accuracy, cycles) that no other beats in both, spread over them evenly."""
    best: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0], i)):
        if not best or points[i][0] > points[best[-1]][0]:
            best.append(i)
    places = np.linspace(0, len(best) - 1, min(count, len(best)))
    return [best[round(float(place))] for place in places]


def file_name(result: Mapping[str, Any]) -> str:
    """Returns the usual file name of a result: network, kernels, board and data."""
    return f"{short_name(result['net'])}.explore.{result['kernels']}.{result['board']}.{Path(result['data']).stem}.json"
