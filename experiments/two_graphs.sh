#!/usr/bin/env bash
# Two full graphs on one tracking server, and its champion: promoted, inspected with, rolled back.
#
#   MLFLOW_TRACKING_URI=... MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=... experiments/two_graphs.sh FOLDER [MODEL]
#
# FOLDER becomes a clone of this commit with the demo's values; if it is there, it is gone on with, and what is done is not
# done again. MODEL is the name in the registry, a new one each time. The first graph exports the ResNet50, without floors, and
# becomes champion as there is none; the second has another alpha and temperature and exports the distilled ResNet18, which
# must be shown to be better. Ends with an error at the first command that fails.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,10p' "$0"; exit 2; }
[ -d "$1" ] || git clone --quiet . "$1"
cd "$1"
model=${2:-dam-crack-detector}
export DAMCRACK_TRACK=later PYTHONPATH=$PWD/src

graph() { # NAME, PYTHON that changes the demo's values `v`
    python3 -c "import yaml; v = yaml.safe_load(open('params/demo.yaml')); v['register']['model_name'] = '$model'
$2
yaml.safe_dump(v, open('params.yaml', 'w'), sort_keys=False)"
    DAMCRACK_GRAPH_RUN=$1 dvc repro --quiet
    DAMCRACK_GRAPH_RUN=$1 damcrack track send
    damcrack summary
}

inspected() { # FOLDER: three of the photos, with whoever is champion
    local photos
    mapfile -t photos < <(find data/photos -name '*.jpg' | sort | head -3)
    damcrack inspect "${photos[@]}" --model "models:/$model@champion" --out "$1"
    sha256sum "$1/blocks.csv"
}

graph first "v['export']['experiment'] = 'resnet50-pretrained'
v['register'] |= {'min_accuracy': 0.5, 'min_wide_recall': None, 'max_ece': 1.0}"
inspected "survey-first-$model"
graph second "v['export']['experiment'] = 'resnet18-dynamic'
v['distill']['common']['alpha'] = 0.2
v['distill']['items']['fixed']['temperature']['value'] = 2.0"
damcrack promote "$model"
inspected "survey-promoted-$model"
damcrack rollback --model-name "$model" --reason "tried on three photos, going back to be sure"
inspected "survey-back-$model"
damcrack history --model-name "$model"
damcrack lineage "$model@champion"
