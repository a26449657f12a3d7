#!/usr/bin/env bash
# Two full graphs on one tracking server, and its champion: promoted, inspected with, rolled back.
#
#   MLFLOW_TRACKING_URI=... MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=... experiments/two_graphs.sh FOLDER
#
# FOLDER becomes a clone of this commit with the demo's values. The first graph exports the ResNet50; the second has another
# alpha and temperature and exports the distilled ResNet18, which then competes with it. Ends with an error at the first
# command that fails. docs/promotion.md tells what came of it.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,9p' "$0"; exit 2; }
git clone --quiet . "$1"
cd "$1"
export DAMCRACK_TRACK=later PYTHONPATH=$PWD/src

values() { # PYTHON: change the values `v` of params.yaml
    python3 -c "import yaml; v = yaml.safe_load(open('params.yaml')); $1; yaml.safe_dump(v, open('params.yaml', 'w'), sort_keys=False)"
}

graph() { # NAME
    DAMCRACK_GRAPH_RUN=$1 dvc repro --quiet
    DAMCRACK_GRAPH_RUN=$1 damcrack track send
    damcrack summary
}

inspected() { # FOLDER: three of the photos, with whoever is champion
    local photos
    mapfile -t photos < <(find data/photos -name '*.jpg' | sort | head -3)
    damcrack inspect "${photos[@]}" --model models:/dam-crack-detector@champion --out "$1"
    sha256sum "$1/blocks.csv"
}

values "v['export']['experiment'] = 'resnet50-pretrained'"
graph first
values "v['export']['experiment'] = 'resnet18-dynamic'
v['distill']['common']['alpha'] = 0.2
v['distill']['items']['fixed']['temperature']['value'] = 2.0"
graph second
damcrack runs
damcrack history
damcrack promote dam-crack-detector || damcrack promote 2 --set min_gain=0.0 --set confidence=0.6
inspected survey-new
damcrack rollback --reason "tried on three photos, going back to be sure"
inspected survey-back
damcrack history
damcrack lineage dam-crack-detector@champion
