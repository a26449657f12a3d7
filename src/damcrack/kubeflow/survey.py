"""A survey that is too large for one machine: parts of the photos on many pods, then one report.

    cut-survey ──► inspect-part, for each part ──► write-survey

Photos and survey lie in buckets; a part that fails is repeated alone, and so is a run: what was inspected is found.
"""

from collections.abc import Mapping
from typing import Any

import yaml
from kfp import dsl

from damcrack.kubeflow.graph import Needs
from damcrack.kubeflow.pipeline import equip, one_line

NAME = "damcrack-survey"
PHOTOS_PER_PART = 1000


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def cut_survey(photos: str, out: str, model: str, photos_per_part: int) -> list:  # type: ignore[type-arg]
    """List the photos; return what each pod is to do: `PART MODEL`, with the version that an alias means now."""
    from damcrack.imagery import bucket_survey

    return bucket_survey.cut(photos, out, model, photos_per_part)


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def inspect_part(photos: str, out: str, params: str, work: str) -> str:
    """Inspect a part of the photos; return which, and with which model."""
    from damcrack.imagery import bucket_survey

    part, _, model = work.partition(" ")
    print(bucket_survey.inspect_part(photos, out, model, params, part), flush=True)
    return work


@dsl.component(base_image="damcrack-cpu", install_kfp_package=False)
def write_survey(
    photos: str,
    out: str,
    params: str,
    parts: list,  # type: ignore[type-arg]
    summary: dsl.Output[dsl.Markdown],
) -> None:
    """Write tables and page of all parts."""
    from pathlib import Path

    from damcrack.imagery import bucket_survey

    model = parts[0].partition(" ")[2]
    done = bucket_survey.inspect_part(photos, out, model, params)
    Path(summary.path).write_text("".join(f"- {name}: {value}\n" for name, value in done.items()))


def survey(cpu_image: str, params: Mapping[str, Any], photos: str, out: str) -> Any:
    """The pipeline; photos, place of the survey, model and values can be changed at submission."""
    images = {"cpu": cpu_image}
    values = one_line(yaml.safe_dump({"inspect": params.get("inspect") or {}}))

    @dsl.pipeline(name=NAME, description="A survey that is too large for one machine, inspected in parts.")
    def pipeline(
        photos: str = photos,
        out: str = out,
        model: str = "models:/dam-crack-detector@champion",
        params: str = values,
        photos_per_part: int = PHOTOS_PER_PART,
    ) -> None:
        made = cut_survey(photos=photos, out=out, model=model, photos_per_part=photos_per_part)
        equip(made, Needs(image="cpu", timeout="1h"), images)
        inputs = {"photos": photos, "out": out, "params": params}
        with dsl.ParallelFor(made.output, name="parts") as work:
            inspected = inspect_part(**inputs, work=work)
            equip(inspected, Needs(image="cpu", cpu=4, memory="4Gi"), images)
        written = write_survey(**inputs, parts=dsl.Collected(inspected.output))
        equip(written, Needs(image="cpu", memory="16Gi"), images)

    return pipeline
