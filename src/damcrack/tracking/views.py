"""Views of MLflow's pages that every experiment of ours is born with: which runs, columns and charts, in which order.

MLflow keeps a saved view as a tag of the experiment, mlflow.sharedViewState.ID: a name and the state of the page, as
JSON. Fixed ids make writing them again an update. Tried with MLflow 3.17 in a browser; docs/mlflow.md shows them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

VIEW = "mlflow.sharedViewState."
VIEWS_TAG = "damcrack.views"
State = dict[str, Any]

TRAINED = "metrics.val_accuracy >= 0"
DISTILLED = "tags.`damcrack.stage` = 'distill'"
GRAPHS = "tags.`damcrack.stage` = 'graph'"
CURVES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
EXPERIMENTS = (
    "resnet18-scratch",
    "resnet18-pretrained",
    "resnet50-pretrained",
    "resnet18-fixed",
    "resnet18-dynamic",
)
RUN_COLUMNS = ("attributes.`Source`", "tags.`damcrack.graph_run`")


def view_tags() -> dict[str, str]:
    """The experiment's tags: one a view, and one that changes with any of them."""
    tags = {f"{VIEW}{name}": _envelope(title, state) for name, (title, state) in _views().items()}
    digest = hashlib.sha256(json.dumps(tags, sort_keys=True).encode()).hexdigest()
    return {**tags, VIEWS_TAG: digest[:16]}


def view_address(server: str, experiment_id: str, name: str) -> str:
    """Where a browser finds the view."""
    return f"{server}/#/experiments/{experiment_id}/runs?viewStateShareKey={name}&compareRunsMode=CHART"


def _views() -> dict[str, tuple[str, State]]:
    accuracies = [f"{name}/accuracy" for name in EXPERIMENTS]
    recalls = [f"{name}/recall" for name in EXPERIMENTS]
    distilled = [*CURVES, "soft_loss", "temperature"]
    return {
        "damcrack-graphs": (
            "1 Graphs: what each whole run reached",
            _state(
                GRAPHS,
                _column("metrics", accuracies[-1]),
                [_column("metrics", name) for name in accuracies]
                + [
                    _column("params", name)
                    for name in ("distill.common.alpha", "distill.items.fixed.temperature.value")
                ],
                {
                    "Accuracy on unseen tiles": [_bar(name) for name in accuracies],
                    "Recall on unseen tiles": [_bar(name) for name in recalls],
                },
            ),
        ),
        "damcrack-distillation": (
            "2 Distillation: T and alpha",
            _state(
                DISTILLED,
                _column("metrics", "val_accuracy"),
                [
                    _column("params", name)
                    for name in ("alpha", "temperature.kind", "soft_loss", "temperature_scale")
                ]
                + [_column("metrics", name) for name in ("temperature", "val_accuracy")],
                {
                    "What T and alpha do": [
                        _parallel(["alpha", "temperature.kind"], ["temperature", "val_accuracy"])
                    ],
                    "By epoch": [_line(name) for name in distilled],
                },
            ),
        ),
        "damcrack-training": (
            "3 Training: curves by epoch",
            _state(
                TRAINED,
                _column("metrics", "val_accuracy"),
                [_column("metrics", name) for name in CURVES] + [_column("params", "network")],
                {
                    "By epoch": [
                        _line(name) for name in (*CURVES, "learning_rate", "theta", "reversal_weight")
                    ]
                },
            ),
        ),
    }


def _envelope(title: str, state: State) -> str:
    return json.dumps({"name": title, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def _state(runs: str, order_by: str, columns: Sequence[str], charts: Mapping[str, Sequence[State]]) -> State:
    """The page: a filter on runs, their order, the table's columns, and sections of charts.

    Ordered by time the page would fold a graph's runs away under the graph's, charts included.
    """
    shown = [*RUN_COLUMNS, *columns]
    sections, cards = [], []
    for number, (title, members) in enumerate(charts.items()):
        section = f"section-{number}"
        facts = {"display": True, "isReordered": True, "columns": min(3, len(members))}
        sections.append({"uuid": section, "name": title, **facts})
        cards += [
            {**card, "uuid": f"{section}-{place}", "metricSectionId": section}
            for place, card in enumerate(members)
        ]
    return {
        "searchFilter": runs,
        "orderByKey": order_by,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": shown,
        "columnOrder": shown,
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": False,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "compareRunCharts": cards,
        "compareRunSections": sections,
    }


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _card(kind: str, **fields: Any) -> State:
    return {"type": kind, "runsCountToCompare": 20, "deleted": False, "isGenerated": False, **fields}


def _bar(metric: str) -> State:
    return _card("BAR", metricKey=metric, displayName=metric)


def _line(metric: str) -> State:
    return _card(
        "LINE",
        metricKey=metric,
        selectedMetricKeys=[metric],
        displayName=metric,
        xAxisKey="step",
        yAxisKey="metric",
        yAxisExpressions=[],
        xAxisScaleType="linear",
        scaleType="linear",
        range={},
        selectedXAxisMetricKey="",
        lineSmoothness=0,
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
    )


def _parallel(params: Sequence[str], metrics: Sequence[str]) -> State:
    return _card("PARALLEL", selectedParams=list(params), selectedMetrics=list(metrics), showAllRuns=True)
