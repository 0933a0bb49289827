"""The exploration of one network: calibrate the costs, search, measure the finalists, look at the test images once.

Nothing is chosen by test images. The network's int8 weights, the board and the limits name the study in the database; so a
database holds many studies, and one that was begun with other weights is never continued by mistake.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from tqdm import tqdm

from tinyredux import flow
from tinyredux.boards import Board, find_board
from tinyredux.datasets import cache_folder
from tinyredux.device import DoesNotFit
from tinyredux.explore import search
from tinyredux.explore.designs import Calibration, Cost, Design, Designs, Images, errors_percent
from tinyredux.explore.search import Judgement, Parameters, RefusedError
from tinyredux.files import check_types, checked
from tinyredux.graph import Graph
from tinyredux.int8 import evaluator
from tinyredux.measurement import Measurement
from tinyredux.methods.layerwise import Layerwise
from tinyredux.methods.skip import Skip
from tinyredux.nets import short_name
from tinyredux.settings import METHODS, Compiled, Settings, compile_net, measure_compiled
from tinyredux.skip import records

FINEST = 16  # a parameter counts sixteenths of a layer's path of cuts
ON_ONE_PRICE = 12  # trials to begin with, for each unit: one threshold for all layers
LEVELS = (0.5, 1.0)  # of the paths: the designs that are simulated for the calibration, beside the exact one


@dataclass(frozen=True)
class Exploration:
    """What to explore. `images`: validation images of a trial, None for all. `loss_points`: how far the front goes down."""

    net: str
    methods: tuple[str, ...] = ("skip",)
    board: str = "disco_f469ni"
    kernels: str = METHODS["skip"][0]
    data: str | None = None
    trials: int = 100
    seed: int = 0
    storage: str | None = None  # None: an SQLite file in the user's cache
    images: int | None = None
    loss_points: float = 5.0
    finalists: int = 6
    sram: int | None = None

    def __post_init__(self) -> None:
        """Rejects what cannot be explored, naming what can."""
        check_types(self)
        known = [method for method in METHODS if method != "exact"]
        if not self.methods or set(self.methods) - set(known) or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods is {','.join(self.methods)!r}, expected some of {','.join(known)}, each once")
        for name, value, least in (("trials", self.trials, 1), ("finalists", self.finalists, 0), ("images", self.images, 1)):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        if not 0 <= self.loss_points <= 100:
            raise ValueError(f"loss is {self.loss_points} points of accuracy, expected 0 to 100")
        _ = self.settings  # which check the rest

    @property
    def settings(self) -> Settings:
        """How one design is compiled and measured."""
        return Settings(self.net, "skip", self.board, "simulator", self.kernels, self.sram, 1, self.data, seed=self.seed)

    @property
    def url(self) -> str:
        """URL of the database."""
        if self.storage:
            return self.storage
        folder = cache_folder() / "explore"
        folder.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{folder / 'studies.db'}"


def explore(options: Exploration) -> dict[str, Any]:
    """Returns the Pareto front of a network's designs, as `explore --json` prints it.

    Raises ValueError for wrong options or a database that is lost on the way (what it holds is continued from), MissingTool
    where optuna's database driver or the compiler is missing.
    """
    try:
        return _explore(options)
    except optuna.exceptions.StorageInternalError as wrong:
        said = search.said_by(wrong, options.url)
        raise ValueError(
            f"the storage {search.safe(options.url)} was lost: {said}; give the same command again to go on"
        ) from None


def _explore(options: Exploration) -> dict[str, Any]:
    search.check_storage(options.url)
    exact = compile_net(replace(options.settings, method="exact"))
    designs = Designs(exact.int8, exact.data, find_board(options.board), options.kernels, options.sram)
    images = Images(designs, options.images, options.loss_points / 100)
    study = search.open_study(options.url, _study_name(options, exact.int8, designs.board, images))
    _calibrate(study, options, exact, designs)
    space = {op: FINEST for op, units in designs.units_of.items() if any(len(designs.path(op, unit)) > 1 for unit in units)}
    space |= {f"{op}.unit": len(designs.units_of[op]) - 1 for op in space if len(designs.units_of[op]) > 1}

    def judge(parameters: Parameters) -> Judgement:
        graph = designs.graph_of(design_of(designs, parameters))
        cost = designs.cost(graph)
        excess = designs.excess(cost)
        if excess:
            raise RefusedError(excess)
        right, seen = images.right(graph)
        facts = {"right": right, "images": seen, "cost": asdict(cost)}
        short = max(0.0, images.least - right / seen)
        return Judgement((right / seen, cost.cycles, cost.flash_bytes, cost.sram_bytes), facts, short)

    skips = "skip" in options.methods
    trials, space = (options.trials, space) if skips else (1, {})
    search.run(study, space, judge, trials, options.seed, given(designs) if skips else ())
    return _result(study, options, exact, designs, images)


def design_of(designs: Designs, parameters: Parameters) -> Design:
    """Returns the design that parameters stand for."""
    chosen = {op: units[parameters.get(f"{op}.unit", 0)] for op, units in designs.units_of.items()}
    steps = {op: round(parameters.get(op, 0) / FINEST * (len(designs.path(op, unit)) - 1)) for op, unit in chosen.items()}
    return Design(chosen, steps)


def given(designs: Designs) -> list[dict[str, int]]:
    """Returns the parameters of the first trials: nothing left out, then one threshold for all layers, growing, by unit."""
    nothing = {name: 0 for op in designs.units_of for name in (op, f"{op}.unit")}
    found = [nothing]
    for unit in designs.units:
        for steps in designs.on_prices(unit, ON_ONE_PRICE):
            places = {op: round(FINEST * step / max(1, len(designs.path(op, unit)) - 1)) for op, step in steps.items()}
            found.append(nothing | places | {f"{op}.unit": designs.units_of[op].index(unit) for op in steps})
    return found


def _study_name(options: Exploration, graph: Graph, board: Board, images: Images) -> str:
    """Returns a name that only the same exploration has, however many trials it is given."""
    settings = (board, options.sram, options.loss_points, len(images.labels), FINEST, ON_ONE_PRICE, LEVELS, Calibration())
    content = hashlib.sha256(repr(settings).encode())
    for name in sorted(graph.constants):
        content.update(graph.constants[name].tobytes())
    return f"{short_name(options.net)}.{options.kernels}.{board.name}.seed{options.seed}.{content.hexdigest()[:12]}"


def _compiled(exact: Compiled, designs: Designs, options: Exploration, graph: Graph) -> Compiled:
    model = flow.compile(
        graph, designs.board, passes=[Skip()], schedule=Layerwise(options.sram), kernels=options.kernels, source=exact.graph,
        call=f"explore {Path(options.net).name} --board {options.board} --kernels {options.kernels}",
    )  # fmt: skip
    return replace(exact, model=model)


def _calibrate(study: optuna.Study, options: Exploration, exact: Compiled, designs: Designs) -> None:
    """Calibrates the costs in the simulator, or as another process of the study has done.

    Raises DoesNotFit where not even the smallest design fits the board.
    """
    if "calibration" in study.user_attrs:
        advice = "the database is damaged; give another --storage"
        designs.calibration = checked(Calibration, study.user_attrs["calibration"], f"calibration of {study.study_name}", advice)
        return
    simulated: list[tuple[Graph, Measurement]] = []
    for unit in designs.units:
        for level in tqdm(LEVELS if simulated else (0.0, *LEVELS), f"calibrating by {unit}", leave=False, disable=None):
            chosen = {op: unit for op, units in designs.units_of.items() if unit in units}
            steps = {op: round(level * (len(designs.path(op, unit)) - 1)) for op in chosen}
            graph = designs.graph_of(Design(chosen, steps))
            try:
                simulated.append((graph, measure_compiled(options.settings, _compiled(exact, designs, options, graph))))
            except DoesNotFit as wrong:
                too_large = wrong
    if not simulated:
        raise too_large
    study.set_user_attr("calibration", asdict(designs.calibrate(simulated)))


@dataclass(frozen=True)
class Candidate:
    """A design that may come onto the front: its `values` in the order of AIMS, predicted, or measured for other methods."""

    method: str
    graph: Graph
    right: int
    images: int
    values: tuple[float, ...]
    predicted: Cost | None = None
    measured: Measurement | None = None
    skip: records.Record | None = None


def _result(study: optuna.Study, options: Exploration, exact: Compiled, designs: Designs, images: Images) -> dict[str, Any]:
    found = [_candidate(options, designs, images, trial) for trial in search.front(study, images.least)]
    others = [_other(options, method, images) for method in options.methods if method != "skip"]
    found += [one for one in others if one is not None and one.right / one.images >= images.least]
    front = [found[i] for i in search.nondominated([one.values for one in found])]
    front.sort(key=lambda one: one.values[1])
    measured = finalists([(one.values[0], one.values[1]) for one in front], options.finalists)
    right = [i for i, one in enumerate(front) if one.right / one.images >= images.exact / len(images.labels)]
    measured = sorted({*measured, *right[:1]}) if measured else []
    for i in tqdm(measured, "measuring designs", leave=False, disable=None):
        if front[i].measured is None:
            compiled = _compiled(exact, designs, options, front[i].graph)
            front[i] = replace(front[i], measured=measure_compiled(options.settings, compiled))
    tested = {i: evaluator.correct(one.graph, exact.data.test) for i, one in enumerate(front) if one.measured}
    exact_right = evaluator.correct(exact.int8, exact.data.test) if tested else None
    uses = study.user_attrs.get("test_uses", 0) + bool(tested)
    study.set_user_attr("test_uses", uses)
    pairs = [(one.predicted, one.measured) for one in front if one.predicted and one.measured]
    calibration, done = designs.calibration, optuna.trial.TrialState.COMPLETE
    limits = {"flash_bytes": designs.board.flash_bytes, "sram_bytes": designs.sram_bytes, "loss_points": options.loss_points}
    errors = {"error_percent": dict(calibration.error_percent), "finalists_error_percent": errors_percent(pairs)}
    exact_runs = {kernels: _run(options, "exact", kernels)[1] for kernels in ("reference", "fast")} if tested else {}
    result: dict[str, Any] = {
        "schema": 1, "net": options.net, "methods": list(options.methods), "board": options.board, "kernels": options.kernels,
        "data": exact.data.name, "seed": options.seed, "study": study.study_name,
        "trials": {"done": len(study.get_trials(deepcopy=False, states=(done,))), "refused": len(search.refusals(study))},
        "limits": limits, "cost_model": {"designs": calibration.designs} | errors,
        "validation": {"images": len(images.labels), "exact": images.exact},
        "test": {"images": len(exact.data.test.images), "exact": exact_right, "uses": uses},
        "baselines": [{"kernels": kernels, "measured": _measured(run)} for kernels, run in exact_runs.items() if run],
        "front": [_entry(one, tested.get(i)) for i, one in enumerate(front)],
    }  # fmt: skip
    return result | {"no_loss": no_loss(result)}


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


def _candidate(options: Exploration, designs: Designs, images: Images, trial: optuna.trial.FrozenTrial) -> Candidate:
    design, facts = design_of(designs, trial.params), trial.user_attrs["facts"]
    record = designs.record(design, short_name(options.net), facts["right"], images.exact, facts["images"])
    graph, cost = designs.graph_of(design), Cost(**facts["cost"])
    return Candidate("skip", graph, facts["right"], facts["images"], tuple(trial.values), cost, None, record)


def _other(options: Exploration, method: str, images: Images) -> Candidate | None:
    """Returns the one design that another method has for the network, measured; None where it breaks a limit."""
    kernels = options.kernels if options.kernels in METHODS[method] else None
    compiled, found = _run(options, method, kernels)
    if found is None:
        return None
    right, seen = images.right(compiled.int8)
    values = (right / seen, found.cycles or 0, found.flash_bytes["total"] or 0, compiled.plan.total_bytes)
    return Candidate(method, compiled.int8, right, seen, values, None, found)


def _run(options: Exploration, method: str, kernels: str | None) -> tuple[Compiled, Measurement | None]:
    """Returns the network compiled by a method, and measured where it fits."""
    settings = replace(options.settings, method=method, kernels=kernels)
    compiled = compile_net(settings)
    try:
        return compiled, measure_compiled(settings, compiled)
    except DoesNotFit:
        return compiled, None


def _entry(one: Candidate, tested: int | None) -> dict[str, Any]:
    cost = asdict(one.predicted) if one.predicted else None
    return {
        "method": one.method, "validation_correct": one.right, "validation_images": one.images, "test_correct": tested,
        "predicted": cost, "measured": _measured(one.measured), "skip": asdict(one.skip) if one.skip else None,
    }  # fmt: skip


def _measured(found: Measurement | None) -> dict[str, Any] | None:
    if found is None:
        return None
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
