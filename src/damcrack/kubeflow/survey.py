"""A survey that is too large for one machine: parts of the photos on many pods, then one report.

    cut-survey ──► inspect-part, for each part ──► write-survey

Photos and survey lie in buckets; a part that fails is repeated alone, and so is a run: what was inspected is found.
"""

from typing import Any, NamedTuple

from kfp import dsl

from damcrack.kubeflow.graph import Needs
from damcrack.kubeflow.pipeline import Setting, equip, one_line

NAME = "damcrack-survey"
PHOTOS_PER_PART = 1000


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def cut_survey(
    photos: str, out: str, model: str, photos_per_part: int
) -> NamedTuple("Cut", [("parts", list), ("model", str)]):  # type: ignore[valid-type]
    """List the photos; return the parts that they make, and the model with its version, the same for all parts."""
    from damcrack.imagery.bucket_survey import cut
    from damcrack.registry.places import with_version

    return cut(photos, out, photos_per_part), with_version(model)  # type: ignore[return-value]


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def inspect_part(photos: str, out: str, model: str, params: str, part: str) -> str:
    """Inspect a part of the photos; return which."""
    from damcrack.imagery import calls as imagery

    imagery.inspect_survey(photos, out, model, imagery.as_file(params, "params.yaml"), part)
    return part


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def write_survey(
    photos: str, out: str, model: str, params: str, parts: list, summary: dsl.Output[dsl.Markdown]  # type: ignore[type-arg]
) -> None:
    """Write tables and page of all parts."""
    from pathlib import Path

    from damcrack.imagery import calls as imagery

    done = imagery.inspect_survey(photos, out, model, imagery.as_file(params, "params.yaml"))
    Path(summary.path).write_text("".join(f"- {name}: {value}\n" for name, value in done.items()))


def survey(setting: Setting, photos: str, out: str) -> Any:
    """The pipeline; photos, place of the survey, model and values can be changed at submission."""
    short, part_needs, join_needs = (
        Needs(image="cpu", timeout="1h"),
        Needs(image="cpu", cpu=4, memory="4Gi"),
        Needs(image="cpu", memory="16Gi"),
    )

    @dsl.pipeline(name=NAME, description="A survey that is too large for one machine, inspected in parts.")
    def pipeline(
        photos: str = photos,
        out: str = out,
        model: str = "models:/dam-crack-detector@champion",
        params: str = one_line(setting.params),
        photos_per_part: int = PHOTOS_PER_PART,
    ) -> None:
        inputs = {"photos": photos, "out": out}
        made = cut_survey(**inputs, model=model, photos_per_part=photos_per_part)
        equip(made, short, setting.images)
        inputs |= {"model": made.outputs["model"], "params": params}
        with dsl.ParallelFor(made.outputs["parts"], name="parts") as part:
            inspected = inspect_part(**inputs, part=part)
            equip(inspected, part_needs, setting.images)
        written = write_survey(**inputs, parts=dsl.Collected(inspected.output))
        equip(written, join_needs, setting.images)

    return pipeline
