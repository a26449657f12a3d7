"""MLflow's view of a task, in its workspace: `python -m damcrack.kubeflow.record [COMMAND OUT]`.

With the command and the output of a restored stage: a run tagged with the run that made the output. Then everything
that waits is sent.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from damcrack.params import COMMON, flatten_values, read_params, section_items
from damcrack.stage_runner import content_digest, parents
from damcrack.tracking.recorded import send_later, start_run


def main() -> None:
    """Record a restored stage if one is named; send."""
    if sys.argv[1:]:
        record_restored(shlex.split(sys.argv[1]), Path(sys.argv[2]))
    if not os.environ.get("DAMCRACK_SCRATCH"):  # a scratch folder outlives the task, and can wait
        sent = send_later()
        if sent.num_waiting:
            print(f"damcrack: {sent}; they end with this task, its outputs do not", flush=True)


def record_restored(command: list[str], out: Path) -> None:
    """One run for a stage that did not run here."""
    stage, item = command[1], command[command.index("--item") + 1] if "--item" in command else None
    values = flatten_values(_values(read_params(Path("params.yaml")).get(stage, {}), item))
    digest = content_digest(out)
    with start_run(stage, item, values, {}) as run:
        run.restored(digest)
        run.finish_outputs(digest, **parents(out))


def _values(section: dict[str, Any], item: str | None) -> dict[str, Any]:
    """A stage's values without its schema, which would import torch."""
    if COMMON not in section:
        return section
    return {**section[COMMON], **dict(section_items(section)).get(str(item), {})}


if __name__ == "__main__":
    main()
