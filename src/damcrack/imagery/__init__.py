"""New imagery: each photo that arrives is taken in and inspected, and trained on when enough have come.

STORE/accepted/photos/           the photo's bytes, named by their hash
STORE/accepted/labelled/         photo and mask next to each other, as the stage `photos` reads them
STORE/quarantine/HASH/           what cannot be used, and the reason
STORE/catalogue/NUMBER.csv       batch NUMBER: which objects arrived, and what became of them
STORE/results/NUMBER-HASH/       a report on the photos of batch NUMBER
STORE/inspected/NUMBER.json      names the report that counts
STORE/snapshots/NUMBER-HASH.csv  what the training on batches 1 to NUMBER read
STORE/trained/NUMBER.json        the graph was trained on batches 1 to NUMBER

Objects are created once and never changed or removed; the pods have no right to. All but numbers are named by their
content, and what a number names is written last. So a run that was killed is simply repeated.
"""
