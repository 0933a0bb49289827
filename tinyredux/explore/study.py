"""The exploration of one network: calibrate the costs, search, measure the finalists, look at the test images once.

Nothing is chosen by test images. The network's int8 weights, the methods, the board and the limits name the study in the
database; so a database holds many studies, and one that was begun with other weights is never continued by mistake.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from tqdm import tqdm

from tinyredux import flow
from tinyredux.boards import Board, find_board
from tinyredux.datasets import Dataset, cache_folder
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
from tinyredux.settings import METHODS, Compiled, Network, Settings, compile_net, measure_compiled
from tinyredux.simulator import model_name

FINEST = 16  # a parameter counts sixteenths of a layer's path of cuts
ON_ONE_PRICE = 12  # trials to begin with, for each unit: one threshold for all layers
LEVELS = (0.5, 1.0)  # of the paths: the designs that are simulated for the calibration, beside the exact one


@dataclass(frozen=True)
class Exploration:
    """What to explore. `images`: validation images of a trial, None for all. `loss_points`: how far the front goes down.

    `network` is the one where it has no name that leads to it, with its data: Network(int8 graph, float graph or None, data).
    """

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
    flash: int | str | None = None
    network: Network | None = field(default=None, repr=False)

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
        return Settings(
            self.net, "skip", self.board, "simulator", self.kernels, self.sram, 1, self.data, seed=self.seed, flash=self.flash
        )

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
    exact = compile_net(_settings_of(options, "exact", options.kernels), options.network)
    designs = Designs(exact.int8, exact.data, find_board(options.board), options.kernels, options.sram, options.flash)
    images = Images(designs, options.images, options.loss_points / 100)
    study = search.open_study(options.url, _study_name(options, exact.int8, exact.data, designs.board, images))
    _calibrate(study, options, exact, designs)
    others = [{"method": list(METHODS).index(method)} for method in options.methods if method != "skip"]
    paths = designs.paths.items() if "skip" in options.methods else ()
    space = {op: FINEST for op, units in paths if any(len(path) > 1 for path in units.values())}
    space |= {f"{op}.unit": len(designs.paths[op]) - 1 for op in space if len(designs.paths[op]) > 1}

    def judge(parameters: Parameters) -> Judgement:
        if "method" in parameters:
            return _judge_method(options, list(METHODS)[parameters["method"]], images)
        graph = designs.graph_of(design_of(designs, parameters))
        cost = designs.cost(graph)
        if excess := designs.excess(cost):
            raise RefusedError(excess)
        facts = {"cost": asdict(cost)}
        return _judgement(images, images.right(graph), (cost.cycles, cost.flash_bytes, cost.sram_bytes), facts)

    first = [{name: places[name] for name in space} for places in given(designs)] if space else [{}]
    search.run(study, space, judge, len(others) + (options.trials if space else 1), options.seed, [*others, *first])
    return _result(study, options, exact, designs, images)


def _judgement(images: Images, right: tuple[int, int], sizes: tuple[float, ...], facts: dict[str, Any]) -> Judgement:
    share = right[0] / right[1]
    return Judgement((share, *sizes), {"right": right[0], "images": right[1], **facts}, max(0.0, images.least - share))


def _judge_method(options: Exploration, method: str, images: Images) -> Judgement:
    """Judges the one design that a method which is not searched has for the network, measured."""
    compiled, found = _run(options, method)
    if found is None:
        raise RefusedError(f"{method} does not fit {options.board}")
    sizes = (found.cycles or 0, found.flash_bytes["total"] or 0, compiled.plan.total_bytes)
    return _judgement(images, images.right(compiled.int8), sizes, {"measured": _measured(found)})


def design_of(designs: Designs, parameters: Parameters) -> Design:
    """Returns the design that parameters stand for."""
    chosen = {op: list(paths)[parameters.get(f"{op}.unit", 0)] for op, paths in designs.paths.items()}
    longest = {op: len(designs.paths[op][unit]) - 1 for op, unit in chosen.items()}
    return {op: (unit, round(parameters.get(op, 0) / FINEST * longest[op])) for op, unit in chosen.items()}


def given(designs: Designs) -> list[dict[str, int]]:
    """Returns the parameters of the first trials: nothing left out, then one threshold for all layers, growing, by unit."""
    nothing = {name: 0 for op in designs.paths for name in (op, f"{op}.unit")}
    found = [nothing]
    for unit in designs.units:
        longest = {op: max(1, len(path) - 1) for op, path in designs.cut_by(unit).items()}
        for steps in designs.on_prices(unit, ON_ONE_PRICE):
            places = {op: round(FINEST * step / longest[op]) for op, step in steps.items()}
            found.append(nothing | places | {f"{op}.unit": list(designs.paths[op]).index(unit) for op in steps})
    return found


def _study_name(options: Exploration, graph: Graph, data: Dataset, board: Board, images: Images) -> str:
    """Returns a name that only the same exploration has, however many trials it is given."""
    timing = model_name(board.cpu)  # a trial of another method holds measured cycles
    settings = (board, timing, options.sram, options.loss_points, images.count, FINEST, ON_ONE_PRICE, LEVELS, Calibration())
    content = hashlib.sha256(repr((*settings, options.methods, *([] if options.flash is None else [options.flash]))).encode())
    content.update(data.sha256.encode())
    for name in sorted(graph.constants):
        content.update(graph.constants[name].tobytes())
    return f"{short_name(options.net)}.{options.kernels}.{board.name}.seed{options.seed}.{content.hexdigest()[:12]}"


def _compiled(exact: Compiled, designs: Designs, options: Exploration, graph: Graph) -> Compiled:
    model = flow.compile(
        graph, designs.board, passes=[Skip()], schedule=Layerwise(options.sram, options.flash), kernels=options.kernels,
        source=exact.model.source, call=f"explore {Path(options.net).name} --board {options.board} --kernels {options.kernels}",
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
            cut = {op: (unit, round(level * (len(path) - 1))) for op, path in designs.cut_by(unit).items()}
            graph = designs.graph_of(cut)
            try:
                simulated.append((graph, measure_compiled(options.settings, _compiled(exact, designs, options, graph))))
            except DoesNotFit as wrong:
                too_large = wrong
    if not simulated:
        raise too_large
    study.set_user_attr("calibration", asdict(designs.calibrate(simulated)))


def _result(study: optuna.Study, options: Exploration, exact: Compiled, designs: Designs, images: Images) -> dict[str, Any]:
    trials, data = search.front(study), exact.data
    front, graphs = [_entry(options, designs, images, trial) for trial in trials], dict[int, Graph]()
    measured = finalists([(trial.values[0], trial.values[1]) for trial in trials], options.finalists)
    right = [i for i, trial in enumerate(trials) if trial.values[0] >= images.exact / images.count]
    pairs: list[tuple[Cost, Measurement]] = []
    for i in tqdm(sorted({*measured, *right[:1]}) if measured else [], "measuring designs", leave=False, disable=None):
        if front[i]["measured"] is None:
            graphs[i] = designs.graph_of(design_of(designs, trials[i].params))
            found = measure_compiled(options.settings, _compiled(exact, designs, options, graphs[i]))
            pairs.append((Cost(**front[i]["predicted"]), found))
            front[i]["measured"] = _measured(found)
    tested = [i for i, entry in enumerate(front) if entry["measured"]]
    for i in tested:
        graph = graphs[i] if i in graphs else compile_net(_settings_of(options, front[i]["method"]), options.network).int8
        front[i]["test_correct"] = evaluator.correct(graph, data.test)
    uses = study.user_attrs.get("test_uses", 0) + bool(tested)
    study.set_user_attr("test_uses", uses)
    states = [trial.state.name for trial in study.get_trials(deepcopy=False)]
    exact_right = evaluator.correct(exact.int8, data.test) if tested else None
    runs = {kernels: _run(options, "exact", kernels)[1] for kernels in ("reference", "fast")} if tested else {}
    result: dict[str, Any] = {
        "schema": 1, "net": options.net, "methods": list(options.methods), "board": options.board, "kernels": options.kernels,
        "data": data.name, "seed": options.seed, "study": study.study_name,
        "trials": {"done": states.count("COMPLETE"), "refused": states.count("PRUNED")},
        "limits": {"flash_bytes": designs.flash_bytes, "sram_bytes": designs.sram_bytes, "loss_points": options.loss_points},
        "cost_model": {
            "designs": designs.calibration.designs, "error_percent": dict(designs.calibration.error_percent),
            "finalists_error_percent": errors_percent(pairs),
        },
        "validation": {"images": images.count, "exact": images.exact},
        "test": {"images": data.test.count, "exact": exact_right, "uses": uses},
        "baselines": [{"kernels": kernels, "measured": _measured(run)} for kernels, run in runs.items() if run],
        "front": front,
    }  # fmt: skip
    return result | {"no_loss": no_loss(result)}


def _entry(options: Exploration, designs: Designs, images: Images, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Returns a design of the front, which is not tested yet."""
    facts, method = trial.user_attrs["facts"], trial.params.get("method")
    record = None
    if method is None:
        design = design_of(designs, trial.params)
        record = asdict(designs.record(design, short_name(options.net), facts["right"], images.exact, facts["images"]))
    return {
        "method": "skip" if method is None else list(METHODS)[method], "validation_correct": facts["right"],
        "validation_images": facts["images"], "test_correct": None, "predicted": facts.get("cost"),
        "measured": facts.get("measured"), "skip": record,
    }  # fmt: skip


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


def _settings_of(options: Exploration, method: str, kernels: str | None = None) -> Settings:
    """Returns how a method that is not searched is measured: by its usual kernels unless it has those that are asked for, with
    the flash that designs have."""
    kernels = kernels or (options.kernels if options.kernels in METHODS[method] else None)
    return replace(options.settings, method=method, kernels=kernels, flash=options.flash or "board")


def _run(options: Exploration, method: str, kernels: str | None = None) -> tuple[Compiled, Measurement | None]:
    """Returns the network compiled by a method that is not searched, and measured where it fits."""
    settings = _settings_of(options, method, kernels)
    compiled = compile_net(settings, options.network)
    try:
        return compiled, measure_compiled(settings, compiled)
    except DoesNotFit:
        return compiled, None


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
