"""New imagery: each photo that arrives is taken in once, inspected once, and waits for its label.

STORE/ledger/ID.json             the truth: one object per photo (by its sha256) or label, created once, never changed
STORE/accepted/photos/           the photo's bytes, named by their hash
STORE/accepted/labelled/         photo and mask side by side, as the stage `photos` reads them
STORE/quarantine/ID/             what cannot be used, and reason.json
STORE/catalogue/NUMBER.csv       everything taken in so far, with the number of the batch that it came in
STORE/inspected/NUMBER.json      batch NUMBER was inspected; its report lies in STORE/results/
STORE/snapshots/NUMBER-HASH.csv  what the training on catalogue NUMBER read
STORE/trained/NUMBER.json        the graph was trained on what catalogue NUMBER lists
STORE/seen/, STORE/claims/       spare work: objects that need no second look, and who works on what since when

Objects are only ever created, never changed or removed: what the pods may do in the bucket is no more than that.
"""
