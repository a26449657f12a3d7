"""How well a crack detector does on real photos of sources that it never saw.

sources.py  which photos, with their masks     measure.py  blocks and pixels of each photo, scored
scorers.py  detectors and filters as functions rows.py     AUROC, F1, clIoU with intervals, by source
pages.py    Markdown and pictures              __main__.py the command
"""
