"""`damcrack runs`: the best runs of each experiment in the tracking store, with the paper's number beside."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from damcrack.evaluate.published import PAPER_TABLE_1, PAPER_TABLE_2
from damcrack.files import InputError
from damcrack.tracking.store import (
    QUICK_FAILURE,
    QUIET,
    Store,
    experiment_name,
    one_line,
    sending_errors,
    set_defaults,
    shown_uri,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow.entities import Run


def show_runs() -> None:
    """Print the tables.

    Raises:
        InputError: the store does not answer, or holds no finished run of ours.
    """
    set_defaults(QUIET | QUICK_FAILURE)
    try:
        kept = Kept(_finished(Store(tracking_uri())))
    except sending_errors() as error:
        raise InputError(f"MLflow at {shown_uri(tracking_uri())}: {one_line(error)}") from error
    if not kept.runs:
        raise InputError(
            f"MLflow at {shown_uri(tracking_uri())} has no finished runs in experiment {experiment_name()!r}; "
            "run `make repro`, or name another with MLFLOW_EXPERIMENT_NAME"
        )
    console = Console()
    for table in [*crack_tables(kept), *image_tables(kept)]:
        console.print(table)


def _finished(store: Store) -> list["Run"]:
    """All finished runs of our experiment, newest first; asking creates nothing."""
    experiment = store.client.get_experiment_by_name(experiment_name())
    runs: list[Run] = []
    places = [experiment.experiment_id] if experiment else []
    token, more = None, bool(places)
    while more:
        page = store.client.search_runs(places, "attributes.status = 'FINISHED'", page_token=token)
        runs += page
        token, more = page.token, bool(page.token)
    return runs


@dataclass(frozen=True)
class Kept:
    """The runs, and what follows from them together."""

    runs: Sequence["Run"]

    def of(self, stage: str) -> list["Run"]:
        """Runs of one stage."""
        return [run for run in self.runs if run.data.tags.get("damcrack.stage") == stage]

    @cached_property
    def makers(self) -> dict[str, list["Run"]]:
        """The runs that made an output, by the output's digest."""
        makers: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            makers[run.data.tags.get("damcrack.output", "")].append(run)
        return makers

    @cached_property
    def crack_networks(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Network and start of a crack experiment, by graph and name; a stage that a graph did not run is older."""
        known: dict[tuple[str, str], tuple[str, str]] = {}
        for run in self.of("finetune"):
            name, facts = (
                run.data.tags["damcrack.item"],
                (run.data.params.get("network", ""), self._start(run)),
            )
            known.setdefault((_graph(run), name), facts)
            known.setdefault(("", name), facts)
        return known

    def _start(self, run: "Run") -> str:
        sha256 = run.data.tags.get("damcrack.init_sha256")
        if sha256 is None:
            return "scratch"
        found, named = self.makers.get(sha256, []), run.data.params.get("init")
        if not found:
            return "weights that are not here"
        # Short trainings may end in the same weights: the one that params.yaml names is meant.
        origin = next((maker for maker in found if maker.data.tags.get("damcrack.item") == named), found[0])
        return "pretrained" if _stage(origin) == "pretrain" else f"distilled, {method(origin)}"


def method(run: "Run") -> str:
    """What taught a network of the pretraining set."""
    if _stage(run) == "pretrain":
        return "labels"
    params = run.data.params
    dynamic = params.get("temperature.kind") == "dynamic"
    return "dynamic T" if dynamic else f"fixed T = {float(params['temperature.value']):g}"


def crack_tables(kept: Kept) -> list[Table]:
    """One table for each evaluation set: accuracies on different tiles cannot be compared."""
    tables = []
    for (digest, role), runs in _by_data(kept.of("evaluate")).items():
        best = _best(runs, "/accuracy")
        table = _table(
            f"crack classifiers, best of {len(runs)} evaluations on tiles {digest[:12]} ({role})",
            ("experiment", "accuracy", "paper", "recall", "runs", "graph or day"),
        )
        for name, (run, count) in sorted(
            best.items(), key=lambda pair: -_metric(pair[1][0], f"{pair[0]}/accuracy")
        ):
            networks = kept.crack_networks
            facts = networks.get((_graph(run), name)) or networks.get(("", name))
            paper = PAPER_TABLE_2.get(facts) if facts else None
            accuracy, recall = (_metric(run, f"{name}/{metric}") for metric in ("accuracy", "recall"))
            table.add_row(
                name, _percent(accuracy), _percent(paper), _percent(recall), str(count), _whence(run)
            )
        tables.append(table)
    return tables


def image_tables(kept: Kept) -> list[Table]:
    """One table for each pretraining set: networks by what taught them."""
    tables = []
    for (digest, _), runs in _by_data([*kept.of("pretrain"), *kept.of("distill")]).items():
        table = _table(
            f"pretraining, best of {len(runs)} runs on images {digest[:12]}, validation, last epoch",
            ("network", "taught by", "accuracy", "paper", "alpha", "T", "runs", "graph or day"),
        )
        groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in runs:
            groups[run.data.params.get("network", ""), method(run)].append(run)
        for key, members in sorted(groups.items()):
            run = max(members, key=lambda run: _metric(run, "val_accuracy"))
            accuracy, params = _metric(run, "val_accuracy"), run.data.params
            learned = [
                params.get("alpha", "-") if _stage(run) == "distill" else "-",
                _number(run, "temperature"),
            ]
            numbers = [_percent(accuracy), _percent(PAPER_TABLE_1.get(key)), *learned]
            table.add_row(*key, *numbers, str(len(members)), _whence(run))
        tables.append(table)
    return tables


def _best(runs: Iterable["Run"], ending: str) -> dict[str, tuple["Run", int]]:
    """The run with the highest metric NAME + ending, and how many have one, by NAME."""
    having: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        for key in run.data.metrics:
            if key.endswith(ending):
                having[key.removesuffix(ending)].append(run)
    return {
        name: (max(found, key=lambda run: _metric(run, name + ending)), len(found))
        for name, found in having.items()
    }


def _by_data(runs: Iterable["Run"]) -> dict[tuple[str, str], list["Run"]]:
    """Runs by the digest of their data set and its role, in the order of their newest."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        for given in run.inputs.dataset_inputs[:1] if run.inputs else ():
            role = next((tag.value for tag in given.tags if tag.key == "mlflow.data.context"), "")
            groups[given.dataset.digest, role].append(run)
    return groups


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    words = {"experiment", "network", "taught by", "graph or day"}
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right", overflow="fold")
    return table


def _stage(run: "Run") -> str:
    return str(run.data.tags.get("damcrack.stage", ""))


def _graph(run: "Run") -> str:
    return str(run.data.tags.get("damcrack.graph_run", ""))


def _whence(run: "Run") -> str:
    return _graph(run) or time.strftime("%Y-%m-%d", time.gmtime(run.info.start_time / 1000))


def _metric(run: "Run", name: str) -> float:
    return float(run.data.metrics.get(name, float("nan")))


def _number(run: "Run", name: str) -> str:
    return f"{run.data.metrics[name]:.3f}" if name in run.data.metrics else "-"


def _percent(value: Any) -> str:
    return "-" if value is None or value != value else f"{value:.2%}"
