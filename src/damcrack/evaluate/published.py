"""The paper's tables 1 and 2 (Zhang & Bao 2023, Water 15, 2839)."""

# (network, what taught it): validation accuracy on mini-ImageNet
PAPER_TABLE_1 = {
    ("resnet18", "labels"): 0.7941,
    ("resnet50", "labels"): 0.8179,
    ("resnet18", "fixed T = 4"): 0.8233,
    ("resnet18", "dynamic T"): 0.8252,
}
# (network, what it started as): accuracy on the crack tiles; the paper does not say whether its distilled
# network had a teacher in the crack stage too, so its number stands beside ours with and without
PAPER_TABLE_2 = {
    ("resnet18", "scratch"): 0.9493,
    ("resnet18", "pretrained"): 0.9607,
    ("resnet50", "scratch"): 0.9556,
    ("resnet50", "pretrained"): 0.9862,
    ("resnet18", "distilled, dynamic T"): 0.9985,
}
